/**
 * What the outputs of each task mean.
 *
 * `numbers` returns those of an output that golden examples tell; `answer` what a person wants to know:
 * `label`, and `scores` (label and probability, likeliest first) or what else there is. `rows` says what is
 * run one by one, `windows` that a long second text is read in parts, `reads` what an app should ask for.
 */
import { answerQuestion } from "./spans.mjs";

export const ANSWERS = {
  "sequence-classification": {
    reads: ["text", "pair?"],
    numbers: firstOutput,
    answer: ([{ numbers }], _, { manifest }) => best(softmax(numbers), manifest.labels),
  },
  "multi-label-classification": {
    reads: ["text", "pair?"],
    numbers: firstOutput,
    answer: ([{ numbers }], _, { manifest }) => {
      const { scores } = best(numbers.map((logit) => 1 / (1 + Math.exp(-logit))), manifest.labels);
      const given = manifest.labels.filter((_, place) => numbers[place] > 0);
      return { label: given.join(", ") || "no label", scores };
    },
  },
  regression: {
    reads: ["text", "pair?"],
    numbers: firstOutput,
    answer: ([{ numbers }]) => ({ label: Number(numbers[0].toPrecision(4)).toString(), score: numbers[0] }),
  },
  "multiple-choice": {
    reads: ["text", "choices"],
    numbers: firstOutput,
    answer: ([{ numbers }], { choices }) => best(softmax(numbers), choices),
  },
  "token-classification": { reads: ["text"], numbers: firstOutput, answer: tagWords },
  "question-answering": {
    reads: ["question", "context"],
    windows: true,
    numbers: ({ start_logits: start, end_logits: end }) =>
      Array.from(start.data).flatMap((logit, place) => [logit, end.data[place]]),
    answer: answerQuestion,
  },
  "sentence-embeddings": {
    reads: ["text", "pair?"],
    rows: ({ text, pair }) => [text, pair].filter((each) => each).map((each) => ({ text: each })),
    numbers: pool,
    answer: ([first, second]) => {
      const vector = first?.numbers ?? [];
      if (!second) return { label: `${vector.length} numbers`, vector };
      const similarity = vector.reduce((sum, value, place) => sum + value * second.numbers[place], 0);
      return { label: `${similarity.toFixed(3)} alike`, similarity, vector };
    },
  },
  "masked-language-modelling": { reads: ["text with a mask"], numbers: likeliest, answer: fillMasks },
};

/** The probabilities of logits. @param {number[]} logits */
export function softmax(logits) {
  const top = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = logits.map((logit) => Math.exp(logit - top));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

function best(probabilities, labels) {
  const scores = labels.map((label, place) => ({ label, probability: probabilities[place] }));
  scores.sort((a, b) => b.probability - a.probability);
  return { label: scores[0].label, scores };
}

function firstOutput(outputs) {
  return Array.from(Object.values(outputs)[0].data);
}

/** The rows of an output of one text: a list for each of its tokens. */
function rowsOf({ data, dims }) {
  const width = dims.at(-1);
  const row = (number) => data.subarray(number * width, (number + 1) * width);
  return Array.from({ length: data.length / width }, (_, number) => row(number));
}

/** A word's tag is that of its first piece. Words are what blanks part, as in training. */
function tagWords([{ numbers, offsets, sources }], { text }, { manifest }) {
  const letters = [...text];
  const width = manifest.labels.length;
  const words = [];
  offsets[0].forEach(([start, end], token) => {
    if (sources[0][token] === null || start === end) return;
    const blank = letters.slice(words.at(-1)?.end ?? 0, start).some((letter) => /\s/u.test(letter));
    if (words.length && !blank) return void (words.at(-1).end = end);
    const { scores } = best(softmax(numbers.slice(token * width, (token + 1) * width)), manifest.labels);
    words.push({ start, end, tag: scores[0].label, probability: scores[0].probability });
  });
  for (const word of words) word.text = letters.slice(word.start, word.end).join("");
  return { label: words.map((word) => word.tag).join(" "), words };
}

/** The vector of a text, of norm 1: the mean of its tokens', or the first. */
function pool({ last_hidden_state: output }, { attention_mask: mask }, { pooling }) {
  const counted = rowsOf(output).filter((_, token) => (pooling === "cls" ? token === 0 : mask[token] === 1));
  const sum = Array.from(counted[0], (_, place) => counted.reduce((total, row) => total + row[place], 0));
  const norm = Math.hypot(...sum);
  return sum.map((value) => value / norm);
}

/** The log probability of each token's likeliest one. */
function likeliest(outputs) {
  return rowsOf(Object.values(outputs)[0]).map((logits) => {
    const top = logits.reduce((a, b) => Math.max(a, b), -Infinity);
    return -Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - top), 0));
  });
}

const SHOWN = 5;

async function fillMasks([{ inputs }], _, bundle) {
  const { library, mask, idOf } = bundle.tokenizer;
  const rows = rowsOf(Object.values(await bundle.run(inputs))[0]);
  const masks = rows.filter((_, token) => inputs.input_ids[token] === idOf(mask)).map((row) => {
    const probabilities = softmax(Array.from(row));
    const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
    const shown = order.slice(0, SHOWN);
    return shown.map((id) => ({ label: library.id_to_token(id), probability: probabilities[id] }));
  });
  const label = masks.map(([first]) => first.label).join(", ") || `no ${mask} in the text`;
  return { label, masks, scores: masks[0] ?? [] };
}
