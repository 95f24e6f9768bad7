/** Proof on the device at hand: texts whose token ids and numbers are known. */
import { ANSWERS } from "./answers.mjs";

/** Tasks whose answers are cut out of the text, so that places count as well. */
const CUTS = ["question-answering", "token-classification"];

/**
 * Replays the golden examples of a bundle: its tokenizer's ids, and the model's numbers for the golden ids.
 *
 * @param {import("./bundle.mjs").Bundle} bundle
 * @returns {Promise<{passed: boolean, examples: number, largestDifference: number, tolerance: number,
 *   problems: {number: number, text: string, what: string, message: string}[]}>} `what` is "tokenizes
 *   otherwise", "other places" or "answers otherwise".
 */
export async function checkGolden(bundle) {
  const { golden, logit_tolerance: tolerance } = bundle.manifest;
  const problems = [];
  let largestDifference = 0;
  for (const [number, example] of golden.entries()) {
    const add = (what, message) => problems.push({ number, text: example.text, what, message });
    checkTokens(bundle, example, add);
    const difference = await compareNumbers(bundle, example);
    if (!(difference <= largestDifference)) largestDifference = difference; // a NaN stays
    if (!(difference <= tolerance)) {
      add("answers otherwise", `differs by ${difference.toPrecision(3)}, the tolerance is ${tolerance}`);
    }
  }
  return { passed: !problems.length, examples: golden.length, largestDifference, tolerance, problems };
}

function checkTokens(bundle, example, add) {
  const { inputs, offsets } = bundle.encode(example);
  for (const name of bundle.manifest.inputs.map((entry) => entry.name)) {
    const [found, expected] = [inputs[name].flat(), example.inputs[name].flat()];
    const place = expected.findIndex((value, at) => value !== found[at]);
    if (place >= 0 || found.length !== expected.length) {
      const at = place >= 0 ? place : expected.length;
      add("tokenizes otherwise", `${name}[${at}] is ${found[at]}, expected ${expected[at]}`);
      return;
    }
  }
  const cut = CUTS.includes(bundle.manifest.task) && example.offsets.length;
  if (cut && JSON.stringify(offsets) !== JSON.stringify(example.offsets)) {
    const [found, expected] = [offsets.flat(), example.offsets.flat()];
    const place = expected.findIndex((pair, at) => `${pair}` !== `${found[at]}`);
    add("other places", `token ${place} is at ${found[place]}, expected ${expected[place]}`);
  }
}

async function compareNumbers(bundle, example) {
  const task = ANSWERS[bundle.manifest.task];
  const numbers = task.numbers(await bundle.run(example.inputs), example.inputs, bundle.manifest);
  if (numbers.length !== example.logits.length) return NaN;
  const differences = example.logits.map((expected, place) =>
    // Another processor may well find another label there, or another span.
    example.unsure.includes(place) ? 0 : Math.abs(expected - numbers[place]),
  );
  return differences.some(Number.isNaN) ? NaN : Math.max(0, ...differences);
}
