package sample

import kotlin.math.exp
import kotlin.math.ln
import kotlin.math.sqrt

/** Tokens of an answer to a question. */
private const val MOST_TOKENS = 30

/** The numbers of an answer that golden examples tell, of the model's outputs for one text. */
fun readNumbers(manifest: Manifest, outputs: Map<String, Output>, mask: LongArray): DoubleArray {
    val first = outputs.getValue(manifest.outputs[0])
    val tokens = mask.count { it == 1L } // those behind are padding
    if (manifest.answer == "span") return doubles(first.values)
    return when (manifest.task) {
        "question-answering" -> {
            val (start, end) = listOf("start_logits", "end_logits").map { outputs.getValue(it).values }
            DoubleArray(2 * tokens) { (if (it % 2 == 0) start else end)[it / 2].toDouble() }
        }
        "token-classification" -> doubles(first.values.copyOf(first.values.size / mask.size * tokens))
        "masked-language-modelling" -> first.rows().take(tokens).map(::logOfLikeliest).toDoubleArray()
        "sentence-embeddings" -> pool(first.rows(), mask, manifest.pooling)
        else -> doubles(first.values)
    }
}

private fun doubles(values: FloatArray) = DoubleArray(values.size) { values[it].toDouble() }

/** One of several labels, by what the model answers with. */
fun choose(numbers: DoubleArray, labels: List<String>, answer: String): Answer = when (answer) {
    "label" -> Answer(labels[numbers[0].toInt()])
    "probabilities" -> ranked(numbers.asList(), labels)
    else -> ranked(softmax(numbers), labels)
}

/** As many labels as a text has. */
fun chooseSeveral(numbers: DoubleArray, labels: List<String>, answer: String): Answer {
    val limit = if (answer == "probabilities") 0.5 else 0.0
    val given = labels.filterIndexed { place, _ -> numbers[place] > limit }
    val label = given.joinToString(", ").ifEmpty { "no label" }
    if (answer == "label") return Answer(label)
    val probabilities = if (answer == "probabilities") numbers.asList() else numbers.map { 1 / (1 + exp(-it)) }
    return Answer(label, ranked(probabilities, labels).scores)
}

/** The probabilities of logits. */
fun softmax(logits: DoubleArray): List<Double> {
    val top = logits.max()
    val powers = logits.map { exp(it - top) }
    val sum = powers.sum()
    return powers.map { it / sum }
}

/** Labels by probability, the likeliest first. */
fun ranked(probabilities: List<Double>, labels: List<String>): Answer {
    val scores = labels.zip(probabilities).sortedByDescending { it.second }
    return Answer(scores[0].first, scores)
}

private fun logOfLikeliest(logits: FloatArray): Double {
    val top = logits.max().toDouble()
    return -ln(logits.sumOf { exp(it - top) })
}

private fun pool(rows: List<FloatArray>, mask: LongArray, pooling: String?): DoubleArray {
    val counted = rows.filterIndexed { token, _ -> if (pooling == "cls") token == 0 else mask[token] == 1L }
    val sum = DoubleArray(rows[0].size) { place -> counted.sumOf { it[place].toDouble() } }
    val norm = sqrt(sum.sumOf { it * it })
    return DoubleArray(sum.size) { sum[it] / norm }
}

/** The words of a text that blanks part, each with the number of its first token. */
fun wordsOf(text: String, offsets: List<Pair<Int, Int>?>): List<Pair<String, Int>> {
    val starts = mutableListOf<Triple<Int, Int, Int>>()
    offsets.forEachIndexed { token, place ->
        if (place == null || place.first == place.second) return@forEachIndexed
        val last = starts.lastOrNull()
        if (last != null && cut(text, last.second, place.first).none(Char::isWhitespace)) {
            starts[starts.lastIndex] = last.copy(second = place.second)
        } else {
            starts += Triple(place.first, place.second, token)
        }
    }
    return starts.map { (start, end, token) -> Pair(cut(text, start, end), token) }
}

/** Part of a text, by code points: a Kotlin string counts in halves of some of them. */
fun cut(text: String, start: Int, end: Int): String =
    text.substring(text.offsetByCodePoints(0, start), text.offsetByCodePoints(0, end))

/**
 * Where in the context the best answer of all windows stands; null, if none is better than no answer.
 *
 * @param windows rows, each with the numbers of its answer.
 * @param answer "logits": start and end of the tokens in turn; or "span".
 */
fun bestSpan(windows: List<Pair<Row, DoubleArray>>, answer: String): Pair<Int, Int>? {
    val spans = windows.map { (row, numbers) ->
        Pair(row, if (answer == "span") spanOf(numbers) else findSpan(row, numbers))
    }
    val (row, best) = spans.maxBy { (_, span) -> span.score }
    if (best.score <= spans.minOf { (_, span) -> span.none }) return null
    return Pair(row.offsets[best.first]!!.first, row.offsets[best.last]!!.second)
}

/** First and last token of the best answer in a window, its score, and that of no answer. */
private class Span(val first: Int, val last: Int, val score: Double, val none: Double)

private fun spanOf(numbers: DoubleArray) = Span(numbers[0].toInt(), numbers[1].toInt(), numbers[2], numbers[3])

private fun findSpan(row: Row, logits: DoubleArray): Span {
    val none = logits[0] + logits[1]
    var best = Span(0, 0, Double.NEGATIVE_INFINITY, none)
    val inside = row.offsets.indices.filter { row.ofSecond[it] && row.offsets[it] != null }
    for ((place, first) in inside.withIndex()) {
        for (last in inside.drop(place).take(MOST_TOKENS)) {
            val score = logits[2 * first] + logits[2 * last + 1]
            if (score > best.score) best = Span(first, last, score, none)
        }
    }
    return best
}
