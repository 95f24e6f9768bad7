// swift-tools-version: 5.9
import PackageDescription

let package = Package(
    name: "DistilledBundle",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [.library(name: "DistilledBundle", targets: ["DistilledBundle", "DistilledBundleDevice"])],
    dependencies: [
        .package(url: "https://github.com/microsoft/onnxruntime-swift-package-manager", exact: "1.20.0"),
        .package(url: "https://github.com/huggingface/swift-transformers", from: "1.0.0"),
    ],
    targets: [
        // Foundation alone: reads the manifest, the model's outputs and the golden examples.
        .target(name: "DistilledBundle"),
        .target(
            name: "DistilledBundleDevice",
            dependencies: [
                "DistilledBundle",
                .product(name: "onnxruntime", package: "onnxruntime-swift-package-manager"),
                .product(name: "Transformers", package: "swift-transformers"),
            ]
        ),
    ]
)
