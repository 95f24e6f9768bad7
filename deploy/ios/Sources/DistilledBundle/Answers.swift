import Foundation

/// A label, word or choice; without a probability, where the model says labels alone.
public typealias Score = (label: String, probability: Double?)

/// An answer as a person reads it.
public struct Answer {
    public let label: String
    /// The likeliest first; words as they stand.
    public var scores: [Score] = []
    /// The vector of a text.
    public var vector: [Double]?
}

/// The numbers of an answer that golden examples tell, of the model's outputs for one text.
public func readNumbers(_ manifest: Manifest, _ outputs: [String: Output], mask: [Int64]) throws -> [Double] {
    func output(_ name: String) throws -> Output {
        if let found = outputs[name] { return found }
        throw BundleError.unreadable("the model has no output \(name)")
    }
    let first = try output(manifest.outputs[0].name)
    let tokens = mask.filter { $0 == 1 }.count // those behind are padding
    if manifest.answer == "span" { return first.values.map(Double.init) }
    switch manifest.task {
    case "question-answering":
        let (start, end) = (try output("start_logits").values, try output("end_logits").values)
        return zip(start, end).prefix(tokens).flatMap { [Double($0), Double($1)] }
    case "token-classification":
        return first.values.prefix(first.values.count / mask.count * tokens).map(Double.init)
    case "masked-language-modelling":
        return first.rows.prefix(tokens).map(logOfLikeliest)
    case "sentence-embeddings":
        return pool(first.rows, mask: mask, pooling: manifest.pooling)
    default:
        return first.values.map(Double.init)
    }
}

/// Reads the numbers of tasks that answer once for a text.
func read(_ numbers: [Double], _ manifest: Manifest, _ choices: [String]?) throws -> Answer {
    switch manifest.task {
    case "sequence-classification": return choose(numbers, manifest.labels, manifest.answer)
    case "multiple-choice": return choose(numbers, choices ?? [], manifest.answer)
    case "regression": return Answer(label: String(format: "%.4g", numbers[0]))
    case "multi-label-classification": return chooseSeveral(numbers, manifest.labels, manifest.answer)
    default: throw BundleError.unreadable("\(manifest.task) is no task of this sample's")
    }
}

/// One of several labels, by what the model answers with.
func choose(_ numbers: [Double], _ labels: [String], _ answer: String?) -> Answer {
    if answer == "label" { return Answer(label: labels[Int(numbers[0])]) }
    return ranked(answer == "probabilities" ? numbers : softmax(numbers), labels)
}

/// As many labels as a text has.
private func chooseSeveral(_ numbers: [Double], _ labels: [String], _ answer: String?) -> Answer {
    let isLikely = answer == "probabilities"
    let given = zip(labels, numbers).filter { $1 > (isLikely ? 0.5 : 0) }.map { $0.0 }
    let label = given.isEmpty ? "no label" : given.joined(separator: ", ")
    if answer == "label" { return Answer(label: label) }
    let probabilities = isLikely ? numbers : numbers.map { 1 / (1 + exp(-$0)) }
    return Answer(label: label, scores: ranked(probabilities, labels).scores)
}

/// The probabilities of logits.
func softmax(_ logits: [Double]) -> [Double] {
    let top = logits.max() ?? 0
    let powers = logits.map { exp($0 - top) }
    let sum = powers.reduce(0, +)
    return powers.map { $0 / sum }
}

func ranked(_ probabilities: [Double], _ labels: [String]) -> Answer {
    let order = probabilities.indices.sorted { probabilities[$0] > probabilities[$1] }
    let scores: [Score] = order.map { (label: labels[$0], probability: probabilities[$0]) }
    return Answer(label: scores.first?.label ?? "nothing", scores: scores)
}

private func logOfLikeliest(_ logits: [Double]) -> Double {
    let top = logits.max() ?? 0
    return -log(logits.reduce(0) { $0 + exp($1 - top) })
}

private func pool(_ rows: [[Double]], mask: [Int64], pooling: String?) -> [Double] {
    let counted = rows.indices.filter { pooling == "cls" ? $0 == 0 : mask[$0] == 1 }
    var sum = [Double](repeating: 0, count: rows[0].count)
    for token in counted {
        for place in sum.indices { sum[place] += rows[token][place] }
    }
    let norm = sum.reduce(0) { $0 + $1 * $1 }.squareRoot()
    return sum.map { $0 / norm }
}
