package sample

import ai.djl.huggingface.tokenizers.Encoding
import ai.djl.huggingface.tokenizers.HuggingFaceTokenizer
import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import java.io.File
import java.nio.IntBuffer
import java.nio.LongBuffer

/** Windows of a context overlap by this part of max_length. */
private const val SHARE = 3

/** The tokenizer of the bundle in DJL, which is the one of training, and its model in onnxruntime. */
class DeviceEngine(folder: File, private val manifest: Manifest) : Engine, AutoCloseable {
    private val environment = OrtEnvironment.getEnvironment()
    private val session = OrtSession.SessionOptions().use {
        environment.createSession(folder.resolve(manifest.model).path, it)
    }
    private val path = folder.resolve("tokenizer.json").toPath()
    private val tokenizer = builder().optTruncation(true).build()
    private val windowed by lazy {
        builder().optTruncateSecondOnly().optStride(manifest.maxLength / SHARE)
            .optWithOverflowingTokens(true).build()
    }

    // Without modelMaxLength, DJL takes 512 for the most there can be.
    private fun builder() = HuggingFaceTokenizer.builder(mapOf("modelMaxLength" to manifest.maxLength))
        .optTokenizerPath(path).optMaxLength(manifest.maxLength).optPadding(false)

    override fun encode(text: String, pair: String?): Row =
        rowOf(if (pair == null) tokenizer.encode(text) else tokenizer.encode(text, pair))

    override fun windows(question: String, context: String): List<Row> {
        val first = windowed.encode(question, context)
        return (listOf(first) + first.overflowing).map(::rowOf)
    }

    override fun token(id: Long): String = tokenizer.decode(longArrayOf(id), false).trim()

    override fun run(inputs: Map<String, List<LongArray>>): Map<String, Output> {
        val tensors = inputs.mapValues { (_, rows) -> tensorOf(rows) }
        try {
            return session.run(tensors).use { results ->
                results.associate { (name, value) ->
                    val tensor = value as OnnxTensor
                    name to Output(valuesOf(tensor), tensor.info.shape)
                }
            }
        } finally {
            tensors.values.forEach(OnnxTensor::close)
        }
    }

    override fun close() {
        session.close()
        tokenizer.close()
    }

    /** A batch of one: batch × tokens, or batch × choices × tokens. */
    private fun tensorOf(rows: List<LongArray>): OnnxTensor {
        val length = rows[0].size.toLong()
        val shape = if (manifest.task == "multiple-choice") longArrayOf(1, rows.size.toLong(), length)
        else longArrayOf(1, length)
        val values = rows.flatMap(LongArray::asList)
        if (!manifest.narrow) {
            return OnnxTensor.createTensor(environment, LongBuffer.wrap(values.toLongArray()), shape)
        }
        val narrow = IntArray(values.size) { values[it].toInt() }
        return OnnxTensor.createTensor(environment, IntBuffer.wrap(narrow), shape)
    }

    /** Numbers of labels are whole, all others floating. */
    private fun valuesOf(tensor: OnnxTensor): FloatArray {
        if (tensor.info.type == OnnxJavaType.INT64) {
            val buffer = tensor.longBuffer
            return FloatArray(buffer.remaining()) { buffer.get().toFloat() }
        }
        val buffer = tensor.floatBuffer
        return FloatArray(buffer.remaining()).also(buffer::get)
    }

    private fun rowOf(encoding: Encoding): Row {
        val special = encoding.specialTokenMask
        val before = special.sum() - 1 // one special token ends the second text, all others stand before it
        var passed = 0L
        val ofSecond = BooleanArray(special.size) { token ->
            passed += special[token]
            special[token] == 0L && passed == before
        }
        val offsets = encoding.charTokenSpans.mapIndexed { token, span ->
            if (special[token] == 1L || span == null) null else Pair(span.start, span.end)
        }
        val columns = mapOf(
            "input_ids" to encoding.ids,
            "attention_mask" to encoding.attentionMask,
            "token_type_ids" to encoding.typeIds,
        )
        return Row(columns, offsets, ofSecond)
    }
}
