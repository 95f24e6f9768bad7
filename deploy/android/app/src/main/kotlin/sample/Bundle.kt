package sample

/** An answer as a person reads it. */
class Answer(
    val label: String,
    /** Labels, words or choices, each with its probability; null, where the model says labels alone. */
    val scores: List<Pair<String, Double?>> = emptyList(),
    /** The vector of a text. */
    val vector: DoubleArray? = null,
)

/** A bundle that answers: its manifest, and what tokenizes and runs. */
class Bundle(val manifest: Manifest, private val engine: Engine) {

    /** Answers one text, or what else the task reads. */
    fun predict(texts: Texts): Answer = when (manifest.task) {
        "question-answering" -> answerQuestion(texts)
        "sentence-embeddings" -> compare(texts)
        "masked-language-modelling" -> fillMask(engine.encode(texts.text, null))
        "token-classification" -> tagWords(texts.text, engine.encode(texts.text, null))
        "multiple-choice" -> choose(numbers(stack(encode(texts))), texts.choices.orEmpty(), manifest.answer)
        "sequence-classification" -> choose(numbers(stack(encode(texts))), manifest.labels, manifest.answer)
        "multi-label-classification" ->
            chooseSeveral(numbers(stack(encode(texts))), manifest.labels, manifest.answer)
        "regression" -> Answer("%.4g".format(numbers(stack(encode(texts)))[0]))
        else -> throw IllegalArgumentException("manifest.json: ${manifest.task} is no task of this sample's")
    }

    /** Tokenizes a text alone, beside a second one, or beside each of its choices. */
    fun encode(texts: Texts): List<Row> =
        texts.choices?.map { engine.encode(texts.text, it) } ?: listOf(engine.encode(texts.text, texts.pair))

    /** The numbers of an answer that golden examples tell. */
    fun numbers(inputs: Map<String, List<LongArray>>): DoubleArray {
        val outputs = engine.run(inputs.filterKeys { it in manifest.inputs })
        return readNumbers(manifest, outputs, inputs.getValue("attention_mask")[0])
    }

    /** Rows of one length: the model's, or that of the longest, where 0 pads all that a mask hides. */
    fun stack(rows: List<Row>): Map<String, List<LongArray>> {
        val length = manifest.length ?: rows.maxOf { it.offsets.size }
        return manifest.inputs.associateWith { name ->
            val filler = manifest.padding[name] ?: 0
            rows.map { row ->
                val column = row.columns.getValue(name)
                LongArray(length) { if (it < column.size) column[it] else filler }
            }
        }
    }

    private fun compare(texts: Texts): Answer {
        val rows = listOfNotNull(texts.text, texts.pair).map { engine.encode(it, null) }
        val vectors = rows.map { numbers(stack(listOf(it))) }
        if (vectors.size == 1) return Answer("${vectors[0].size} numbers", vector = vectors[0])
        val alike = vectors[0].indices.sumOf { vectors[0][it] * vectors[1][it] }
        return Answer("%.3f alike".format(alike), vector = vectors[0])
    }

    private fun tagWords(text: String, row: Row): Answer {
        val numbers = numbers(stack(listOf(row)))
        val width = if (manifest.answer == "label") 1 else manifest.labels.size
        val words = wordsOf(text, row.offsets).map { (word, token) ->
            val own = numbers.copyOfRange(token * width, (token + 1) * width)
            val tag = choose(own, manifest.labels, manifest.answer)
            Pair("$word ${tag.label}", tag.scores.firstOrNull()?.second)
        }
        return Answer("${words.size} words", words)
    }

    private fun fillMask(row: Row): Answer {
        val inputs = stack(listOf(row))
        val rows = engine.run(inputs).getValue(manifest.outputs[0]).rows()
        val masked = row.columns.getValue("input_ids").indexOfFirst { engine.token(it) in MASKS }
        if (masked < 0) return Answer("no ${MASKS.joinToString(" or ")} in the text")
        val probabilities = softmax(DoubleArray(rows[masked].size) { rows[masked][it].toDouble() })
        val best = probabilities.indices.sortedByDescending { probabilities[it] }.take(SHOWN)
        val scores = best.map { Pair(engine.token(it.toLong()), probabilities[it]) }
        return Answer(scores[0].first, scores)
    }

    private fun answerQuestion(texts: Texts): Answer {
        val context = requireNotNull(texts.pair) { "a question needs a context" }
        val windows = engine.windows(texts.text, context).map { Pair(it, numbers(stack(listOf(it)))) }
        val span = bestSpan(windows, manifest.answer) ?: return Answer("no answer")
        return Answer(cut(context, span.first, span.second))
    }

    private companion object {
        val MASKS = setOf("[MASK]", "<mask>")
        const val SHOWN = 5
    }
}
