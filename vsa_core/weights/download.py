"""Files over HTTP: resumed where a connection broke, held to their hash, a token kept at home."""

from __future__ import annotations

import http
import http.client
import io
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from vsa_core import __version__
from vsa_core.config import hub_endpoint, hub_token
from vsa_core.errors import BackendError
from vsa_core.weights import hub, remedy
from vsa_core.weights.catalogue import Weights
from vsa_core.weights.hashes import digest, git_blob
from vsa_core.weights.keep import CannotWrite, write

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 30
_ATTEMPTS = 4
_FIRST_WAIT_S = 0.5
# Answers that may be better a moment later.
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_MAX_JSON_BYTES = 64_000_000
_SHA256_DIGITS = 64


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to fetch.

    Attributes:
        path: where it goes in the folder.
        url: where it is.
        size_bytes: how large it has to be.
        hash: what it has to be: a SHA-256 (64 hex digits), or the id of a git blob (40).
    """

    path: str
    url: str
    size_bytes: int
    hash: str


def download(weights: Weights, wanted: Wanted, path: Path, tell: Callable[[int], None]) -> None:
    """Make a file what it has to be; what is there already counts as its beginning, until proven.

    Args:
        weights: what it belongs to, for messages.
        wanted: what it has to be.
        path: where it is made.
        tell: told how many bytes are here, now and then.

    Raises:
        CannotWrite: the disk is full, or the file cannot be written.
        BackendError: it cannot be fetched; what came is kept. Or it is not what it should be, and
            nothing is.
    """
    try:
        file = io.FileIO(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o644), "r+")
    except OSError as error:
        raise CannotWrite(f"{path} cannot be written: {error.strerror or error}") from error
    try:
        with file:
            found = _completed(weights, file, path, wanted, tell)
    finally:
        if path.exists() and not path.stat().st_size and wanted.size_bytes:
            path.unlink()
    if found != wanted.hash:
        raise BackendError(
            f"{wanted.url} is not the file that is trusted: its hash is {found}, not "
            f"{wanted.hash}; nothing of it was kept: pull again, and report it if it stays so"
        )


def _completed(
    weights: Weights,
    file: io.FileIO,
    path: Path,
    wanted: Wanted,
    tell: Callable[[int], None],
) -> str:
    """The hash of a file once it has its size; empty again when all of it was fetched wrong."""
    while True:
        if (before := file.seek(0, os.SEEK_END)) > wanted.size_bytes:
            before = file.truncate(0)
        _fill(weights, file, wanted, tell)
        if (found := content_hash(path, wanted.hash)) == wanted.hash:
            return found
        file.truncate(0)
        if not before:
            return found


def content_hash(path: Path, like: str) -> str:
    """A file's hash of the same kind as another: SHA-256, or git's."""
    return digest(path) if len(like) == _SHA256_DIGITS else git_blob(path)


def ask(weights: Weights, url: str) -> tuple[Any, Mapping[str, str]]:
    """What a JSON API answers, and the headers of the answer.

    Raises:
        BackendError: it cannot be reached, refuses, or answers no JSON.
    """
    answers: list[tuple[bytes, Mapping[str, str]]] = []

    def attempt() -> bool:
        with _open(url) as answer:
            content = answer.read(_MAX_JSON_BYTES + 1)
            answers.append((content, dict(answer.headers.items())))
            # http.client does not mind a connection that broke when asked for so many bytes.
            return not answer.length or len(content) > _MAX_JSON_BYTES

    _persist(weights, url, attempt)
    content, headers = answers[-1]
    try:
        if len(content) > _MAX_JSON_BYTES:
            raise ValueError
        return json.loads(content), headers
    except (ValueError, RecursionError) as error:
        raise BackendError(f"{url} answers no JSON that could be read") from error


def same_origin(url: str, other: str) -> bool:
    """Whether two addresses are of one server: scheme, host and port."""
    return _origin(url) == _origin(other)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urllib.parse.urlsplit(url)
    ports = {"http": 80, "https": 443}
    return parts.scheme.lower(), parts.hostname, parts.port or ports.get(parts.scheme.lower())


def _fill(weights: Weights, file: io.FileIO, wanted: Wanted, tell: Callable[[int], None]) -> None:
    """Append to a file until it has its size."""

    def held() -> int:
        return file.seek(0, os.SEEK_END)

    def attempt() -> bool:
        if (start := held()) < wanted.size_bytes:
            _append(file, start, wanted, tell)
        return held() >= wanted.size_bytes

    _persist(weights, wanted.url, attempt, held, wanted.size_bytes)


def _append(file: io.FileIO, start: int, wanted: Wanted, tell: Callable[[int], None]) -> None:
    """Ask once for what is missing, and append what comes."""
    try:
        answer = _open(wanted.url, start)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            file.truncate(0)  # the next attempt asks for all of it
            return
        raise
    with answer:
        if start and not str(answer.headers.get("Content-Range")).startswith(f"bytes {start}-"):
            file.seek(file.truncate(0))  # the server sends the whole file, whatever was asked
        while chunk := answer.read(_CHUNK_BYTES):
            write(file, chunk)
            tell(file.tell())
            if file.tell() > wanted.size_bytes:
                break  # no more than that is trusted, so the rest is not worth having


def _persist(
    weights: Weights,
    url: str,
    attempt: Callable[[], bool],
    held: Callable[[], int] = lambda: 0,
    size_bytes: int | None = None,
) -> None:
    """Attempt something over the network until it is done, patiently while bytes keep coming."""
    failed = 0
    while failed < _ATTEMPTS:
        if failed:
            time.sleep(_FIRST_WAIT_S * 2 ** (failed - 1))
        before = held()
        try:
            if attempt():
                return
            reason = "the connection broke"
        except urllib.error.HTTPError as error:
            reason = _refusal(weights, error)
            if error.code not in _PASSING:
                break
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        failed = 1 if held() - before >= _CHUNK_BYTES else failed + 1
    kept = f"; {held()} of {size_bytes} bytes are kept" if size_bytes is not None else ""
    raise BackendError(
        f"{weights.name} cannot be fetched from {url} ({reason}){kept}: try again with "
        f"{remedy(weights)}"
    )


def _refusal(weights: Weights, error: urllib.error.HTTPError) -> str:
    """Why a server refuses, in words a person can act on."""
    status = f"HTTP {error.code} {http.client.responses.get(error.code, '')}".strip()
    if weights.repository is None:
        return status
    # Asked without a token, the hub answers 401 for what is private and for what is not there.
    usual = {401: "RepoNotFound", 403: "GatedRepo"}
    why = {
        "GatedRepo": f"gated: accept its terms on {weights.source} and set HF_TOKEN to your token",
        "RepoNotFound": "no such repository, or a private one: set HF_TOKEN to a token for it",
        "RevisionNotFound": f"no revision {weights.revision or hub.MAIN} there",
        "EntryNotFound": "no such file there",
    }.get(error.headers.get("X-Error-Code") or usual.get(error.code, ""))
    return f"{status}, {why}" if why else status


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects that stay encrypted, and take a token along only to the server it is for."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        schemes = [urllib.parse.urlsplit(url).scheme.lower() for url in (req.full_url, newurl)]
        if schemes[1] != "https" and schemes != ["http", "http"]:
            raise urllib.error.URLError("it redirects to an address that is not https")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        token = req.get_header("Authorization")
        if request is not None and token and same_origin(req.full_url, newurl):
            request.add_unredirected_header("Authorization", token)
        return request


def _open(url: str, start: int = 0) -> Any:
    """The answer to a request for a file from a byte on."""
    request = urllib.request.Request(url, headers={"User-Agent": f"vsa/{__version__}"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    token = hub_token()
    if token and same_origin(url, hub_endpoint()):
        # Not among the headers that urllib repeats wherever it is redirected to.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    return urllib.request.build_opener(_Redirects()).open(request, timeout=_TIMEOUT_S)
