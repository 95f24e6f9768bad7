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
    /** Names of the model's inputs, all of them int64. */
    val inputs: List<String>,
    val outputs: List<String>,
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
    /** By input name, a row for each sequence, padded to the longest. */
    val inputs: Map<String, List<LongArray>>,
    val numbers: DoubleArray,
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
    return Manifest(
        name = document.getString("name"),
        target = document.getString("target"),
        task = document.getString("task"),
        model = document.getString("model"),
        inputs = names(document.getJSONArray("inputs")),
        outputs = names(document.getJSONArray("outputs")),
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
    )
}

/** One row, or one for each choice. */
private fun rows(column: JSONArray): List<LongArray> =
    if (column.opt(0) is JSONArray) (0 until column.length()).map { longs(column.getJSONArray(it)) }
    else listOf(longs(column))

private fun longs(row: JSONArray) = LongArray(row.length()) { row.getLong(it) }

private fun names(entries: JSONArray) = entries.objects().map { it.getString("name") }

private fun JSONObject.text(key: String): String? = if (isNull(key)) null else getString(key)

private fun JSONArray.strings(): List<String> = (0 until length()).map { getString(it) }

private fun JSONArray.objects(): List<JSONObject> = (0 until length()).map { getJSONObject(it) }
