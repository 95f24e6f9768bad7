// Time files in onnxruntime-web's wasm, one thread, row by row in turn: node time_in_wasm.mjs JOB PACKAGES.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const [path, packages] = process.argv.slice(2);
const { files, rows, rounds } = JSON.parse(readFileSync(path, "utf8"));
const ort = createRequire(join(packages, "package.json"))("onnxruntime-web");
ort.env.wasm.numThreads = 1;
const options = { executionProviders: ["wasm"], logSeverityLevel: 3 };

const timed = {};
for (const [name, file] of Object.entries(files)) {
  const bytes = readFileSync(file);
  const start = performance.now();
  const session = await ort.InferenceSession.create(bytes, options);
  timed[name] = { session, load_ms: performance.now() - start, latencies_ms: [] };
}
for (let round = -1; round < rounds; round++) {
  for (const row of rows) {
    for (const entry of Object.values(timed)) {
      const feeds = {};
      for (const name of entry.session.inputNames)
        feeds[name] = new ort.Tensor("int64", BigInt64Array.from(row[name].map(BigInt)), [1, row[name].length]);
      const start = performance.now();
      await entry.session.run(feeds);
      if (round >= 0) entry.latencies_ms.push(performance.now() - start);
    }
  }
}
for (const entry of Object.values(timed)) delete entry.session;
console.log(JSON.stringify(timed));
process.exit(0);
