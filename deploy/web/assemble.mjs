/** Puts beside the page what it loads: npm run assemble [BUNDLE]. */
import { access, cp, mkdir, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));

/** What the page loads of each package. The runtime is that of wasm alone, a file less than half as large. */
const PACKAGES = {
  "onnxruntime-web": ["ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"],
  "@huggingface/tokenizers": ["tokenizers.min.mjs"],
};

const FILES = ["manifest.json", "tokenizer.json", "tokenizer_config.json"];

await rm(join(HERE, "vendor"), { recursive: true, force: true });
await mkdir(join(HERE, "vendor"));
await cp(join(HERE, "..", "js"), join(HERE, "vendor", "js"), { recursive: true });
for (const [name, files] of Object.entries(PACKAGES)) {
  const dist = dirname(createRequire(import.meta.url).resolve(name));
  for (const file of files) await cp(join(dist, file), join(HERE, "vendor", file));
}
if (process.argv[2]) await copyBundle(process.argv[2]);

/** Copies what an app needs of a bundle: not the fp32 file, which is there for comparison. */
async function copyBundle(source) {
  await access(join(source, "manifest.json")).catch(() => {
    process.stderr.write(`${source}: no manifest.json; accepted: a folder as in OUTPUT/bundles/TARGET\n`);
    process.exit(2);
  });
  const { model } = JSON.parse(await readFile(join(source, "manifest.json"), "utf8"));
  await rm(join(HERE, "bundle"), { recursive: true, force: true });
  for (const file of [...FILES, model]) await cp(join(source, file), join(HERE, "bundle", file));
}
