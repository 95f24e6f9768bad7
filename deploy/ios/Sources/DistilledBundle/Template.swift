import Foundation

/// A text, or two, as the model reads them.
public struct Row {
    public var columns: [String: [Int64]] = ["input_ids": [], "attention_mask": [], "token_type_ids": []]
    /// Of which text each token is, 0 or 1, and which of its tokens; nil of special ones.
    public var sources: [(text: Int, token: Int)?] = []

    mutating func append(_ id: Int, type: Int, source: (text: Int, token: Int)?) {
        columns["input_ids"]?.append(Int64(id))
        columns["attention_mask"]?.append(1)
        columns["token_type_ids"]?.append(Int64(type))
        sources.append(source)
    }
}

/// What tokenizer.json puts around texts. swift-transformers does so around single ones alone.
public struct Template {
    enum Piece {
        case special(id: Int, type: Int)
        case text(Int, type: Int)
    }

    let single: [Piece]
    let pair: [Piece]

    /// Reads `post_processor` of the tokenizer.json in a folder.
    public init(in folder: URL) throws {
        let data = try Data(contentsOf: folder.appendingPathComponent("tokenizer.json"))
        let document = try JSONSerialization.jsonObject(with: data) as? [String: Any]
        guard let processor = document?["post_processor"] as? [String: Any] else {
            throw BundleError.unreadable("tokenizer.json has no post_processor")
        }
        switch processor["type"] as? String {
        case "TemplateProcessing":
            let ids = processor["special_tokens"] as? [String: [String: Any]] ?? [:]
            single = try Template.pieces(processor["single"], ids)
            pair = try Template.pieces(processor["pair"], ids)
        case "BertProcessing", "RobertaProcessing":
            let ends = try ["cls", "sep"].map { try Template.id(processor[$0]) }
            let isRoberta = processor["type"] as? String == "RobertaProcessing"
            let end = Piece.special(id: ends[1], type: 0)
            let first: [Piece] = [.special(id: ends[0], type: 0), .text(0, type: 0), end]
            let type = isRoberta ? 0 : 1
            let between: [Piece] = isRoberta ? [end] : []
            single = first
            pair = first + between + [.text(1, type: type), .special(id: ends[1], type: type)]
        case let other:
            throw BundleError.unreadable("tokenizer.json: post_processor \(other ?? "?") is not known")
        }
    }

    /// How many special tokens stand around one text, or two.
    public func count(texts: Int) -> Int {
        (texts > 1 ? pair : single).filter { if case .special = $0 { true } else { false } }.count
    }

    /// Puts special tokens around the tokens of one text, or two.
    public func row(_ texts: [ArraySlice<Int>]) -> Row {
        var row = Row()
        for piece in texts.count > 1 ? pair : single {
            switch piece {
            case .special(let id, let type): row.append(id, type: type, source: nil)
            case .text(let number, let type):
                for token in texts[number].indices {
                    row.append(texts[number][token], type: type, source: (number, token))
                }
            }
        }
        return row
    }

    private static func pieces(_ value: Any?, _ ids: [String: [String: Any]]) throws -> [Piece] {
        try (value as? [[String: [String: Any]]] ?? []).map { entry in
            if let sequence = entry["Sequence"] {
                return .text(sequence["id"] as? String == "A" ? 0 : 1, type: sequence["type_id"] as? Int ?? 0)
            }
            let token = entry["SpecialToken"]
            guard let name = token?["id"] as? String, let id = (ids[name]?["ids"] as? [Int])?.first else {
                throw BundleError.unreadable("tokenizer.json: a special token of post_processor has no id")
            }
            return .special(id: id, type: token?["type_id"] as? Int ?? 0)
        }
    }

    private static func id(_ value: Any?) throws -> Int {
        guard let pair = value as? [Any], pair.count == 2, let id = pair[1] as? Int else {
            throw BundleError.unreadable("tokenizer.json: post_processor names no ids of its special tokens")
        }
        return id
    }
}
