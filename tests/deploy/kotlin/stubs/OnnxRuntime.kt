@file:Suppress("UNUSED_PARAMETER")

package ai.onnxruntime

import java.nio.FloatBuffer
import java.nio.IntBuffer
import java.nio.LongBuffer

enum class OnnxJavaType { FLOAT, INT64 }

class TensorInfo {
    val shape: LongArray = TODO()
    val type: OnnxJavaType = TODO()
}

interface OnnxValue : AutoCloseable

class OnnxTensor : OnnxValue {
    val floatBuffer: FloatBuffer get() = TODO()
    val longBuffer: LongBuffer get() = TODO()
    val info: TensorInfo get() = TODO()
    override fun close(): Unit = TODO()

    companion object {
        fun createTensor(env: OrtEnvironment, data: LongBuffer, shape: LongArray): OnnxTensor = TODO()
        fun createTensor(env: OrtEnvironment, data: IntBuffer, shape: LongArray): OnnxTensor = TODO()
    }
}

class OrtEnvironment {
    fun createSession(path: String, options: OrtSession.SessionOptions): OrtSession = TODO()

    companion object { fun getEnvironment(): OrtEnvironment = TODO() }
}

class OrtSession : AutoCloseable {
    fun run(inputs: Map<String, OnnxTensor>): Result = TODO()
    override fun close(): Unit = TODO()

    class SessionOptions : AutoCloseable { override fun close(): Unit = TODO() }

    class Result : AutoCloseable, Iterable<Map.Entry<String, OnnxValue>> {
        override fun iterator(): Iterator<Map.Entry<String, OnnxValue>> = TODO()
        override fun close(): Unit = TODO()
    }
}
