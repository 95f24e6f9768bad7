/** What is asked of a person, by task. */

const TEXT = { name: "text", says: "Text", rows: 3 };
const SECOND = { name: "pair", says: "Second text, if the model judges two", rows: 2, optional: true };

const FIELDS = {
  "question-answering": [
    { name: "text", says: "Question", rows: 2 },
    { name: "pair", says: "Text that may hold the answer", rows: 6 },
  ],
  "multiple-choice": [TEXT, { name: "choices", says: "Choices, one a line", rows: 4 }],
  "token-classification": [TEXT],
  "masked-language-modelling": [TEXT],
  "sentence-embeddings": [TEXT, { ...SECOND, says: "Second text, to compare" }],
};

/**
 * Makes the fields of a task, filled with the first golden example.
 *
 * @param {HTMLElement} place
 * @param {import("./vendor/js/bundle.mjs").Bundle} bundle
 */
export function fill(place, { manifest }) {
  const [example] = manifest.golden;
  const fields = FIELDS[manifest.task] ?? (example?.pair ? [TEXT, SECOND] : [TEXT]);
  place.replaceChildren(
    ...fields.map(({ name, says, rows, optional = false }) => {
      const label = document.createElement("label");
      const area = document.createElement("textarea");
      Object.assign(area, { name, rows, required: !optional, spellcheck: false });
      area.value = [example?.[name] ?? ""].flat().join("\n");
      label.append(says, area);
      return label;
    }),
  );
}

/**
 * Reads what was typed.
 *
 * @param {HTMLElement} place
 * @returns {import("./vendor/js/bundle.mjs").Texts}
 */
export function read(place) {
  const areas = [...place.querySelectorAll("textarea")];
  const typed = Object.fromEntries(areas.map(({ name, value }) => [name, value]));
  const choices = typed.choices?.split("\n").filter((line) => line.trim());
  return { text: typed.text, pair: typed.pair || null, choices: choices ?? null };
}
