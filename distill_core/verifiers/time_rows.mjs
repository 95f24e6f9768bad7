// Time one file in onnxruntime-web's wasm, in node, one thread: node time_rows.mjs PACKAGES JOB.
// The job, and the line of figures, are those of distill_core/benchmark_worker.py.
import "./say_errors.mjs";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const [packages, path] = process.argv.slice(2);
const job = JSON.parse(readFileSync(path, "utf8"));
const ort = createRequire(join(packages, "package.json"))("onnxruntime-web");
ort.env.wasm.numThreads = job.threads;
const bytes = readFileSync(job.path);
let start = performance.now();
const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], logSeverityLevel: 3 });
const load_ms = performance.now() - start;
const rows = job.rows.map((row) => Object.fromEntries(session.inputNames.map((name) => [name, tensor(row[name])])));
for (let call = 0; call < job.warm_up; call++) await session.run(rows[call % rows.length]);
const latencies_ms = [];
for (let repeat = 0; repeat < job.repeats; repeat++) {
  for (const row of rows) {
    start = performance.now();
    await session.run(row);
    latencies_ms.push(performance.now() - start);
  }
}
// getrusage(2), which node gives in kilobytes everywhere.
const peak_rss_mb = (1024 * process.resourceUsage().maxRSS) / 1e6;
console.log(JSON.stringify({ load_ms, latencies_ms, peak_rss_mb }));
process.exit(0); // without waiting for a runtime that keeps workers

function tensor(values) {
  const several = Array.isArray(values[0]); // the choices of one text
  const shape = several ? [1, values.length, values[0].length] : [1, values.length];
  return new ort.Tensor("int64", BigInt64Array.from(values.flat(), BigInt), shape);
}
