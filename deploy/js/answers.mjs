/**
 * What the outputs of each task mean.
 *
 * `numbers` returns those of an output that golden examples tell; `answer` what a person wants to know:
 * `label`, and `scores` (label and probability, likeliest first) or what else there is. `rows` says what is
 * run one by one, `windows` that a long second text is read in parts, `reads` what an app should ask for.
 *
 * The file itself may have gone a step further than logits, to probabilities, labels or spans: `answer` of the
 * manifest.
 */
import { answerQuestion } from "./spans.mjs";

export const ANSWERS = {
  "sequence-classification": {
    reads: ["text", "pair?"],
    numbers: firstOutput,
    answer: ([{ numbers }], _, { manifest }) => choose(numbers, manifest.labels, manifest.answer),
  },
  "multi-label-classification": {
    reads: ["text", "pair?"],
    numbers: firstOutput,
    answer: ([{ numbers }], _, { manifest: { labels, answer } }) => {
      const given = labels.filter((_, place) => numbers[place] > (answer === "probabilities" ? 1 / 2 : 0));
      const label = given.join(", ") || "no label";
      if (answer === "label") return { label };
      const probabilities = answer === "probabilities" ? numbers : numbers.map(sigmoid);
      return { label, scores: best(probabilities, labels).scores };
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
    answer: ([{ numbers }], { choices }, { manifest }) => choose(numbers, choices, manifest.answer),
  },
  "token-classification": {
    reads: ["text"],
    numbers: (outputs, inputs) => ofTokens(Object.values(outputs)[0], inputs),
    answer: tagWords,
  },
  "question-answering": {
    reads: ["question", "context"],
    windows: true,
    numbers: ({ span, start_logits: start, end_logits: end }, inputs) => {
      if (span) return Array.from(span.data);
      const last = ofTokens(end, inputs);
      return ofTokens(start, inputs).flatMap((logit, place) => [logit, last[place]]);
    },
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

function sigmoid(logit) {
  return 1 / (1 + Math.exp(-logit));
}

/** One of several labels, by what the file answers with. */
function choose(numbers, labels, answer) {
  if (answer === "label") return { label: labels[numbers[0]] };
  return best(answer === "probabilities" ? numbers : softmax(numbers), labels);
}

function best(probabilities, labels) {
  const scores = labels.map((label, place) => ({ label, probability: probabilities[place] }));
  scores.sort((a, b) => b.probability - a.probability);
  return { label: scores[0].label, scores };
}

function firstOutput(outputs) {
  return Array.from(Object.values(outputs)[0].data, Number);
}

/** The numbers of an output with places for all tokens of a text, without those of padding. */
function ofTokens({ data }, { attention_mask: mask }) {
  const tokens = mask.filter((counts) => counts === 1).length;
  return Array.from(data.subarray(0, (data.length / mask.length) * tokens), Number);
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
  const width = manifest.answer === "label" ? 1 : manifest.labels.length;
  const words = [];
  offsets[0].forEach(([start, end], token) => {
    if (sources[0][token] === null || start === end) return;
    const blank = letters.slice(words.at(-1)?.end ?? 0, start).some((letter) => /\s/u.test(letter));
    if (words.length && !blank) return void (words.at(-1).end = end);
    const own = numbers.slice(token * width, (token + 1) * width);
    const { label: tag, scores } = choose(own, manifest.labels, manifest.answer);
    words.push({ start, end, tag, ...(scores && { probability: scores[0].probability }) });
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
function likeliest(outputs, { attention_mask: mask }) {
  const counted = rowsOf(Object.values(outputs)[0]).filter((_, token) => mask[token] === 1);
  return counted.map((logits) => {
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
