@file:Suppress("UNUSED_PARAMETER", "UNUSED")

package android.view

open class View {
    var isEnabled: Boolean = true
    fun setPadding(left: Int, top: Int, right: Int, bottom: Int): Unit = TODO()
    fun setOnClickListener(listener: (View) -> Unit): Unit = TODO()
}
