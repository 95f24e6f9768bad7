// Answer rows with an ONNX file in node, by WebAssembly: node answer_rows.mjs FOLDER PACKAGES ONNXRUNTIME.
// ONNXRUNTIME is the package's name under PACKAGES. What is read and written is as in answer_rows.py.
import "./say_errors.mjs";
import { createRequire } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { answerRows } from "./answer_session.mjs";

const [folder, packages, name] = process.argv.slice(2);
const job = JSON.parse(readFileSync(join(folder, "job.json"), "utf8"));
const ort = createRequire(join(packages, "package.json"))(name);
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(readFileSync(job.model), {
  executionProviders: ["wasm"],
  logSeverityLevel: 3, // its optimizer's warnings are not the user's to act on
});
const run = (inputs) => session.run(inputs);
const { rows, numbers } = await answerRows(job, run, ort.Tensor, session.inputNames);
writeFileSync(join(folder, "answers.f32"), Buffer.concat(numbers));
const { version } = JSON.parse(readFileSync(join(packages, name, "package.json"), "utf8"));
writeFileSync(join(folder, "answers.json"), JSON.stringify({ runtime: `onnxruntime-web ${version}`, rows }));
process.exit(0); // without waiting for a runtime that keeps workers
