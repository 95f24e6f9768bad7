/** The part of a context that answers a question. */

/** Tokens of an answer. */
const MOST_TOKENS = 30;

/**
 * Returns the best span of all windows, or none, where the first token's score is as large in each of them.
 *
 * @param {object[]} windows rows with `numbers`: start and end logit of each token in turn; or what the file
 *   made of them, first and last token of the best span, its score, and that of no answer.
 * @param {import("./bundle.mjs").Texts} texts `pair` is the context.
 * @param {import("./bundle.mjs").Bundle} bundle
 */
export function answerQuestion(windows, { pair }, { manifest }) {
  const inFile = manifest.answer === "span";
  const scoreOfNone = ({ numbers }) => (inFile ? numbers[3] : numbers[0] + numbers[1]);
  const none = Math.min(...windows.map(scoreOfNone));
  const spans = windows.map(inFile ? spanOf : bestSpan).filter((span) => span);
  const top = spans.reduce((a, b) => (b.score > a.score ? b : a), { score: -Infinity });
  if (!(top.score > none)) return { label: "no answer", margin: none - top.score };
  const label = [...pair].slice(top.start, top.end).join("");
  return { label, margin: top.score - none, start: top.start, end: top.end };
}

function spanOf({ numbers: [first, last, score], offsets }) {
  return { score, start: offsets[0][first][0], end: offsets[0][last][1] };
}

function bestSpan({ numbers, offsets, sources }) {
  const inside = sources[0].flatMap((source, token) => (source === 1 ? [token] : []));
  let best = null;
  inside.forEach((first, place) => {
    for (const last of inside.slice(place, place + MOST_TOKENS)) {
      const score = numbers[2 * first] + numbers[2 * last + 1];
      if (!best || score > best.score) {
        best = { score, start: offsets[0][first][0], end: offsets[0][last][1] };
      }
    }
  });
  return best;
}
