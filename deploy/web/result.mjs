/** An answer as a person reads it. */

/** Classes, or numbers of a vector, that are shown; more say nothing. */
const SHOWN = 10;

/**
 * Shows an answer.
 *
 * @param {HTMLElement} label where its one line goes.
 * @param {HTMLElement} details where the rest goes.
 * @param {object} answer of Bundle.predict.
 * @param {import("./vendor/js/bundle.mjs").Texts} texts that were asked about.
 */
export function show(label, details, answer, texts) {
  label.textContent = answer.words ? `${answer.words.length} words` : answer.label;
  details.replaceChildren(...detailsOf(answer, texts));
}

function detailsOf({ scores, words, margin, start, end, vector, masks }, { pair }) {
  if (masks && masks.length > 1) return masks.flatMap((each) => each.map(scoreBar));
  if (scores) return scores.slice(0, SHOWN).map(scoreBar);
  if (words) return [wordList(words)];
  if (vector) return [element("code", `[${vector.slice(0, SHOWN).map(rounded).join(", ")}, …]`)];
  if (margin === undefined) return [];
  const found = start !== undefined;
  const ahead = element("p", `ahead of ${found ? "no answer" : "the best answer"} by ${margin.toFixed(2)}`);
  ahead.className = "quiet";
  return found ? [marked(pair, start, end), ahead] : [ahead];
}

function rounded(value) {
  return value.toFixed(3);
}

function scoreBar({ label, probability }) {
  const bar = document.createElement("div");
  bar.className = "score";
  const length = document.createElement("progress");
  length.value = probability;
  bar.append(element("span", label), element("span", `${(100 * probability).toFixed(1)} %`), length);
  return bar;
}

function wordList(words) {
  const list = document.createElement("div");
  list.className = "words";
  for (const { text, tag, probability } of words) {
    const word = element("span", text);
    word.classList.toggle("tagged", tag !== "O");
    const sure = probability === undefined ? "" : ` ${(100 * probability).toFixed(0)} %`;
    word.append(element("small", `${tag}${sure}`));
    list.append(word);
  }
  return list;
}

/** The context with the answer marked. Places count code points. */
function marked(context, start, end) {
  const letters = [...context];
  const whole = document.createElement("p");
  const said = element("mark", letters.slice(start, end).join(""));
  whole.append(letters.slice(0, start).join(""), said, letters.slice(end).join(""));
  return whole;
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}
