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
            let info = try value.tensorTypeAndShapeInfo()
            // Numbers of labels are whole, all others floating.
            let values = data.withUnsafeBytes { bytes in
                info.elementType == .int64
                    ? bytes.bindMemory(to: Int64.self).map { Float($0) }
                    : Array(bytes.bindMemory(to: Float.self))
            }
            return Output(values: values, shape: info.shape.map(\.intValue))
        }
    }

    /// A batch of one: batch × tokens, or batch × choices × tokens.
    private func tensor(_ rows: [[Int64]]) throws -> ORTValue {
        let values = rows.flatMap { $0 }
        let length = NSNumber(value: rows[0].count)
        let isChoice = manifest.task == "multiple-choice"
        let shape = isChoice ? [1, NSNumber(value: rows.count), length] : [1, length]
        guard manifest.inputs.contains(where: { $0.dtype == "int32" }) else {
            return try ORTValue(tensorData: bytes(values), elementType: .int64, shape: shape)
        }
        return try ORTValue(tensorData: bytes(values.map { Int32($0) }), elementType: .int32, shape: shape)
    }

    private func bytes<Number>(_ values: [Number]) -> NSMutableData {
        NSMutableData(bytes: values, length: values.count * MemoryLayout<Number>.stride)
    }
}
