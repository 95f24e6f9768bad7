// Time one file in onnxruntime-web's wasm, in node, one thread: node time_rows.mjs PACKAGES JOB.
// The job, and the line of figures, are those of distill_core/benchmark_worker.py.
import "./say_errors.mjs";
import { createRequire } from "node:module";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { inputsOf } from "./answer_session.mjs";

// V8 runs what its baseline compiler made of the wasm until it has compiled the hot functions anew, in the
// background: of a student of 3 x 384 a text takes 9 to 20 ms for the first second or so, and then 3.7.
const WARM_UP_MS = 2000;
const WARM_UP_CALLS = 400; // of models of a millisecond a text

const [packages, path] = process.argv.slice(2);
const job = JSON.parse(readFileSync(path, "utf8"));
const ort = createRequire(join(packages, "package.json"))("onnxruntime-web");
ort.env.wasm.numThreads = job.threads;
const bytes = readFileSync(job.path);
let start = performance.now();
const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], logSeverityLevel: 3 });
const load_ms = performance.now() - start;
const rows = job.rows.map((row) => inputsOf(row, session.inputNames, ort.Tensor, "int64"));
const begun = performance.now();
const warm = (calls) => calls >= job.warm_up && (calls >= WARM_UP_CALLS || performance.now() - begun >= WARM_UP_MS);
for (let call = 0; !warm(call); call++) await session.run(rows[call % rows.length]);
const latencies_ms = [];
for (let repeat = 0; repeat < job.repeats; repeat++) {
  for (const row of rows) {
    start = performance.now();
    await session.run(row);
    latencies_ms.push(performance.now() - start);
  }
}
const peak_rss_mb = (1024 * peakKilobytes()) / 1e6;
console.log(JSON.stringify({ load_ms, latencies_ms, peak_rss_mb }));
process.exit(0); // without waiting for a runtime that keeps workers

// Linux counts it for this program alone (proc(5), VmHWM); getrusage's figure, which node gives in kilobytes
// everywhere, would start from the process that started this one.
function peakKilobytes() {
  const status = "/proc/self/status";
  if (!existsSync(status)) return process.resourceUsage().maxRSS;
  return Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync(status, "utf8"))[1]);
}
