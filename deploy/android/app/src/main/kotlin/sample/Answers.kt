package sample

import kotlin.math.exp
import kotlin.math.ln
import kotlin.math.sqrt

/** Tokens of an answer to a question. */
private const val MOST_TOKENS = 30

/** The numbers of an answer that golden examples tell, of the model's outputs for one text. */
fun readNumbers(manifest: Manifest, outputs: Map<String, Output>, mask: LongArray): DoubleArray {
    val first = outputs.getValue(manifest.outputs[0])
    return when (manifest.task) {
        "question-answering" -> {
            val (start, end) = listOf("start_logits", "end_logits").map { outputs.getValue(it).values }
            DoubleArray(2 * start.size) { (if (it % 2 == 0) start else end)[it / 2].toDouble() }
        }
        "masked-language-modelling" -> first.rows().map(::logOfLikeliest).toDoubleArray()
        "sentence-embeddings" -> pool(first.rows(), mask, manifest.pooling)
        else -> DoubleArray(first.values.size) { first.values[it].toDouble() }
    }
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
 * @param windows rows, each with start and end logit of its tokens in turn.
 */
fun bestSpan(windows: List<Pair<Row, DoubleArray>>): Pair<Int, Int>? {
    val none = windows.minOf { (_, logits) -> logits[0] + logits[1] }
    var best = Double.NEGATIVE_INFINITY
    var span: Pair<Int, Int>? = null
    for ((row, logits) in windows) {
        val inside = row.offsets.indices.filter { row.ofSecond[it] && row.offsets[it] != null }
        for ((place, first) in inside.withIndex()) {
            for (last in inside.drop(place).take(MOST_TOKENS)) {
                val score = logits[2 * first] + logits[2 * last + 1]
                if (score <= best) continue
                best = score
                span = Pair(row.offsets[first]!!.first, row.offsets[last]!!.second)
            }
        }
    }
    return span.takeIf { best > none }
}
