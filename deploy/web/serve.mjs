/** Serves this folder on this machine: npm start [PORT]. Any other server of files does as well. */
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { dirname, extname, join, normalize, sep } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".json": "application/json",
  ".wasm": "application/wasm",
};

const server = createServer(async (request, response) => {
  const { pathname } = new URL(request.url, "http://localhost");
  const path = normalize(join(HERE, decodeURIComponent(pathname === "/" ? "/index.html" : pathname)));
  const found = path.startsWith(HERE + sep) ? await stat(path).catch(() => null) : null;
  if (!found?.isFile()) return response.writeHead(404).end();
  const type = TYPES[extname(path)] ?? "application/octet-stream";
  const headers = { "content-type": type, "content-length": found.size, "cache-control": "no-cache" };
  response.writeHead(200, headers);
  createReadStream(path).pipe(response);
});
server.listen(Number(process.argv[2] ?? 8080), "127.0.0.1", () => {
  process.stdout.write(`http://127.0.0.1:${server.address().port}/\n`);
});
