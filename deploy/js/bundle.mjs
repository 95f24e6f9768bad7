/**
 * Opens a bundle and answers with it, in a browser, in node and in React Native.
 *
 * Nothing is imported from a package: whoever opens a bundle hands in the runtime, the tokenizer and a way to
 * read files.
 */
import { ANSWERS } from "./answers.mjs";
import { encodeTexts, fillUp, openTokenizer, windowsOf } from "./encoding.mjs";
import { checkGolden } from "./golden.mjs";

const SCHEMA_VERSION = 1;

/** Arrays of the types that a model's inputs may have. */
const ARRAYS = {
  int64: (values) => BigInt64Array.from(values, BigInt),
  int32: (values) => Int32Array.from(values),
};

/** What an app asks of a bundle: a text; a text and a second one; or a text and its choices.
 * @typedef {{text: string, pair?: string|null, choices?: string[]|null}} Texts
 */

/** What it says: `label`, and what the task has beside it; no probabilities, where the model says labels alone.
 * @typedef {{label: string, scores?: {label: string, probability: number}[], score?: number,
 *   words?: {text: string, tag: string, probability?: number, start: number, end: number}[],
 *   vector?: number[], similarity?: number, margin?: number, start?: number, end?: number,
 *   masks?: {label: string, probability: number}[][]}} Answer
 */

/**
 * What a bundle needs of the place where it runs.
 *
 * - read: reads a file of the bundle, by its path in there: its bytes, or a document that is parsed already.
 * - ort: onnxruntime-web, onnxruntime-node or onnxruntime-react-native.
 * - Tokenizer: of @huggingface/tokenizers, which transformers.js tokenizes with.
 * - session: options for onnxruntime's session.
 * - locate: what onnxruntime opens a model by, where that is no array of bytes: a path, on a phone.
 *
 * @typedef {{read: (path: string) => Promise<any>, ort: any, Tokenizer: any, session?: object,
 *   locate?: (path: string) => Promise<any>}} Parts
 */

/**
 * Opens a bundle.
 *
 * @param {Parts} parts
 * @returns {Promise<Bundle>}
 * @throws {Error} a file is missing, or the manifest is of a kind that this code does not read.
 */
export async function openBundle({ read, ort, Tokenizer, session = {}, locate = read }) {
  const manifest = await readJson(read, "manifest.json");
  if (manifest.schema_version !== SCHEMA_VERSION) {
    throw new Error(
      `manifest.json: schema_version is ${manifest.schema_version}; accepted: ${SCHEMA_VERSION}. ` +
        "Take deploy/js from the distill-deploy that published this bundle.",
    );
  }
  if (!(manifest.task in ANSWERS)) {
    throw new Error(`manifest.json: task is ${manifest.task}; accepted: ${Object.keys(ANSWERS).join(", ")}`);
  }
  const files = ["tokenizer.json", "tokenizer_config.json"].map((name) => readJson(read, name));
  const tokenizer = openTokenizer(Tokenizer, ...(await Promise.all(files)));
  // Warnings of its optimizer are not the user's to act on.
  const options = { logSeverityLevel: 3, ...session };
  const model = await ort.InferenceSession.create(await locate(manifest.model), options);
  return new Bundle(manifest, tokenizer, model, ort);
}

/** A model with its tokenizer and manifest. */
export class Bundle {
  /**
   * Use openBundle.
   *
   * @param {any} manifest manifest.json.
   * @param {any} tokenizer see encoding.mjs.
   * @param {any} model a session of onnxruntime.
   * @param {any} ort onnxruntime itself.
   */
  constructor(manifest, tokenizer, model, ort) {
    this.manifest = manifest;
    this.tokenizer = tokenizer;
    this.model = model;
    this.ort = ort;
  }

  /**
   * Answers one text, or what else the task reads.
   *
   * @param {Texts} texts
   * @returns {Promise<Answer>}
   */
  async predict(texts) {
    const task = ANSWERS[this.manifest.task];
    const rows = task.windows
      ? windowsOf(this.tokenizer, this.manifest.max_length, texts).map((row) => fillUp(row, this.manifest))
      : (task.rows ?? ((all) => [all]))(texts).map((each) => this.encode(each));
    const answered = [];
    for (const row of rows) {
      const numbers = task.numbers(await this.run(row.inputs), row.inputs, this.manifest);
      answered.push({ ...row, numbers });
    }
    return task.answer(answered, texts, this);
  }

  /** Tokenizes texts as they were in training, filled up where the model wants it. @param {Texts} texts */
  encode(texts) {
    return fillUp(encodeTexts(this.tokenizer, this.manifest.max_length, texts), this.manifest);
  }

  /**
   * Runs the model on one row.
   *
   * @param {Record<string, number[]|number[][]>} inputs token ids and masks, by name.
   * @returns {Promise<Record<string, {data: Float32Array|BigInt64Array, dims: number[]}>>} outputs by name,
   *   batch of one.
   */
  async run(inputs) {
    const feeds = {};
    for (const { name, dtype } of this.manifest.inputs) {
      const rows = inputs[name];
      const shape = Array.isArray(rows[0]) ? [1, rows.length, rows[0].length] : [1, rows.length];
      feeds[name] = new this.ort.Tensor(dtype, ARRAYS[dtype](rows.flat()), shape);
    }
    return this.model.run(feeds);
  }

  /** Replays the golden examples: see golden.mjs. */
  check() {
    return checkGolden(this);
  }

  /**
   * Times answers, tokenizing included.
   *
   * @param {Texts} texts
   * @param {number} [runs]
   * @returns {Promise<number>} the median, in milliseconds.
   */
  async time(texts, runs = 20) {
    const taken = [];
    for (let run = 0; run < runs; run += 1) {
      const start = performance.now();
      await this.predict(texts);
      taken.push(performance.now() - start);
    }
    taken.sort((a, b) => a - b);
    return (taken[(runs - 1) >> 1] + taken[runs >> 1]) / 2;
  }
}

async function readJson(read, path) {
  const content = await read(path);
  if (!ArrayBuffer.isView(content)) return content;
  const text = new TextDecoder().decode(content);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${path}: is not JSON (${error.message}); copy the bundle anew`);
  }
}
