"""Fetch weights into the cache folder: what is needed of them, from where, and held to what."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vsa_core.config import hub_endpoint
from vsa_core.errors import BackendError
from vsa_core.folders import cache_dir, hub_caches
from vsa_core.weights import (
    ALTERED,
    PRESENT,
    YOURS,
    Manifest,
    hub,
    is_pinned,
    look,
    own_place,
    remedy,
)
from vsa_core.weights.catalogue import File, Weights
from vsa_core.weights.download import Wanted, ask, content_hash, download, same_origin
from vsa_core.weights.hashes import digest
from vsa_core.weights.keep import CannotWrite, put, refuse_without_space, replace_text, workplace

# What one checkpoint may be at most; a hub that states more is not believed.
_MAX_BYTES = 200_000_000_000
_MAX_FILES = 1_000
_MAX_LISTED = 50_000
_HASH = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
_NEXT = re.compile(r'<([^>]*)>\s*;\s*rel="next"')


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pull is.

    Attributes:
        path: the file it is at.
        held_bytes, total_bytes: of all its files.
        done: whether that file is now here and checked.
    """

    path: str
    held_bytes: int
    total_bytes: int
    done: bool


Told = Callable[[Progress], None]


def pull(weights: Weights, told: Told = lambda _: None) -> Path:
    """Fetch weights into the cache folder, unless they are here; what was cut off goes on.

    Args:
        weights: what to fetch.
        told: called now and then with how far it is.

    Returns:
        Where they are.

    Raises:
        BackendError: they come with a package, cannot be fetched, are not what they should be, do
            not fit on the disk, or another process is fetching them.
    """
    if weights.package is not None:
        raise BackendError(f"{weights.name} comes with a package: {remedy(weights)}")
    if (here := _here(weights)) is not None:
        return here
    with workplace(weights) as folder:
        if (here := _here(weights)) is not None:  # from another process, before this was ours
            return here
        commit, wanted = _plan(weights)
        target = _target(weights, commit)
        if not weights.file:
            _reuse(target, folder, wanted)
        total = sum(file.size_bytes for file in wanted)
        refuse_without_space(weights.name, total - _held(folder, wanted))
        try:
            _fetch(weights, wanted, folder, told)
        except CannotWrite as error:
            raise BackendError(
                f"{weights.name} lacks {total - _held(folder, wanted)} of {total} bytes: {error}; "
                f"make room and `vsa models pull {weights.name}` goes on, or drop what is here "
                f"with `vsa models remove {weights.name}`"
            ) from error
        _put(weights, commit, wanted, folder, target)
        return target


def _here(weights: Weights) -> Path | None:
    """Where they are; None when they have to be fetched."""
    found = look(weights)
    if found.state == ALTERED and found.path == own_place(weights):
        raise BackendError(found.problem)  # what is published would not be looked at
    return found.path if found.state in (PRESENT, YOURS) else None


def _target(weights: Weights, commit: str | None) -> Path:
    """Where they go: a checkpoint to the folder of its commit."""
    if weights.repository is None or weights.file:
        return cache_dir() / weights.file
    return hub.snapshot(hub_caches()[0], weights.repository, commit)


def _reuse(target: Path, folder: Path, wanted: list[Wanted]) -> None:
    """Take over the files of an altered or incomplete checkpoint that are as they should be."""
    for file in wanted:
        old, part = target / file.path, folder / file.path
        if not part.exists() and old.is_file() and content_hash(old, file.hash) == file.hash:
            old.replace(part)


def _held(folder: Path, wanted: list[Wanted]) -> int:
    """How many bytes of the files are here."""
    parts = [(folder / file.path, file.size_bytes) for file in wanted]
    return sum(min(path.stat().st_size, size) for path, size in parts if path.exists())


def _fetch(weights: Weights, wanted: list[Wanted], folder: Path, told: Told) -> None:
    """Fetch file after file."""
    total, before = sum(file.size_bytes for file in wanted), 0
    for file in wanted:

        def tell(held: int, file: Wanted = file, before: int = before) -> None:
            told(Progress(file.path, before + held, total, done=False))

        download(weights, file, folder / file.path, tell)
        before += file.size_bytes
        told(Progress(file.path, before, total, done=True))


def _put(
    weights: Weights, commit: str | None, wanted: list[Wanted], folder: Path, target: Path
) -> None:
    """Put what was fetched in its place, with a record of what the catalogue does not pin."""
    names = {"" if weights.file else file.path: folder / file.path for file in wanted}
    manifest = None
    if not is_pinned(weights):
        files = {name: digest(path) for name, path in names.items()}
        manifest = Manifest(files, yours=False, source=f"{weights.source} @ {commit}")
    if weights.repository and commit and commit != weights.revision and not weights.file:
        ours = hub.repository_folder(hub_caches()[0], weights.repository)
        replace_text(ours / "refs" / (weights.revision or hub.MAIN), commit)
    put(folder, target, list(names), manifest)


def _plan(weights: Weights) -> tuple[str | None, list[Wanted]]:
    """The commit, and the files to fetch; the hub is asked where the catalogue does not say it."""
    if weights.repository is None:
        if weights.url is None or weights.size_bytes is None or weights.sha256 is None:
            raise BackendError(f"{weights.name} has no address to be fetched from")
        name = Path(weights.file).name
        return None, [Wanted(name, weights.url, weights.size_bytes, weights.sha256)]
    endpoint, commit = hub_endpoint(), weights.revision
    if commit is None or not hub.COMMIT.fullmatch(commit):
        commit = _commit(weights, commit or hub.MAIN)
    base = f"{endpoint}/{weights.repository}/resolve/{commit}/"
    if is_pinned(weights) and commit == weights.revision:
        return commit, [
            Wanted(file.path, base + file.path, file.size_bytes or 0, file.sha256 or "")
            for file in weights.files
        ]
    listed = _listed(weights, commit, base)
    names = [file.path for file in weights.files] if weights.file else hub.chosen(listed)
    if not names or not set(names) <= set(listed):
        what = ", ".join(names) or "config.json with safetensors, torch or CTranslate2 weights"
        raise BackendError(f"{weights.repository} at {commit} does not hold {what}")
    pins = {file.path: file for file in weights.files}
    wanted = [_held_to(pins.get(name), listed[name]) for name in names]
    if len(wanted) > _MAX_FILES or sum(file.size_bytes for file in wanted) > _MAX_BYTES:
        raise BackendError(f"{weights.repository} is larger than any model vsa would load")
    return commit, wanted


def _held_to(pin: File | None, stated: Wanted) -> Wanted:
    """What the hub states of a file, held to its pin: another file is not worth fetching."""
    if pin is None:
        return stated
    comparable = pin.sha256 is not None and len(pin.sha256) == len(stated.hash)
    if (comparable and pin.sha256 != stated.hash) or pin.size_bytes not in (
        None,
        stated.size_bytes,
    ):
        raise BackendError(
            f"{stated.url} is not the file that is trusted: the hub states {stated.size_bytes} "
            f"bytes with hash {stated.hash}, not {pin.size_bytes} with {pin.sha256}"
        )
    return replace(stated, hash=pin.sha256 or stated.hash)


def _commit(weights: Weights, revision: str) -> str:
    """The commit a branch or tag stands for now."""
    url = f"{hub_endpoint()}/api/models/{weights.repository}/revision/{revision}"
    answer, _ = ask(weights, url)
    commit = answer.get("sha") if isinstance(answer, dict) else None
    if not isinstance(commit, str) or not hub.COMMIT.fullmatch(commit):
        raise BackendError(f"{url} names no commit")
    return commit


def _listed(weights: Weights, commit: str, base: str) -> dict[str, Wanted]:
    """Every file of a commit with the size and hash that the hub states."""
    endpoint = hub_endpoint()
    url = f"{endpoint}/api/models/{weights.repository}/tree/{commit}?recursive=true"
    listed: dict[str, Wanted] = {}
    while url:
        entries, headers = ask(weights, url)
        if not isinstance(entries, list) or len(entries) + len(listed) > _MAX_LISTED:
            raise BackendError(f"{url} lists nothing that could be a model")
        for entry in entries:
            file = _stated(entry, base)
            if file is not None:
                listed[file.path] = file
        following = _NEXT.search(headers.get("Link") or headers.get("link") or "")
        url = following[1] if following and entries else ""
        if url and not same_origin(url, endpoint):
            raise BackendError(f"{endpoint} continues its list on another server, {url[:80]!r}")
    return listed


def _stated(entry: Any, base: str) -> Wanted | None:
    """One entry of the hub's list; None for what is no file."""
    try:
        path = entry["path"]
        hub.refuse_path(path)
        if entry["type"] != "file":
            return None
        content = entry.get("lfs") or entry  # a large file's own size and hash, not its pointer's
        size, stated = int(content["size"]), content["oid"]
        if size < 0 or not _HASH.fullmatch(stated):
            raise ValueError
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise BackendError(f"the hub's list for {base} makes no sense: {entry!r:.80}") from error
    return Wanted(path, base + urllib.parse.quote(path), size, stated)
