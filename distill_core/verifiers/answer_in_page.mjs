// What the page of answer_in_chromium.mjs runs.
import { answerRows } from "./answer_session.mjs";

/** Answer the rows of /job/job.json; `take` gets the numbers, in base64.
 *
 * @param library onnxruntime-web, or transformers.js.
 */
export async function answer(library) {
  const job = await (await fetch("/job/job.json")).json();
  const made = library === "transformers.js" ? await byTransformers(job) : await byOnnxruntime(job);
  for (const bytes of made.numbers) await window.take(base64(bytes));
  delete made.numbers;
  return made;
}

async function byOnnxruntime(job) {
  const ort = await import("onnxruntime-web");
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = "/packages/onnxruntime-web/dist/";
  const options = { executionProviders: ["wasm"], logSeverityLevel: 3 };
  const session = await ort.InferenceSession.create("/model", options);
  const made = await answerRows(job, (inputs) => session.run(inputs), ort.Tensor, session.inputNames);
  return { ...made, package: "onnxruntime-web" };
}

/** Load the bundle as an app does, offline; its tokenizer is asked for each row's token ids too. */
async function byTransformers(job) {
  const { env, AutoModel, AutoTokenizer, Tensor } = await import("transformers.js");
  Object.assign(env, { allowRemoteModels: false, allowLocalModels: true, localModelPath: "/" });
  env.useBrowserCache = false;
  Object.assign(env.backends.onnx.wasm, { wasmPaths: "/own/dist/", numThreads: 1 });
  const tokenizer = await AutoTokenizer.from_pretrained("bundle");
  const model = await AutoModel.from_pretrained("bundle", {
    dtype: "q8",
    device: "wasm",
    session_options: { logSeverityLevel: 3 },
  });
  const names = Object.values(model.sessions)[0].inputNames;
  const made = await answerRows(job, (inputs) => model(inputs), Tensor, names);
  const other_token_ids = job.sequences
    .slice(0, made.rows.length)
    .map((sequences) => !sequences.every((sequence) => sameIds(tokenizer, sequence, job.max_length)));
  return { ...made, other_token_ids, package: "@huggingface/transformers" };
}

function sameIds(tokenizer, { text, second, ids }, max_length) {
  const options = { truncation: true, max_length, ...(second === null ? {} : { text_pair: second }) };
  const found = [...tokenizer(text, options).input_ids.data].map(Number);
  return found.length === ids.length && found.every((id, place) => id === ids[place]);
}

function base64(bytes) {
  let text = "";
  for (let start = 0; start < bytes.length; start += 32768)
    text += String.fromCharCode(...bytes.subarray(start, start + 32768));
  return btoa(text);
}
