@file:Suppress("UNUSED_PARAMETER", "UNUSED", "PropertyName")

package android.app

import android.content.Context
import android.content.res.AssetManager
import android.os.Bundle
import android.view.View
import java.io.File

open class Activity : Context() {
    val assets: AssetManager get() = TODO()
    val filesDir: File get() = TODO()
    protected open fun onCreate(savedInstanceState: Bundle?): Unit = TODO()
    fun setContentView(view: View): Unit = TODO()
    fun runOnUiThread(action: Runnable): Unit = TODO()
}
