import Foundation

/// What manifest.json says of a bundle, as far as an app reads it.
public struct Manifest: Decodable {
    public let schemaVersion: Int
    public let name: String
    public let target: String
    public let task: String
    /// The file to load, relative to the bundle.
    public let model: String
    public let inputs: [TensorEntry]
    public let outputs: [TensorEntry]
    /// What the model answers with: "logits", "probabilities", "label" or "span".
    public let answer: String?
    /// What fills each input up to a length that is fixed.
    public let padding: [String: Int64]?
    public let labels: [String]
    /// "mean" or "cls", of sentence embeddings.
    public let pooling: String?
    /// Tokens, the special ones included.
    public let maxLength: Int
    public let golden: [Example]
    public let logitTolerance: Double

    /// Tokens of every text, where the model reads no other number.
    public var length: Int? {
        if case .fixed(let length)? = inputs[0].shape.last { return length }
        return nil
    }

    static let readable = 1

    /// Reads the manifest in a folder.
    public static func read(in folder: URL) throws -> Manifest {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        let data = try Data(contentsOf: folder.appendingPathComponent("manifest.json"))
        let manifest = try decoder.decode(Manifest.self, from: data)
        guard manifest.schemaVersion == readable else {
            throw BundleError.unreadable("schema_version is \(manifest.schemaVersion); accepted: \(readable)")
        }
        return manifest
    }
}

/// An input or output of the model.
public struct TensorEntry: Decodable {
    public let name: String
    /// "int64" or "int32".
    public let dtype: String
    public let shape: [Axis]
}

/// A length, or the name of one that varies.
public enum Axis: Decodable {
    case fixed(Int)
    case varying(String)

    public init(from decoder: Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let length = try? container.decode(Int.self) {
            self = .fixed(length)
        } else {
            self = .varying(try container.decode(String.self))
        }
    }
}

/// A text and what the bundle must make of it.
public struct Example: Decodable {
    public let text: String
    public let pair: String?
    public let choices: [String]?
    public let inputs: GoldenInputs
    public let logits: [Double]
    /// Places of labels or tokens that another processor may well answer otherwise.
    public let unsure: [Int]?

    /// What is asked.
    public var texts: Texts { Texts(text: text, pair: pair, choices: choices) }
}

/// Token ids and masks, a row for each sequence, padded to the longest, or to the model's own length.
public struct GoldenInputs: Decodable {
    public let columns: [String: [[Int64]]]

    public init(from decoder: Decoder) throws {
        let container = try decoder.container(keyedBy: Name.self)
        var columns: [String: [[Int64]]] = [:]
        for key in container.allKeys {
            if let row = try? container.decode([Int64].self, forKey: key) {
                columns[snakeCase(key.stringValue)] = [row]
            } else {
                columns[snakeCase(key.stringValue)] = try container.decode([[Int64]].self, forKey: key)
            }
        }
        self.columns = columns
    }

    private struct Name: CodingKey {
        let stringValue: String
        let intValue: Int? = nil
        init?(stringValue: String) { self.stringValue = stringValue }
        init?(intValue: Int) { nil }
    }
}

/// The decoder turns inputs' names into camel case as well: inputIds.
private func snakeCase(_ name: String) -> String {
    name.map { $0.isUppercase ? "_\($0.lowercased())" : String($0) }.joined()
}

/// What is asked: a text; a text and a second one, as question and context; or a text and its choices.
public struct Texts {
    public let text: String
    public let pair: String?
    public let choices: [String]?

    public init(text: String, pair: String? = nil, choices: [String]? = nil) {
        self.text = text
        self.pair = pair
        self.choices = choices
    }
}

/// What a bundle cannot be used for, and why.
public enum BundleError: LocalizedError {
    case unreadable(String)

    public var errorDescription: String? {
        switch self {
        case .unreadable(let reason): "The bundle cannot be read: \(reason)"
        }
    }
}
