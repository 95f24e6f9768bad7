package sample

import java.io.File
import org.json.JSONArray
import org.json.JSONObject

/** Replays a bundle's golden examples with what tokenizers and onnxruntime said, recorded: BUNDLE RECORDS. */
fun main(arguments: Array<String>) {
    val (folder, records) = arguments.map(::File)
    val manifest = readManifest(folder.resolve("manifest.json").readText())
    val bundle = Bundle(manifest, Recorded(JSONObject(records.readText())))
    val verdict = checkGolden(bundle)
    val answers = manifest.golden.map { example ->
        val answer = bundle.predict(example.texts)
        JSONObject().put("label", answer.label).put("scores", JSONArray(answer.scores.map { it.first }))
    }
    val found = JSONObject().put("examples", verdict.examples).put("problems", JSONArray(verdict.problems))
    println(found.put("largest", verdict.largestDifference).put("answers", JSONArray(answers)))
}

private class Recorded(private val records: JSONObject) : Engine {
    override fun encode(text: String, pair: String?): Row {
        val entry = records.getJSONObject("encodings").getJSONObject("$text\n$pair")
        val names = listOf("input_ids", "attention_mask", "token_type_ids")
        val offsets = entry.getJSONArray("offsets").lists().mapIndexed { token, (start, end) ->
            if (entry.getJSONArray("special").getInt(token) == 1) null else Pair(start.toInt(), end.toInt())
        }
        val second = entry.getJSONArray("second")
        return Row(
            names.associateWith { entry.getJSONArray(it).numbers().toLongArray() },
            offsets,
            BooleanArray(second.length()) { second.getBoolean(it) },
        )
    }

    override fun windows(question: String, context: String) = listOf(encode(question, context))

    override fun token(id: Long): String = records.getJSONArray("tokens").getString(id.toInt())

    override fun run(inputs: Map<String, List<LongArray>>): Map<String, Output> {
        val ids = JSONArray(inputs.getValue("input_ids").map { JSONArray(it.toList()) }).toString()
        val outputs = records.getJSONObject("outputs").getJSONObject(ids)
        return outputs.keys().asSequence().associateWith { name ->
            val values = outputs.getJSONArray(name).getJSONArray(0)
            val shape = outputs.getJSONArray(name).getJSONArray(1).numbers().toLongArray()
            Output(FloatArray(values.length()) { values.getDouble(it).toFloat() }, shape)
        }
    }
}

private fun JSONArray.numbers(): List<Long> = (0 until length()).map { getLong(it) }

private fun JSONArray.lists(): List<List<Long>> = (0 until length()).map { getJSONArray(it).numbers() }
