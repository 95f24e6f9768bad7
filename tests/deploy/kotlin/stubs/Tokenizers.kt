@file:Suppress("UNUSED_PARAMETER")

package ai.djl.huggingface.tokenizers

import java.nio.file.Path

class CharSpan { val start: Int = TODO(); val end: Int = TODO() }

class Encoding {
    val ids: LongArray get() = TODO()
    val typeIds: LongArray get() = TODO()
    val attentionMask: LongArray get() = TODO()
    val specialTokenMask: LongArray get() = TODO()
    val charTokenSpans: Array<CharSpan?> get() = TODO()
    val overflowing: Array<Encoding> get() = TODO()
}

class HuggingFaceTokenizer : AutoCloseable {
    fun encode(text: String): Encoding = TODO()
    fun encode(text: String, textPair: String): Encoding = TODO()
    fun decode(ids: LongArray, skipSpecialTokens: Boolean): String = TODO()
    override fun close(): Unit = TODO()

    class Builder {
        fun optTokenizerPath(tokenizerPath: Path): Builder = TODO()
        fun optTruncation(enabled: Boolean): Builder = TODO()
        fun optTruncateSecondOnly(): Builder = TODO()
        fun optStride(stride: Int): Builder = TODO()
        fun optWithOverflowingTokens(withOverflowingTokens: Boolean): Builder = TODO()
        fun optMaxLength(maxLength: Int): Builder = TODO()
        fun optPadding(enabled: Boolean): Builder = TODO()
        fun build(): HuggingFaceTokenizer = TODO()
    }

    companion object { fun builder(arguments: Map<String, *>): Builder = TODO() }
}
