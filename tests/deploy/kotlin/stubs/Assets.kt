package android.content.res

import java.io.InputStream

class AssetManager {
    @Suppress("UNUSED_PARAMETER")
    fun list(path: String): Array<String>? = TODO()

    @Suppress("UNUSED_PARAMETER")
    fun open(fileName: String): InputStream = TODO()
}
