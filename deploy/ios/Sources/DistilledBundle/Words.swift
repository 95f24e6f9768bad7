import Foundation

/// Tokens of an answer to a question.
private let mostTokens = 30

/// Windows of a context overlap by this part of max_length, and a question takes at most as much.
private let share = 3

private let shown = 5

/// Tasks whose answers are words of the text. swift-transformers does not say where a token stands, so words
/// that blanks part are tokenized one by one, and answers are whole words.
extension ModelBundle {
    func tagWords(_ text: String) throws -> Answer {
        let (words, owners) = try tokenize(text)
        let row = template.row([owners.map { $0.id }.prefix(manifest.maxLength - template.count(texts: 1))])
        let found = try numbers(stack([row]))
        let width = manifest.answer == "label" ? 1 : manifest.labels.count
        var tagged: [Score] = []
        for (place, source) in row.sources.enumerated() {
            guard let source, owners[source.token].isFirst else { continue }
            let own = Array(found[(place * width)..<((place + 1) * width)])
            let best = choose(own, manifest.labels, manifest.answer)
            let word = "\(words[owners[source.token].word]) \(best.label)"
            tagged.append((label: word, probability: best.scores.first?.probability))
        }
        return Answer(label: "\(tagged.count) words", scores: tagged)
    }

    func answerQuestion(_ texts: Texts) throws -> Answer {
        let (words, context) = try tokenize(texts.pair ?? "")
        let question = engine.tokens(of: texts.text).prefix(manifest.maxLength / share)
        let room = manifest.maxLength - template.count(texts: 2) - question.count
        var (best, none, start) = (-Double.infinity, Double.infinity, 0)
        var span: (first: Int, last: Int)?
        repeat {
            let window = context[start..<min(start + room, context.count)]
            let row = template.row([question, window.map { $0.id }[...]])
            let found = spanOf(row, try numbers(stack([row])))
            none = min(none, found.none)
            if found.score > best, let from = row.sources[found.first], let to = row.sources[found.last] {
                best = found.score
                span = (context[start + from.token].word, context[start + to.token].word)
            }
            start += room - manifest.maxLength / share
        } while start + manifest.maxLength / share < context.count
        guard let span, best > none else { return Answer(label: "no answer") }
        return Answer(label: words[span.first...span.last].joined(separator: " "))
    }

    func fillMask(_ text: String) throws -> Answer {
        let inputs = stack(encode(Texts(text: text)))
        let wanted = Set(manifest.inputs.map(\.name))
        let outputs = try engine.run(inputs.filter { wanted.contains($0.key) })
        let ids = inputs["input_ids"]?.first ?? []
        let mask = ids.firstIndex { ["[MASK]", "<mask>"].contains(engine.token(Int($0)) ?? "") }
        guard let mask, let output = outputs[manifest.outputs[0].name] else {
            return Answer(label: "no [MASK] or <mask> in the text")
        }
        let probabilities = softmax(output.rows[mask])
        let order = probabilities.indices.sorted { probabilities[$0] > probabilities[$1] }.prefix(shown)
        let scores: [Score] = order.map { (label: engine.token($0) ?? "?", probability: probabilities[$0]) }
        return Answer(label: scores[0].label, scores: scores)
    }

    func compare(_ texts: Texts) throws -> Answer {
        let vectors = try [texts.text, texts.pair].compactMap { $0 }.map {
            try numbers(stack(encode(Texts(text: $0))))
        }
        guard vectors.count > 1 else {
            return Answer(label: "\(vectors[0].count) numbers", vector: vectors[0])
        }
        let alike = zip(vectors[0], vectors[1]).reduce(0) { $0 + $1.0 * $1.1 }
        return Answer(label: String(format: "%.3f alike", alike), vector: vectors[0])
    }

    private typealias Span = (first: Int, last: Int, score: Double, none: Double)

    /// First and last token of the best answer in a window, its score, and that of no answer.
    private func spanOf(_ row: Row, _ numbers: [Double]) -> Span {
        if manifest.answer == "span" {
            return (Int(numbers[0]), Int(numbers[1]), numbers[2], numbers[3])
        }
        var best: Span = (0, 0, -Double.infinity, numbers[0] + numbers[1])
        let inside = row.sources.indices.filter { row.sources[$0]?.text == 1 }
        for (place, first) in inside.enumerated() {
            for last in inside[place...].prefix(mostTokens) {
                let score = numbers[2 * first] + numbers[2 * last + 1]
                if score > best.score { best = (first, last, score, best.none) }
            }
        }
        return best
    }

    private typealias Piece = (id: Int, word: Int, isFirst: Bool)

    private func tokenize(_ text: String) throws -> (words: [String], tokens: [Piece]) {
        let words = text.split(whereSeparator: \.isWhitespace).map(String.init)
        var pieces: [Piece] = []
        for (number, word) in words.enumerated() {
            // Pieces of bytes have the blank before a word in them.
            let ids = engine.tokens(of: number == 0 ? word : " " + word)
            for (place, id) in ids.enumerated() { pieces.append((id, number, place == 0)) }
        }
        guard pieces.map({ $0.id }) == engine.tokens(of: words.joined(separator: " ")) else {
            throw BundleError.unreadable("its tokenizer does not read this text word by word")
        }
        return (words, pieces)
    }
}
