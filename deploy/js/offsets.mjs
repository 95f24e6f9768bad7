/**
 * Where each token stands in its text. The JavaScript tokenizer does not say, so the text is read again
 * beside its tokens, word by word: their letters are found in the normalized text, and each knows its place.
 */

/**
 * Returns begin and end of each token in Unicode code points, as `tokenizers` tells them.
 *
 * @param {object} tokenizer of openTokenizer.
 * @param {string} text
 * @param {string[]} tokens of the text, without special ones around it.
 * @returns {number[][]} a pair for each token; [0, 0] of all, where a text cannot be read beside its tokens.
 */
export function findOffsets({ library, document }, text, tokens) {
  const units = unitsOf(library, document, text);
  const found = [];
  let [at, end] = [0, 0];
  for (const { token, whole } of piecesOf(library, text)) {
    const letters = [...whole].filter((letter) => !BLANK.test(letter));
    while (at < units.length && letters.length && units[at].letter !== letters[0]) at += 1;
    const inside = units.slice(at, at + letters.length);
    at += letters.length;
    // Nothing is left of a blank by itself: it stands behind where it was.
    end = inside.length ? inside.at(-1).place + 1 : end + whole.length;
    found.push({ token, offsets: [inside[0]?.place ?? end, end] });
  }
  const alike = found.length === tokens.length && found.every(({ token }, place) => token === tokens[place]);
  return alike ? found.map(({ offsets }) => offsets) : tokens.map(() => [0, 0]);
}

/** Blanks, and what stands for them among the tokens of byte-level BPE and of SentencePiece. */
const BLANK = /^[\sĠ▁]$/u;

/** The letters of a text as its tokens have them, blanks left out, each with its place in the text. */
function unitsOf(library, document, text) {
  const bytes = JSON.stringify(document.pre_tokenizer ?? {}).includes('"ByteLevel"');
  return [...text].flatMap((letter, place) => {
    const normal = library.normalizer ? library.normalizer(letter) : letter;
    const seen = bytes ? library.pre_tokenizer(normal).join("") : normal;
    const added = [...seen].filter((each) => !BLANK.test(each));
    return added.map((each) => ({ letter: each, place }));
  });
}

/** The tokens of a text, each with the letters that it stands for. */
function piecesOf(library, text) {
  const all = library.added_tokens.map(({ content }) => content);
  const added = all.filter((content) => text.includes(content));
  return splitAt(text, added).flatMap((part) => {
    if (added.includes(part)) return [{ token: part, whole: part }];
    const normal = library.normalizer ? library.normalizer(part) : part;
    const words = library.pre_tokenizer ? library.pre_tokenizer(normal) : [normal];
    return words.flatMap((word) => piecesOfWord(library, word));
  });
}

function piecesOfWord(library, word) {
  const tokens = library.model([word]);
  const prefix = library.model.config.continuing_subword_prefix;
  if (tokens.length === 1) return [{ token: tokens[0], whole: word }];
  return tokens.map((token) => ({
    token,
    whole: prefix && token.startsWith(prefix) ? token.slice(prefix.length) : token,
  }));
}

/** Parts of a text between contents that stay whole, and these; the longest content wins. */
function splitAt(text, contents) {
  if (!contents.length) return [text];
  const longestFirst = [...contents].sort((a, b) => b.length - a.length);
  const escaped = longestFirst.map((each) => each.replace(/[^\w]/g, "\\$&"));
  return text.split(new RegExp(`(${escaped.join("|")})`)).filter((part) => part);
}
