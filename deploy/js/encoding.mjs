/** Texts to token ids, cut as `tokenizers` cuts them. */
import { findOffsets } from "./offsets.mjs";

/** Windows of a context overlap by this part of max_length, and a question takes at most as much. */
const SHARE = 3;

const SPECIAL = [0, 0];

/**
 * Opens a tokenizer.json.
 *
 * @param {Function} Tokenizer the class of @huggingface/tokenizers.
 * @param {object} document tokenizer.json.
 * @param {object} config tokenizer_config.json.
 */
export function openTokenizer(Tokenizer, document, config) {
  const tokenizer = new Tokenizer(document, config);
  const idOf = (token) => tokenizer.token_to_id(token) ?? tokenizer.model.unk_token_id;
  const lowers = tokenizer.normalizer?.("A") === "a";
  const padding = idOf(config.pad_token);
  return { library: tokenizer, document, idOf, lowers, padding, mask: config.mask_token };
}

/**
 * Tokenizes texts: `inputs` by name, and of each token its offsets and which text it is of.
 *
 * What is too long loses tokens of the longer text first. The library is asked for bare tokens, and special
 * ones are put around them afterwards: cut by transformers.js itself, a long text loses its closing token.
 *
 * @param {object} tokenizer of openTokenizer.
 * @param {number} maxLength tokens, the special ones included.
 * @param {import("./bundle.mjs").Texts} texts
 */
export function encodeTexts(tokenizer, maxLength, { text, pair = null, choices = null }) {
  if (choices) {
    return stack(choices.map((each) => encodeTexts(tokenizer, maxLength, { text, pair: each })), tokenizer);
  }
  const bodies = [text, pair].filter((each) => each !== null).map((each) => tokenize(tokenizer, each));
  const room = maxLength - countSpecial(tokenizer, bodies.length);
  const lengths = cutLongest(bodies.map(({ tokens }) => tokens.length), room);
  return surround(tokenizer, bodies.map((body, number) => slice(body, 0, lengths[number])));
}

/**
 * Tokenizes a question with its context, in as many windows as the context takes.
 *
 * @param {object} tokenizer of openTokenizer.
 * @param {number} maxLength tokens of a window.
 * @param {import("./bundle.mjs").Texts} texts `text` is the question and `pair` the context.
 */
export function windowsOf(tokenizer, maxLength, { text, pair }) {
  const shared = Math.floor(maxLength / SHARE);
  const question = slice(tokenize(tokenizer, text), 0, shared);
  const context = tokenize(tokenizer, pair ?? "");
  const room = maxLength - countSpecial(tokenizer, 2) - question.tokens.length;
  const rows = [];
  for (let start = 0; ; start += room - shared) {
    rows.push(surround(tokenizer, [question, slice(context, start, start + room)]));
    if (start + room >= context.tokens.length) return rows;
  }
}

function tokenize(tokenizer, text) {
  // JavaScript lowers a Σ at the end of a word to ς, tokenizers every one to σ.
  const even = tokenizer.lowers ? text.replaceAll("Σ", "σ") : text;
  const tokens = tokenizer.library.tokenize(even);
  return { tokens, offsets: findOffsets(tokenizer, even, tokens) };
}

function slice({ tokens, offsets }, start, end) {
  return { tokens: tokens.slice(start, end), offsets: offsets.slice(start, end) };
}

function countSpecial(tokenizer, texts) {
  return tokenizer.library.post_processor([], texts > 1 ? [] : null, true).tokens.length;
}

/** How many tokens each text keeps, by the rule of tokenizers' `LongestFirst`. */
function cutLongest(lengths, room) {
  if (lengths.length < 2) return [Math.min(lengths[0], room)];
  const [shorter, longer] = lengths[0] > lengths[1] ? [1, 0] : [0, 1];
  if (lengths[0] + lengths[1] <= room) return lengths;
  const kept = [...lengths];
  kept[longer] = Math.max(lengths[shorter], room - lengths[shorter]);
  if (lengths[shorter] > room) kept[longer] = lengths[shorter];
  if (kept[0] + kept[1] > room) {
    kept[shorter] = Math.floor(room / 2);
    kept[longer] = kept[shorter] + (room % 2);
  }
  return kept;
}

/** Puts special tokens around texts. The places of the texts are told by marks that are no tokens. */
function surround(tokenizer, bodies) {
  const marks = bodies.map((body, number) => body.tokens.map((_, place) => ({ number, place })));
  const made = tokenizer.library.post_processor(marks[0], marks[1] ?? null, true);
  const { tokens, token_type_ids: types } = made;
  const known = (mark) => typeof mark === "object";
  return {
    inputs: {
      input_ids: tokens.map((m) => tokenizer.idOf(known(m) ? bodies[m.number].tokens[m.place] : m)),
      attention_mask: tokens.map(() => 1),
      token_type_ids: types ?? tokens.map(() => 0),
    },
    offsets: [tokens.map((m) => (known(m) ? bodies[m.number].offsets[m.place] : SPECIAL))],
    sources: [tokens.map((m) => (known(m) ? m.number : null))],
  };
}

/**
 * Fills a row up to the length that the model's inputs have, where that is fixed.
 *
 * @param {object} row of encodeTexts or windowsOf; its offsets and sources stay those of its own tokens.
 * @param {{inputs: {shape: (number|string)[]}[], padding: Record<string, number>}} manifest
 */
export function fillUp(row, { inputs, padding }) {
  const length = inputs[0].shape.at(-1);
  if (typeof length === "string") return row; // a name, for a length that varies
  const filled = Object.entries(row.inputs).map(([name, column]) => [
    name,
    [...column, ...Array(length - column.length).fill(padding[name] ?? 0)],
  ]);
  return { ...row, inputs: Object.fromEntries(filled) };
}

/** Stacks rows, padded to the longest. */
function stack(rows, tokenizer) {
  const longest = Math.max(...rows.map((row) => row.inputs.input_ids.length));
  const padded = (name, value) =>
    rows.map(({ inputs }) => [...inputs[name], ...Array(longest - inputs[name].length).fill(value)]);
  return {
    inputs: {
      input_ids: padded("input_ids", tokenizer.padding),
      attention_mask: padded("attention_mask", 0),
      token_type_ids: padded("token_type_ids", 0),
    },
    offsets: rows.flatMap((row) => row.offsets),
    sources: rows.flatMap((row) => row.sources),
  };
}
