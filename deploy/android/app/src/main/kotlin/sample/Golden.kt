package sample

import kotlin.math.abs

/** What a replay of the golden examples found. */
class Verdict(val examples: Int, val largestDifference: Double, val problems: List<String>) {
    val passed get() = problems.isEmpty()
}

/** Replays the golden examples: the tokenizer's ids, and the model's numbers for the golden ids. */
fun checkGolden(bundle: Bundle): Verdict {
    val problems = mutableListOf<String>()
    var largest = 0.0
    bundle.manifest.golden.forEachIndexed { number, example ->
        val shown = "golden example $number: ${example.texts.text.take(40)}"
        if (!sameIds(bundle.encode(example.texts), example)) problems += "$shown: tokenizes otherwise"
        val difference = difference(bundle.numbers(example.inputs), example)
        if (!(difference <= largest)) largest = difference // NaN stays
        if (!(difference <= bundle.manifest.tolerance)) {
            val allowed = bundle.manifest.tolerance
            problems += "$shown: differs by %.3g, the tolerance is %s".format(difference, allowed)
        }
    }
    return Verdict(bundle.manifest.golden.size, largest, problems)
}

private fun sameIds(rows: List<Row>, example: Example): Boolean {
    val masks = example.inputs.getValue("attention_mask")
    val expected = example.inputs.getValue("input_ids").zip(masks) { ids, mask ->
        ids.filterIndexed { token, _ -> mask[token] == 1L }
    }
    return rows.map { it.columns.getValue("input_ids").toList() } == expected
}

private fun difference(found: DoubleArray, example: Example): Double {
    if (found.size != example.numbers.size) return Double.NaN
    var largest = 0.0
    for (place in found.indices - example.unsure) {
        val difference = abs(found[place] - example.numbers[place])
        if (!(difference <= largest)) largest = difference
    }
    return largest
}
