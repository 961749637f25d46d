"""A server on loopback that answers as the Hugging Face hub does, and can misbehave."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

ORG = "org/model"
COMMIT = "c0ffee" * 6 + "c0de"
OTHER_COMMIT = "5eed" * 10
CONFIG = b'{"model_type": "roberta"}'
VOCAB = b'{"a": 0}'
WEIGHTS = bytes(range(256)) * 1_000
# What a repository holds besides what a model is loaded from.
CLUTTER = {
    "README.md": b"# card",
    "modeling_evil.py": b"raise SystemExit",
    "tf_model.h5": b"keras",
    "flax_model.msgpack": b"flax",
    "rust_model.ot": b"rust",
    "onnx/model.onnx": b"onnx",
    "training_args.bin": b"pickle",
}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Hub:
    """What the server holds, and what it was asked.

    Attributes:
        url: its endpoint.
        files: commit → path → content; files of 1,000 bytes or more are kept as the hub keeps large
            ones: redirected to another path, with their SHA-256 for a hash.
        main: the commit `main` is at; every repository's name leads to the same.
        asked: path, Range and Authorization of each request so far.
        behave: called with the path of a request for content and how often that was asked for; an
            int from 400 to 599 answers with that status, another is how many bytes are sent before
            hanging up. For the list it is called with "/tree" and the first entry.
        refuse: X-Error-Code and status of an answer to everything.
        edit: changes the list of a commit's files before it is sent.
        page: entries of the list in one answer.
        ranges: whether it sends a part when asked for one.
        elsewhere: server that large files are redirected to; None for this one.
    """

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    main: str = COMMIT
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    behave: Callable[[str, int], int | None] = lambda path, number: None
    refuse: tuple[str | None, int] | None = None
    edit: Callable[[list[dict[str, Any]]], list[Any]] = lambda entries: entries
    page: int = 1_000
    ranges: bool = True
    elsewhere: str | None = None

    def contents(self) -> list[tuple[str, str | None]]:
        """Path and Range of the requests for content, without those that were redirected."""
        return [(p, r) for p, r, _ in self.asked if not p.startswith("/api/") and "/blob/" not in p]

    def blobs(self) -> dict[str, bytes]:
        return {sha256(body): body for files in self.files.values() for body in files.values()}


def listed(path: str, content: bytes) -> dict[str, Any]:
    """An entry of the hub's list."""
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content)}
    if len(content) < 1_000:
        return entry | {"oid": git_blob(content)}
    lfs = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
    return entry | {"oid": git_blob(b"pointer"), "lfs": lfs, "xetHash": "0" * 64}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        hub, path = self.hub, urlsplit(self.path).path
        hub.asked.append((path, self.headers.get("Range"), self.headers.get("Authorization")))
        if hub.refuse is not None:
            code, status = hub.refuse
            self._send(b"{}", status, {"X-Error-Code": code} if code else {})
        elif path.startswith("/api/models/"):
            self._api(path.split("/")[5:])
        elif "/resolve/" in path:
            commit, _, name = path.partition("/resolve/")[2].partition("/")
            content = hub.files.get(commit, {}).get(name)
            if content is None:
                self._send(b"", 404, {"X-Error-Code": "EntryNotFound"})
            elif len(content) >= 1_000:
                headers = {
                    "Location": f"{hub.elsewhere or hub.url}/blob/{sha256(content)}",
                    "X-Linked-Etag": f'"{sha256(content)}"',
                    "X-Linked-Size": str(len(content)),
                    "X-Repo-Commit": commit,
                }
                self._send(b"", 302, headers)
            else:
                self._content(path, content, {"X-Repo-Commit": commit})
        elif path.startswith("/blob/"):
            self._content(path, hub.blobs()[path.rpartition("/")[2]])
        elif path in hub.files["plain"]:
            self._content(path, hub.files["plain"][path])
        else:
            self._send(b"", 404)

    def do_HEAD(self) -> None:  # as Hugging Face's own library asks before it fetches
        self.do_GET()

    def _api(self, asked: list[str]) -> None:
        kind, revision = asked
        commit = self.hub.main if revision == "main" else revision
        if commit not in self.hub.files:
            self._send(b"{}", 404, {"X-Error-Code": "RevisionNotFound"})
            return
        files = self.hub.files[commit]
        if kind == "revision":
            siblings = [{"rfilename": path} for path in files]
            told = {"id": ORG, "sha": commit, "siblings": siblings}
            self._send(json.dumps(told).encode())
            return
        entries = self.hub.edit(
            [{"type": "directory", "oid": "0" * 40, "size": 0, "path": "onnx"}]
            + [listed(path, content) for path, content in files.items()]
        )
        start = int(urlsplit(self.path).query.partition("cursor=")[2] or 0)
        headers = {}
        if start + self.hub.page < len(entries):
            following = f"{self.hub.url}{urlsplit(self.path).path}?recursive=true&cursor="
            headers["Link"] = f'<{following}{start + self.hub.page}>; rel="next"'
        content = json.dumps(entries[start : start + self.hub.page]).encode()
        self._send(content, 200, headers, self.hub.behave("/tree", start))

    def _content(self, path: str, content: bytes, told: dict[str, str] | None = None) -> None:
        hub = self.hub
        how = hub.behave(path, sum(path == asked for asked, *_ in hub.asked))
        if how is not None and 400 <= how < 600:
            self.send_error(how)
            return
        wanted = self.headers.get("Range") if hub.ranges else None
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start and start >= len(content):
            self.send_error(416)
            return
        etag = sha256(content) if len(content) >= 1_000 else git_blob(content)
        headers = {"ETag": f'"{etag}"'} | (told or {})
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(content[start:], 206 if start else 200, headers, how)

    def _send(
        self,
        body: bytes,
        status: int = 200,
        headers: dict[str, str] | None = None,
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(ConnectionError):  # a client may have read enough
                self.wfile.write(body[:cut])

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """A hub with one checkpoint of three files at `COMMIT`, for as long as the block runs."""
    hub = Hub()
    checkpoint = {"config.json": CONFIG, "pytorch_model.bin": WEIGHTS, "vocab.json": VOCAB}
    hub.files = {COMMIT: checkpoint | CLUTTER, "plain": {}}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
