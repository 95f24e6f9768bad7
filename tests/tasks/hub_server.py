"""A loopback server that speaks as much of the Hugging Face hub's protocol as its client asks for.

Models and data sets, branches, tags and commits, listings, files with their ETags, large files
behind a redirect as the hub's storage has them, and the hub's own way to say that something is not
there. (huggingface_hub 0.36: hf_api.py, file_download.py, utils/_http.py.)
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

MAIN = "main"


@dataclass
class Repository:
    """Commits with their files, and the names that point to commits."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)

    def find(self, revision: str) -> str | None:
        """Return the commit of a branch, tag or commit."""
        return revision if revision in self.commits else self.references.get(revision)


@dataclass
class Hub:
    """What the server has, and what it was asked."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    failures_left: int = 0
    """So many of the next requests get 503."""
    requests: list[str] = field(default_factory=list)
    """Method, path and status of each."""

    def push(self, name: str, folder: Path, *references: str) -> str:
        """Make a commit of a folder's files and return it; main and the references point to it.

        Args:
            name: `models/owner/name` or `datasets/owner/name`.
            folder: what the commit holds.
            references: tags or branches besides main.
        """
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        repository = self.repositories.setdefault(name, Repository())
        content = repr([name, len(repository.commits), files])
        commit = hashlib.sha1(content.encode()).hexdigest()
        repository.commits[commit] = files
        repository.references |= dict.fromkeys((MAIN, *references), commit)
        return commit


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Yield a hub that answers at its url until the block ends."""
    hub = Hub()

    class Bound(_Handler):
        pass

    Bound.hub = hub
    with ThreadingHTTPServer(("127.0.0.1", 0), Bound) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if self.hub.failures_left > 0:
            self.hub.failures_left -= 1
            return self._answer(503, b"the hub is overloaded")
        for pattern, answer in (
            (r"/api/(models|datasets)/([^/]+/[^/]+)/paths-info/([^/]+)", self._paths_info),
            (r"/api/(models|datasets)/([^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?", self._tree),
            (r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/([^/]+))?", self._describe),
            (r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
            (r"/storage/(models|datasets)/([^/]+/[^/]+)/([^/]+)/(.+)", self._storage),
        ):
            if match := re.fullmatch(pattern, path):
                kind, name, revision, *rest = match.groups()
                repository = self.hub.repositories.get(f"{kind or 'models'}/{name}")
                # The hub does not tell strangers whether a private repository is there.
                if repository is None:
                    return self._refuse(401, "RepoNotFound", "Invalid username or password.")
                commit = repository.find(revision or MAIN)
                if commit is None:
                    return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
                return answer(f"{kind or 'models'}/{name}", commit, *rest)
        return self._refuse(404, "EntryNotFound", "Sorry, we can't find the page")

    do_HEAD = do_POST = do_GET

    def _describe(self, name: str, commit: str) -> None:
        files = self._files(name, commit)
        identity = name.partition("/")[2]
        self._json(
            {
                "id": identity,
                "sha": commit,
                "private": False,
                "gated": False,
                "siblings": [{"rfilename": path} for path in files],
                "tags": [],
            }
        )

    def _tree(self, name: str, commit: str, folder: str | None = None) -> None:
        files = self._files(name, commit)
        inside = [path for path in files if not folder or path.startswith(f"{folder}/")]
        if folder and not inside:
            return self._refuse(404, "EntryNotFound", f"{folder} does not exist")
        return self._json([self._entry(path, files[path]) for path in inside])

    def _paths_info(self, name: str, commit: str) -> None:
        files = self._files(name, commit)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        asked = [unquote(part.partition("=")[2]) for part in body.split("&") if "paths" in part]
        self._json([self._entry(path, files[path]) for path in asked if path in files])

    def _resolve(self, name: str, commit: str, path: str) -> None:
        content = self._files(name, commit).get(path)
        if content is None:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        digest = hashlib.sha256(content).hexdigest()
        if not path.endswith((".safetensors", ".parquet")):
            return self._answer(
                200, content, {"X-Repo-Commit": commit, "ETag": f'"{_blob_id(content)}"'}
            )
        # Git LFS: the hub answers for the pointer, and sends to where the bytes are.
        return self._answer(
            302,
            b"",
            {
                "X-Repo-Commit": commit,
                "X-Linked-ETag": f'"{digest}"',
                "X-Linked-Size": str(len(content)),
                "Location": f"{self.hub.url}/storage/{name}/{commit}/{path}",
            },
        )

    def _storage(self, name: str, commit: str, path: str) -> None:
        content = self._files(name, commit)[path]
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if not first:
            return self._answer(200, content)
        part = content[int(first) : int(last) + 1 if last else None]
        end = int(first) + len(part) - 1
        return self._answer(206, part, {"Content-Range": f"bytes {first}-{end}/{len(content)}"})

    def _files(self, name: str, commit: str) -> dict[str, bytes]:
        return self.hub.repositories[name].commits[commit]

    @staticmethod
    def _entry(path: str, content: bytes) -> dict[str, object]:
        return {"type": "file", "path": path, "size": len(content), "oid": _blob_id(content)}

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        self._answer(status, body, {"X-Error-Code": code, "X-Error-Message": message})

    def _json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.hub.requests.append(f"{self.command} {self.path} {status}")
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep the terminal quiet; `Hub.requests` has it all."""


def _blob_id(content: bytes) -> str:
    """Return the object id that git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
