import DistilledBundle
import DistilledBundleDevice
import SwiftUI

/// Opens the folder `bundle` of the app, proves it on this device, and answers.
@main
struct SampleApp: App {
    var body: some Scene {
        WindowGroup { AnswerView() }
    }
}

struct AnswerView: View {
    @State private var bundle: ModelBundle?
    @State private var verdict = "Loading the model …"
    @State private var text = ""
    @State private var second = ""
    @State private var answer = ""

    private static let runs = 20

    var body: some View {
        Form {
            Section { Text(verdict) }
            Section {
                TextField("Text, or question", text: $text, axis: .vertical)
                TextField("Second text, context, or choices, one a line", text: $second, axis: .vertical)
                Button("Answer", action: ask).disabled(bundle == nil || text.isEmpty)
            }
            Section { Text(answer) }
        }
        .task { await open() }
    }

    private func open() async {
        do {
            guard let folder = Bundle.main.url(forResource: "bundle", withExtension: nil) else {
                throw BundleError.unreadable("no folder named bundle; add it as a folder reference")
            }
            let opened = try ModelBundle(folder: folder, engine: await DeviceEngine(folder: folder))
            let found = try opened.check()
            let allowed = opened.manifest.logitTolerance
            let difference = "largest difference \(found.largestDifference), allowed are \(allowed)"
            let list = found.problems.joined(separator: "\n")
            verdict = found.passed
                ? "\(found.examples) golden examples answered as published (\(difference))"
                : "\(found.problems.count) problems (\(difference)):\n\(list)"
            bundle = opened
        } catch {
            verdict = error.localizedDescription
        }
    }

    private func ask() {
        guard let bundle else { return }
        let isChoice = bundle.manifest.task == "multiple-choice"
        let lines = second.split(separator: "\n").map(String.init)
        let pair = isChoice || second.isEmpty ? nil : second
        let texts = Texts(text: text, pair: pair, choices: isChoice ? lines : nil)
        do {
            let said = try bundle.predict(texts)
            let scores = said.scores.map { label, probability in
                probability.map { String(format: "%@  %.1f %%", label, 100 * $0) } ?? label
            }
            let clock = ContinuousClock()
            let times = try (0..<Self.runs).map { _ in try clock.measure { _ = try bundle.predict(texts) } }
            let median = times.sorted()[Self.runs / 2] / .milliseconds(1)
            let took = String(format: "%.1f ms (median of %d)", median, Self.runs)
            answer = ([said.label] + scores + [took]).joined(separator: "\n")
        } catch {
            answer = error.localizedDescription
        }
    }
}
