#!/usr/bin/env node
/** Answers a text with a bundle, or checks it: node predict.mjs BUNDLE "text". */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { Tokenizer } from "@huggingface/tokenizers";

import { openBundle } from "../js/bundle.mjs";

const USAGE = `node predict.mjs BUNDLE TEXT            one answer
node predict.mjs BUNDLE TEXT SECOND     two texts, or a question and its context
node predict.mjs BUNDLE TEXT --choice A --choice B
node predict.mjs BUNDLE --check         replays the golden examples
  --runtime NAME   onnxruntime-web (wasm; the default) or onnxruntime-node, if it is installed
  --json           prints the answer for a program`;

const OPTIONS = {
  check: { type: "boolean" },
  choice: { type: "string", multiple: true },
  json: { type: "boolean" },
  runtime: { type: "string", default: "onnxruntime-web" },
  help: { type: "boolean" },
};
const RUNTIMES = ["onnxruntime-web", "onnxruntime-node"];

/** Input that is wrong: the caller is told, with exit code 2. */
class InputError extends Error {}

async function main() {
  const { values: options, positionals } = readArguments();
  if (options.help) return say(USAGE);
  const [folder, text, pair = null] = positionals;
  if (!folder || (text === undefined && !options.check)) {
    throw new InputError(`a BUNDLE and a TEXT are needed\n${USAGE}`);
  }
  const bundle = await open(folder, await load(options.runtime));
  if (options.check) return report(await bundle.check(), bundle.manifest, options);
  const choices = options.choice ?? null;
  if (bundle.manifest.task === "multiple-choice" && !choices) {
    throw new InputError("this bundle chooses among texts: name them by --choice A --choice B");
  }
  const answer = await bundle.predict({ text, pair, choices });
  say(options.json ? JSON.stringify(answer) : describe(answer));
}

function readArguments() {
  try {
    return parseArgs({ options: OPTIONS, allowPositionals: true });
  } catch (error) {
    throw new InputError(`${error.message}\n${USAGE}`);
  }
}

async function load(runtime) {
  if (!RUNTIMES.includes(runtime)) {
    throw new InputError(`--runtime ${runtime}; accepted: ${RUNTIMES.join(", ")}`);
  }
  try {
    const module = await import(runtime);
    return module.default ?? module;
  } catch (error) {
    throw new InputError(`${runtime} cannot be loaded (${error.message}): npm install ${runtime}`);
  }
}

async function open(folder, ort) {
  const read = (path) => readFile(join(folder, path));
  try {
    return await openBundle({ read, ort, Tokenizer });
  } catch (error) {
    throw new InputError(`${folder}: ${error.message}; accepted: a folder as in OUTPUT/bundles/TARGET`);
  }
}

function report(found, manifest, { json }) {
  process.exitCode = found.passed ? 0 : 1;
  if (json) return say(JSON.stringify(found));
  for (const { number, text, what, message } of found.problems) {
    say(`golden example ${number} ${what}: ${message}: ${JSON.stringify(text.slice(0, 40))}`);
  }
  const verdict = found.passed ? "as published" : `${found.problems.length} problems`;
  const difference = `largest difference ${found.largestDifference.toPrecision(2)} of ${found.tolerance}`;
  const where = `${manifest.name} for ${manifest.target}`;
  say(`${where}: ${found.examples} golden examples, ${verdict}; ${difference}`);
}

function describe({ label, scores, words, margin }) {
  const percent = (probability) => `${(100 * probability).toFixed(1)} %`;
  const ofWord = ({ text, tag, probability }) =>
    [text, tag, ...(probability === undefined ? [] : [percent(probability)])].join("\t");
  if (words) return words.map(ofWord).join("\n");
  if (scores?.length) {
    return [label, ...scores.map((score) => `  ${score.label}\t${percent(score.probability)}`)].join("\n");
  }
  return margin === undefined ? label : `${label}\n  ahead by ${margin.toFixed(2)}`;
}

function say(line) {
  process.stdout.write(`${line}\n`);
}

try {
  await main();
} catch (error) {
  process.stderr.write(`${error instanceof InputError ? error.message : error.stack}\n`);
  process.exitCode = error instanceof InputError ? 2 : 1;
}
