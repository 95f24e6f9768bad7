/** Keeps whatever the page has loaded, so that it opens without a network. */
const KEPT = "distill-deploy";

const PAGE = [
  "./",
  "style.css",
  "page.mjs",
  "form.mjs",
  "result.mjs",
  "vendor/ort.wasm.bundle.min.mjs",
  "vendor/ort-wasm-simd-threaded.wasm",
  "vendor/tokenizers.min.mjs",
  ...["bundle", "answers", "encoding", "golden", "offsets", "spans"].map((name) => `vendor/js/${name}.mjs`),
];

self.addEventListener("install", (event) => {
  self.skipWaiting();
  event.waitUntil(caches.open(KEPT).then((cache) => cache.addAll(PAGE)));
});

self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  if (event.request.method === "GET") event.respondWith(answer(event.request));
});

/** What the network has, and without one what it had: a new bundle is never hidden by an old one. */
async function answer(request) {
  const cache = await caches.open(KEPT);
  try {
    const response = await fetch(request);
    if (response.ok) await cache.put(request, response.clone());
    return response;
  } catch (error) {
    const kept = await cache.match(request, { ignoreSearch: request.mode === "navigate" });
    if (kept) return kept;
    throw error;
  }
}
