@file:Suppress("UNUSED_PARAMETER", "UNUSED")

package android.widget

import android.content.Context
import android.view.View

open class TextView(context: Context) : View() {
    open var text: CharSequence? = null
    var hint: CharSequence? = null
}

class EditText(context: Context) : TextView(context)

class Button(context: Context) : TextView(context)

class ScrollView(context: Context) : View() { fun addView(child: View): Unit = TODO() }

class LinearLayout(context: Context) : View() {
    var orientation: Int = 0
    fun addView(child: View): Unit = TODO()

    companion object { const val VERTICAL = 1 }
}
