package sample

import android.app.Activity
import android.os.Bundle as State
import android.widget.Button
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.TextView
import java.io.File
import kotlin.concurrent.thread
import kotlin.system.measureNanoTime

/** Opens the bundle in the assets, proves it on this device, and answers. */
class MainActivity : Activity() {
    private lateinit var verdict: TextView
    private lateinit var result: TextView
    private lateinit var button: Button
    private val fields = mutableMapOf<String, EditText>()

    override fun onCreate(savedInstanceState: State?) {
        super.onCreate(savedInstanceState)
        val column = LinearLayout(this).apply { orientation = LinearLayout.VERTICAL }
        column.setPadding(PADDING, PADDING, PADDING, PADDING)
        verdict = TextView(this).apply { text = "Loading the model …" }
        column.addView(verdict)
        for (hint in listOf(TEXT, SECOND)) {
            fields[hint] = EditText(this).apply { this.hint = hint }.also(column::addView)
        }
        button = Button(this).apply { text = "Answer"; isEnabled = false }
        result = TextView(this)
        listOf(button, result).forEach(column::addView)
        setContentView(ScrollView(this).apply { addView(column) })
        thread { start() }
    }

    private fun start() {
        try {
            val folder = copyAssets("bundle", File(filesDir, "bundle"))
            val manifest = readManifest(folder.resolve("manifest.json").readText())
            val bundle = Bundle(manifest, DeviceEngine(folder, manifest))
            val found = checkGolden(bundle)
            runOnUiThread { show(bundle, found) }
        } catch (error: Exception) {
            runOnUiThread { verdict.text = "The bundle cannot be opened: ${error.message}" }
        }
    }

    private fun show(bundle: Bundle, found: Verdict) {
        val difference = "largest difference %.2g, allowed are %s"
            .format(found.largestDifference, bundle.manifest.tolerance)
        val good = "${found.examples} golden examples answered as published ($difference)"
        val bad = "${found.problems.size} problems ($difference):\n${found.problems.joinToString("\n")}"
        verdict.text = if (found.passed) good else bad
        button.isEnabled = true
        button.setOnClickListener { answer(bundle) }
    }

    private fun answer(bundle: Bundle) {
        val (text, second) = listOf(TEXT, SECOND).map { fields.getValue(it).text.toString() }
        val lines = second.lines().filter(String::isNotBlank)
        val choices = lines.takeIf { bundle.manifest.task == "multiple-choice" }
        val texts = Texts(text, second.takeIf { choices == null && it.isNotEmpty() }, choices)
        thread {
            val shown = try {
                val said = bundle.predict(texts)
                val times = List(RUNS) { measureNanoTime { bundle.predict(texts) } / 1e6 }.sorted()
                val scores = said.scores.map { (label, part) ->
                    if (part == null) label else "%s  %.1f %%".format(label, 100 * part)
                }
                val took = "%.1f ms (median of $RUNS)".format(times[RUNS / 2])
                (listOf(said.label) + scores + took).joinToString("\n")
            } catch (error: Exception) {
                "No answer: ${error.message}"
            }
            runOnUiThread { result.text = shown }
        }
    }

    /** onnxruntime and tokenizer open files, and assets are none; an update of the app may change them. */
    private fun copyAssets(source: String, folder: File): File {
        val inside = assets.list(source).orEmpty()
        require(inside.isNotEmpty()) { "no app/src/main/assets/$source: copy a bundle there" }
        folder.mkdirs()
        for (name in inside) {
            val target = folder.resolve(name)
            if (assets.list("$source/$name").orEmpty().isNotEmpty()) copyAssets("$source/$name", target)
            else assets.open("$source/$name").use { input -> target.outputStream().use(input::copyTo) }
        }
        return folder
    }

    private companion object {
        const val TEXT = "Text, or question"
        const val SECOND = "Second text, context, or choices, one a line"
        const val PADDING = 48
        const val RUNS = 20
    }
}
