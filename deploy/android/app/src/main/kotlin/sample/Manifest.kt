package sample

import org.json.JSONArray
import org.json.JSONObject

/** What manifest.json says of a bundle, as far as an app reads it. */
class Manifest(
    val name: String,
    val target: String,
    val task: String,
    /** The file to load, relative to the bundle. */
    val model: String,
    /** Names of the model's inputs. */
    val inputs: List<String>,
    /** Whether they are int32, not int64. */
    val narrow: Boolean,
    /** Tokens of every text, where the model reads no other number. */
    val length: Int?,
    /** What fills each input up to as many. */
    val padding: Map<String, Long>,
    val outputs: List<String>,
    /** What the model answers with: "logits", "probabilities", "label" or "span". */
    val answer: String,
    val labels: List<String>,
    /** "mean" or "cls", of sentence embeddings. */
    val pooling: String?,
    /** Tokens, the special ones included. */
    val maxLength: Int,
    val tolerance: Double,
    val golden: List<Example>,
)

/** A text and what the bundle must make of it. */
class Example(
    val texts: Texts,
    /** By input name, a row for each sequence, padded to the longest, or to the model's own length. */
    val inputs: Map<String, List<LongArray>>,
    val numbers: DoubleArray,
    /** Places of labels or tokens that another processor may well answer otherwise. */
    val unsure: Set<Int>,
)

/** What is asked: a text; a text and a second one, as question and context; or a text and its choices. */
class Texts(val text: String, val pair: String? = null, val choices: List<String>? = null)

private const val SCHEMA_VERSION = 1

/**
 * Reads manifest.json.
 *
 * @throws IllegalArgumentException if it is of a kind that this code does not read.
 */
fun readManifest(json: String): Manifest {
    val document = JSONObject(json)
    val version = document.getInt("schema_version")
    require(version == SCHEMA_VERSION) {
        "manifest.json: schema_version is $version; accepted: $SCHEMA_VERSION. " +
            "Take this sample from the distill-deploy that published the bundle."
    }
    val inputs = document.getJSONArray("inputs").objects()
    val fillers = document.getJSONObject("padding")
    return Manifest(
        name = document.getString("name"),
        target = document.getString("target"),
        task = document.getString("task"),
        model = document.getString("model"),
        inputs = inputs.map { it.getString("name") },
        narrow = inputs.any { it.getString("dtype") == "int32" },
        length = inputs[0].getJSONArray("shape").let { it.get(it.length() - 1) as? Int }, // else a name
        padding = fillers.keys().asSequence().associateWith(fillers::getLong),
        outputs = document.getJSONArray("outputs").objects().map { it.getString("name") },
        answer = document.getString("answer"),
        labels = document.getJSONArray("labels").strings(),
        pooling = document.text("pooling"),
        maxLength = document.getInt("max_length"),
        tolerance = document.getDouble("logit_tolerance"),
        golden = document.getJSONArray("golden").objects().map(::readExample),
    )
}

private fun readExample(entry: JSONObject): Example {
    val choices = if (entry.isNull("choices")) null else entry.getJSONArray("choices").strings()
    val inputs = entry.getJSONObject("inputs")
    val columns = inputs.keys().asSequence().associateWith { rows(inputs.getJSONArray(it)) }
    val logits = entry.getJSONArray("logits")
    return Example(
        Texts(entry.getString("text"), entry.text("pair"), choices),
        columns,
        DoubleArray(logits.length()) { logits.getDouble(it) },
        longs(entry.getJSONArray("unsure")).map(Long::toInt).toSet(),
    )
}

/** One row, or one for each choice. */
private fun rows(column: JSONArray): List<LongArray> =
    if (column.opt(0) is JSONArray) (0 until column.length()).map { longs(column.getJSONArray(it)) }
    else listOf(longs(column))

private fun longs(row: JSONArray) = LongArray(row.length()) { row.getLong(it) }

private fun JSONObject.text(key: String): String? = if (isNull(key)) null else getString(key)

private fun JSONArray.strings(): List<String> = (0 until length()).map { getString(it) }

private fun JSONArray.objects(): List<JSONObject> = (0 until length()).map { getJSONObject(it) }
