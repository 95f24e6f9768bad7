@file:Suppress("UNUSED_PARAMETER")

package ai.onnxruntime

import java.nio.FloatBuffer
import java.nio.LongBuffer

class TensorInfo { val shape: LongArray = TODO() }

interface OnnxValue : AutoCloseable

class OnnxTensor : OnnxValue {
    val floatBuffer: FloatBuffer get() = TODO()
    val info: TensorInfo get() = TODO()
    override fun close(): Unit = TODO()

    companion object {
        fun createTensor(env: OrtEnvironment, data: LongBuffer, shape: LongArray): OnnxTensor = TODO()
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
