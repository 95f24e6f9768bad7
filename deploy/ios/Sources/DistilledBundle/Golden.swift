import Foundation

/// What a replay of the golden examples found.
public struct Verdict {
    public let examples: Int
    public let largestDifference: Double
    public let problems: [String]

    public var passed: Bool { problems.isEmpty }
}

extension ModelBundle {
    /// Replays the golden examples: the tokenizer's ids, and the model's numbers for the golden ids.
    public func check() throws -> Verdict {
        var (problems, largest) = ([String](), 0.0)
        for (number, example) in manifest.golden.enumerated() {
            let shown = "golden example \(number): \(example.text.prefix(40))"
            if encode(example.texts).map({ $0.columns["input_ids"] ?? [] }) != example.ids {
                problems.append("\(shown): tokenizes otherwise")
            }
            let difference = distance(try numbers(example.inputs.columns), example)
            if !(difference <= largest) { largest = difference } // NaN stays
            if !(difference <= manifest.logitTolerance) {
                let allowed = manifest.logitTolerance
                problems.append("\(shown): differs by \(difference), the tolerance is \(allowed)")
            }
        }
        return Verdict(examples: manifest.golden.count, largestDifference: largest, problems: problems)
    }
}

extension Example {
    /// The token ids of each sequence, without padding.
    var ids: [[Int64]] {
        let masks = inputs.columns["attention_mask"] ?? []
        return zip(inputs.columns["input_ids"] ?? [], masks).map { ids, mask in
            zip(ids, mask).filter { $1 == 1 }.map { $0.0 }
        }
    }
}

private func distance(_ found: [Double], _ example: Example) -> Double {
    guard found.count == example.logits.count else { return .nan }
    let unsure = Set(example.unsure ?? [])
    var largest = 0.0
    for place in found.indices where !unsure.contains(place) {
        let difference = abs(found[place] - example.logits[place])
        if !(difference <= largest) { largest = difference }
    }
    return largest
}
