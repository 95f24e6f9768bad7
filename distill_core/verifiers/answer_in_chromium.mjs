// Answer rows in headless Chromium: node answer_in_chromium.mjs FOLDER PACKAGES CHROMIUM LIBRARY.
// LIBRARY is onnxruntime-web or transformers.js. A server on loopback is all that the page reaches.
import "./say_errors.mjs";
import { createRequire } from "node:module";
import { createReadStream, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join, extname } from "node:path";

const [folder, packages, executablePath, library] = process.argv.slice(2);
const job = JSON.parse(readFileSync(join(folder, "job.json"), "utf8"));
const here = new URL(".", import.meta.url).pathname;
// transformers.js brings an onnxruntime-web of its own version.
const own = join(packages, "@huggingface/transformers/node_modules/onnxruntime-web");
const places = { packages, own, bundle: job.bundle ?? folder, job: folder, verifiers: here };
const types = { ".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm" };
const imports = {
  "onnxruntime-common": "/packages/onnxruntime-common/dist/esm/index.js",
  "onnxruntime-web": "/packages/onnxruntime-web/dist/ort.wasm.min.mjs",
  "onnxruntime-web/webgpu": "/own/dist/ort.webgpu.min.mjs",
  "transformers.js": "/packages/@huggingface/transformers/dist/transformers.web.js",
};
const page = `<!doctype html><meta charset="utf-8">
<script type="importmap">${JSON.stringify({ imports })}</script>`;

const server = createServer((request, response) => {
  const path = decodeURIComponent(new URL(request.url, "http://x").pathname);
  if (path === "/favicon.ico") return response.writeHead(204).end();
  if (path === "/") return response.setHeader("content-type", "text/html").end(page);
  const [, place, ...rest] = path.split("/");
  const file = path === "/model" ? job.model : places[place] && join(places[place], ...rest);
  response.setHeader("content-type", types[extname(file ?? "")] ?? "application/octet-stream");
  const stream = createReadStream(file ?? "");
  stream.on("error", () => response.writeHead(404).end()).pipe(response);
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));

const { chromium } = createRequire(join(packages, "package.json"))("playwright-core");
const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
});
try {
  const tab = await browser.newPage();
  tab.on("console", (message) => message.type() === "error" && console.error(message.text()));
  const took = [];
  await tab.exposeFunction("take", (text) => void took.push(Buffer.from(text, "base64")));
  await tab.goto(`http://127.0.0.1:${server.address().port}/`);
  const answers = await tab.evaluate(
    async (name) => (await import("/verifiers/answer_in_page.mjs")).answer(name),
    library,
  );
  const version = JSON.parse(readFileSync(join(packages, answers.package, "package.json"), "utf8")).version;
  const runtime = `${library} ${version}`;
  writeFileSync(join(folder, "answers.f32"), Buffer.concat(took));
  writeFileSync(join(folder, "answers.json"), JSON.stringify({ ...answers, runtime }));
} finally {
  await browser.close();
  server.close();
}
process.exit(0);
