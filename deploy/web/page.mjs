/** The page: opens the bundle, proves it on this device, and answers. */
import { Tokenizer } from "@huggingface/tokenizers";
import * as ort from "onnxruntime-web";

import { fill, read } from "./form.mjs";
import { show } from "./result.mjs";
import { openBundle } from "./vendor/js/bundle.mjs";

const BUNDLE = new URL(new URLSearchParams(location.search).get("bundle") ?? "bundle", location.href).href;

const part = (id) => document.getElementById(id);

// The file beside this page, and one thread: more need headers that few servers send.
ort.env.wasm.wasmPaths = { wasm: new URL("vendor/ort-wasm-simd-threaded.wasm", location.href).href };
ort.env.wasm.numThreads = 1;

async function start() {
  await keepForOffline();
  const begun = performance.now();
  const session = { executionProviders: ["wasm"] };
  const bundle = await openBundle({ read: fetchFile, ort, Tokenizer, session });
  const loadMs = performance.now() - begun;
  describe(bundle.manifest);
  part("verdict").textContent = `Replaying ${bundle.manifest.golden.length} golden examples …`;
  await drawn();
  tell(await bundle.check());
  fill(part("fields"), bundle);
  part("form").hidden = false;
  part("form").addEventListener("submit", (event) => {
    event.preventDefault();
    answer(bundle, loadMs).catch(fail);
  });
}

/** The worker must be in charge before the first file is asked for, to keep it. Pages go on without one. */
async function keepForOffline() {
  if (!("serviceWorker" in navigator)) return;
  try {
    await navigator.serviceWorker.register("offline.js");
    await navigator.serviceWorker.ready;
    if (navigator.serviceWorker.controller) return;
    await new Promise((go) => {
      navigator.serviceWorker.addEventListener("controllerchange", go, { once: true });
      setTimeout(go, 3000);
    });
  } catch (error) {
    console.warn(`Without a network this page will not open: ${error.message}`);
  }
}

async function fetchFile(path) {
  const address = `${BUNDLE.replace(/\/$/, "")}/${path}`;
  const response = await fetch(address);
  if (!response.ok) {
    const cure = "Copy a bundle to here, or name one: ?bundle=URL";
    throw new Error(`${address}: the server says ${response.status}. ${cure}`);
  }
  return new Uint8Array(await response.arrayBuffer());
}

function describe({ name, task, target, scheme, model, files }) {
  const megabytes = (files.find((entry) => entry.path === model)?.bytes ?? NaN) / 1e6;
  document.title = name;
  part("name").textContent = name;
  const facts = [task.replaceAll("-", " "), `for ${target}`, scheme, `${megabytes.toFixed(1)} MB`];
  part("facts").textContent = facts.join(" · ");
}

function tell({ passed, examples, largestDifference, tolerance, problems }) {
  part("golden").dataset.state = passed ? "passed" : "failed";
  const difference = `largest difference ${largestDifference.toPrecision(2)}, allowed are ${tolerance}`;
  const wrong = new Set(problems.map(({ number }) => number)).size;
  part("verdict").textContent = passed
    ? `${examples} of ${examples} golden examples answered as published (${difference})`
    : `${wrong} of ${examples} golden examples are not as published (${difference})`;
  part("problems").hidden = passed;
  part("problems").replaceChildren(
    ...problems.map(({ number, text, what, message }) => {
      const item = document.createElement("li");
      const start = JSON.stringify(text.slice(0, 80));
      item.textContent = `Example ${number} ${what}: ${message}. Its text: ${start}`;
      return item;
    }),
  );
}

async function answer(bundle, loadMs) {
  const button = part("form").querySelector("button");
  button.disabled = true;
  try {
    const texts = read(part("fields"));
    show(part("label"), part("details"), await bundle.predict(texts), texts);
    part("result").hidden = false;
    part("times").textContent = "timing …";
    await drawn();
    const median = await bundle.time(texts);
    const answered = `answered in ${median.toFixed(1)} ms (median of 20, tokenizing included)`;
    part("times").textContent = `loaded in ${loadMs.toFixed(0)} ms · ${answered}`;
  } finally {
    button.disabled = false;
  }
}

function fail(error) {
  part("golden").dataset.state = "failed";
  part("verdict").textContent = error.message ?? String(error);
  if (part("name").textContent.startsWith("Loading")) part("name").textContent = "No bundle to answer with";
  console.error(error);
}

/** Resolves once the page shows what it has been told: the model runs on the same thread. */
function drawn() {
  return new Promise((go) => setTimeout(go, 30));
}

start().catch(fail);
