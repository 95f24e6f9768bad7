package sample

/** A text, or two, as the model reads them. */
class Row(
    /** Token ids and masks, by input name. */
    val columns: Map<String, LongArray>,
    /** Begin and end of each token in its text, in code points; null of special tokens. */
    val offsets: List<Pair<Int, Int>?>,
    /** Whether a token is of the second text. */
    val ofSecond: BooleanArray,
)

/** An output of the model, its batch of one included. */
class Output(val values: FloatArray, val shape: LongArray) {
    /** The last axis, one list for each of the others' places. */
    fun rows(): List<FloatArray> {
        val width = shape.last().toInt()
        return (0 until values.size / width).map { values.copyOfRange(it * width, (it + 1) * width) }
    }
}

/** Tokenizer and runtime. The app has the device's; a test may have recorded ones. */
interface Engine {
    /** Tokenizes a text, or two, cut to the manifest's max_length at the end of the longer one. */
    fun encode(text: String, pair: String?): Row

    /** Tokenizes a question with its context, in windows that overlap by a third of max_length. */
    fun windows(question: String, context: String): List<Row>

    /** The text of a token. */
    fun token(id: Long): String

    /** Runs the model on one row of each input, or on a row for each of several choices. */
    fun run(inputs: Map<String, List<LongArray>>): Map<String, Output>
}
