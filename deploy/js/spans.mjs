/** The part of a context that answers a question. */

/** Tokens of an answer. */
const MOST_TOKENS = 30;

/**
 * Returns the best span of all windows, or none, where the first token's score is as large in each of them.
 *
 * @param {object[]} windows rows with `numbers`: start and end logit of each token in turn.
 * @param {import("./bundle.mjs").Texts} texts `pair` is the context.
 */
export function answerQuestion(windows, { pair }) {
  const none = Math.min(...windows.map(({ numbers }) => numbers[0] + numbers[1]));
  const spans = windows.map(bestSpan).filter((span) => span);
  const top = spans.reduce((a, b) => (b.score > a.score ? b : a), { score: -Infinity });
  if (!(top.score > none)) return { label: "no answer", margin: none - top.score };
  const label = [...pair].slice(top.start, top.end).join("");
  return { label, margin: top.score - none, start: top.start, end: top.end };
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
