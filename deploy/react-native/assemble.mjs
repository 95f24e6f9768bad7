/** Puts beside the app what it shares with the web page, and a bundle: npm run assemble BUNDLE. */
import { cp, readFile, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const FILES = ["manifest.json", "tokenizer.json", "tokenizer_config.json"];

/** One name whatever the bundle's file is called: Metro reads names of files from the code. */
const MODEL = "model.onnx";

await rm(join(HERE, "js"), { recursive: true, force: true });
await cp(join(HERE, "..", "js"), join(HERE, "js"), { recursive: true });
const source = process.argv[2];
const text = source && (await readFile(join(source, "manifest.json"), "utf8").catch(() => null));
if (!text) {
  process.stderr.write(`${source}: no manifest.json; accepted: a folder as in OUTPUT/bundles/TARGET\n`);
  process.exit(2);
}
await rm(join(HERE, "bundle"), { recursive: true, force: true });
for (const file of FILES) await cp(join(source, file), join(HERE, "bundle", file));
await cp(join(source, JSON.parse(text).model), join(HERE, "bundle", MODEL));
