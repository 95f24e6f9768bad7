import Foundation

/// An answer as a person reads it.
public struct Answer {
    public let label: String
    /// Labels, words or choices, each with its probability, the likeliest first.
    public var scores: [(label: String, probability: Double)] = []
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
    switch manifest.task {
    case "question-answering":
        let (start, end) = (try output("start_logits").values, try output("end_logits").values)
        return zip(start, end).flatMap { [Double($0), Double($1)] }
    case "masked-language-modelling":
        return first.rows.map(logOfLikeliest)
    case "sentence-embeddings":
        return pool(first.rows, mask: mask, pooling: manifest.pooling)
    default:
        return first.values.map(Double.init)
    }
}

/// Reads the logits of tasks that answer once for a text.
func read(_ logits: [Double], _ manifest: Manifest, _ choices: [String]?) throws -> Answer {
    switch manifest.task {
    case "sequence-classification": return ranked(softmax(logits), manifest.labels)
    case "multiple-choice": return ranked(softmax(logits), choices ?? [])
    case "regression": return Answer(label: String(format: "%.4g", logits[0]))
    case "multi-label-classification":
        let given = zip(manifest.labels, logits).filter { $1 > 0 }.map { $0.0 }
        let scores = ranked(logits.map { 1 / (1 + exp(-$0)) }, manifest.labels).scores
        return Answer(label: given.isEmpty ? "no label" : given.joined(separator: ", "), scores: scores)
    default: throw BundleError.unreadable("\(manifest.task) is no task of this sample's")
    }
}

/// The probabilities of logits.
func softmax(_ logits: [Double]) -> [Double] {
    let top = logits.max() ?? 0
    let powers = logits.map { exp($0 - top) }
    let sum = powers.reduce(0, +)
    return powers.map { $0 / sum }
}

func ranked(_ probabilities: [Double], _ labels: [String]) -> Answer {
    let scores = zip(labels, probabilities).map { (label: $0, probability: $1) }
        .sorted { $0.probability > $1.probability }
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
