import DistilledBundle
import Foundation
import OnnxRuntimeBindings
import Tokenizers

/// The tokenizer of a bundle in swift-transformers, and its model in onnxruntime.
public final class DeviceEngine: Engine {
    private let tokenizer: any Tokenizer
    private let session: ORTSession
    private let environment: ORTEnv
    private let manifest: Manifest

    public init(folder: URL) async throws {
        manifest = try Manifest.read(in: folder)
        tokenizer = try await AutoTokenizer.from(modelFolder: folder)
        environment = try ORTEnv(loggingLevel: .warning)
        let path = folder.appendingPathComponent(manifest.model).path
        session = try ORTSession(env: environment, modelPath: path, sessionOptions: nil)
    }

    public func tokens(of text: String) -> [Int] {
        tokenizer.encode(text: text, addSpecialTokens: false)
    }

    public func token(_ id: Int) -> String? {
        tokenizer.convertIdToToken(id)
    }

    public func run(_ inputs: [String: [[Int64]]]) throws -> [String: Output] {
        let names = Set(manifest.outputs.map(\.name))
        let outputs = try session.run(
            withInputs: inputs.mapValues(tensor), outputNames: names, runOptions: nil)
        return try outputs.mapValues { value in
            let data = try value.tensorData() as Data
            let shape = try value.tensorTypeAndShapeInfo().shape.map(\.intValue)
            return Output(values: data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }, shape: shape)
        }
    }

    /// A batch of one: batch × tokens, or batch × choices × tokens.
    private func tensor(_ rows: [[Int64]]) throws -> ORTValue {
        let values = rows.flatMap { $0 }
        let data = NSMutableData(bytes: values, length: values.count * MemoryLayout<Int64>.stride)
        let length = NSNumber(value: rows[0].count)
        let isChoice = manifest.task == "multiple-choice"
        let shape = isChoice ? [1, NSNumber(value: rows.count), length] : [1, length]
        return try ORTValue(tensorData: data, elementType: .int64, shape: shape)
    }
}
