import Foundation

/// An output of the model, its batch of one included.
public struct Output {
    public let values: [Float]
    public let shape: [Int]

    public init(values: [Float], shape: [Int]) {
        self.values = values
        self.shape = shape
    }

    /// The last axis, one list for each of the others' places.
    var rows: [[Double]] {
        let width = shape.last ?? 1
        return stride(from: 0, to: values.count, by: width).map { values[$0..<($0 + width)].map(Double.init) }
    }
}

/// Tokenizer and runtime: the device's, or in a test recorded ones.
public protocol Engine {
    /// The token ids of a text, without special ones.
    func tokens(of text: String) -> [Int]
    /// The text of a token.
    func token(_ id: Int) -> String?
    /// Runs the model on one row of each input, or on a row for each of several choices.
    func run(_ inputs: [String: [[Int64]]]) throws -> [String: Output]
}

/// A bundle that answers.
public final class ModelBundle {
    public let manifest: Manifest
    let engine: Engine
    let template: Template

    public init(folder: URL, engine: Engine) throws {
        manifest = try Manifest.read(in: folder)
        template = try Template(in: folder)
        self.engine = engine
    }

    /// Answers one text, or what else the task reads.
    public func predict(_ texts: Texts) throws -> Answer {
        switch manifest.task {
        case "question-answering": return try answerQuestion(texts)
        case "sentence-embeddings": return try compare(texts)
        case "token-classification": return try tagWords(texts.text)
        case "masked-language-modelling": return try fillMask(texts.text)
        default: return try read(numbers(stack(encode(texts))), manifest, texts.choices)
        }
    }

    /// Tokenizes a text alone, beside a second one, or beside each of its choices.
    public func encode(_ texts: Texts) -> [Row] {
        if let choices = texts.choices {
            return choices.map { row([texts.text, $0]) }
        }
        return [row([texts.text] + (texts.pair.map { [$0] } ?? []))]
    }

    /// The numbers of an answer that golden examples tell.
    public func numbers(_ inputs: [String: [[Int64]]]) throws -> [Double] {
        let wanted = Set(manifest.inputs.map(\.name))
        let outputs = try engine.run(inputs.filter { wanted.contains($0.key) })
        return try readNumbers(manifest, outputs, mask: inputs["attention_mask"]?.first ?? [])
    }

    /// Rows of one length: the model's, or that of the longest, where 0 pads all that a mask hides.
    public func stack(_ rows: [Row]) -> [String: [[Int64]]] {
        let length = manifest.length ?? rows.map(\.sources.count).max() ?? 0
        var inputs: [String: [[Int64]]] = [:]
        for name in ["input_ids", "attention_mask", "token_type_ids"] {
            let filler = manifest.padding?[name] ?? 0
            inputs[name] = rows.map { row in
                let column = row.columns[name] ?? []
                return column + Array(repeating: filler, count: length - column.count)
            }
        }
        return inputs
    }

    private func row(_ texts: [String]) -> Row {
        let tokens = texts.map(engine.tokens(of:))
        let room = manifest.maxLength - template.count(texts: texts.count)
        let lengths = cutLongest(tokens.map(\.count), room: room)
        return template.row(zip(tokens, lengths).map { $0.prefix($1) })
    }
}

/// How many tokens each text keeps, by the rule of tokenizers' LongestFirst.
func cutLongest(_ lengths: [Int], room: Int) -> [Int] {
    guard lengths.count > 1 else { return [min(lengths[0], room)] }
    guard lengths[0] + lengths[1] > room else { return lengths }
    let (shorter, longer) = lengths[0] > lengths[1] ? (1, 0) : (0, 1)
    var kept = lengths
    kept[longer] = lengths[shorter] > room ? lengths[shorter] : max(lengths[shorter], room - lengths[shorter])
    if kept[0] + kept[1] > room {
        kept[shorter] = room / 2
        kept[longer] = room / 2 + room % 2
    }
    return kept
}
