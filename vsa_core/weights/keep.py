"""Put weights into the cache folder, whole or not at all; take in what was fetched by hand."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from vsa_core.errors import BackendError
from vsa_core.folders import cache_dir, hub_caches
from vsa_core.weights import (
    Manifest,
    hub,
    is_exact,
    location,
    look,
    manifest_path,
    own_place,
    pinned,
    slug,
)
from vsa_core.weights.catalogue import Weights
from vsa_core.weights.hashes import digest
from vsa_core.whole_files import flush, put_whole

_CHUNK_BYTES = 1 << 20


@contextlib.contextmanager
def workplace(weights: Weights) -> Iterator[Path]:
    """The folder in which weights are made ready, for one process at a time.

    What is left there stays for the next attempt.

    Raises:
        BackendError: another process is at it, or the folder cannot be written.
    """
    folder = _parts(weights)
    lock = folder.with_name(f"{folder.name}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise BackendError(f"{folder} cannot be written: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another process may have finished, and removed the lock, before it became ours.
            if os.fstat(handle).st_ino != lock.stat().st_ino:
                raise BlockingIOError
        except (BlockingIOError, FileNotFoundError) as error:
            raise BackendError(f"another process is at {weights.name}: wait for it") from error
        folder.mkdir(exist_ok=True)  # the other process may have removed it too
        try:
            yield folder
        finally:
            with contextlib.suppress(OSError):  # it is not there, or not empty
                folder.rmdir()
            lock.unlink(missing_ok=True)
    finally:
        os.close(handle)
        with contextlib.suppress(OSError):  # others are at work in it
            folder.parent.rmdir()


def _parts(weights: Weights) -> Path:
    return cache_dir() / "parts" / slug(weights)


class CannotWrite(BackendError):  # noqa: N818 - it reads as what it says
    """The disk is full, or does not take what is written."""


def write(file: io.FileIO, chunk: bytes) -> None:
    """Write all of a chunk to an unbuffered file.

    Raises:
        CannotWrite: the disk is full, or writing fails.
    """
    rest = memoryview(chunk)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = f"the disk of {cache_dir()} is full"
        raise CannotWrite(reason) from error


def refuse_without_space(name: str, missing_bytes: int) -> None:
    """Raise BackendError when what is still missing does not fit on the disk."""
    if missing_bytes > (free := _free()):
        raise BackendError(
            f"{name} needs {missing_bytes} bytes more, and {cache_dir()} has {free} free: make "
            f"room for {missing_bytes - free}, or set VSA_CACHE_DIR to a folder on another disk"
        )


def _free() -> int:
    return shutil.disk_usage(cache_dir()).free


def put(workplace: Path, target: Path, names: list[str], manifest: Manifest | None) -> None:
    """Move what is ready in a workplace to its target; a target is never half old, half new.

    Args:
        workplace: folder with the files, verified; the other files in it are dropped.
        target: where they go.
        names: the files' paths in the folder; [""] for a lone file, which is called `target.name`.
        manifest: what is recorded of them, before they are there; None where the catalogue pins
            them all.

    Raises:
        BackendError: the target cannot be written.
    """
    try:
        files = {workplace / (name or target.name) for name in names}
        for path in workplace.rglob("*"):
            if path in files:
                flush(path)
            elif not path.is_dir():
                path.unlink()
        target.parent.mkdir(parents=True, exist_ok=True)
        if manifest is not None:
            record(target, manifest)
        elif (old := manifest_path(target)) is not None:
            old.unlink(missing_ok=True)
        if names == [""]:
            files.pop().replace(target)
        else:
            flush(workplace)
            if target.exists():  # altered or incomplete
                shutil.rmtree(target)
            workplace.replace(target)
        flush(target.parent)
    except OSError as error:
        raise BackendError(f"{target} cannot be written: {error.strerror or error}") from error


def record(target: Path, manifest: Manifest) -> None:
    """Write the manifest of something in the cache folder, in one step."""
    path = manifest_path(target)
    assert path is not None, target
    content = {"files": manifest.files, "yours": manifest.yours, "source": manifest.source}
    replace_text(path, json.dumps(content, indent=1, sort_keys=True))


def replace_text(path: Path, text: str) -> None:
    """Write a small file so that it is there whole or as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    put_whole(path, text.encode())
    flush(path.parent)


def add(weights: Weights, source: Path, trust: bool = False) -> Path:
    """Copy a file or folder that was fetched by hand to where the weights are looked for.

    Args:
        weights: what it shall be.
        source: the file; for a checkpoint the folder, of which only what `hub.chosen` chooses or
            the catalogue names is taken.
        trust: take content that is not the published one, or of which nothing is known, as the
            user's own; it is used instead of the published until it is removed.

    Returns:
        Where it is now.

    Raises:
        BackendError: it is not what it should be, incomplete, holds links that lead out of it, or
            cannot be copied.
    """
    target = location(weights)
    if weights.package is not None or target is None:
        raise BackendError(f"{weights.name} comes with the package {weights.package}")
    if not (source.is_file() if weights.file else source.is_dir()):
        kind = "file" if weights.file else "folder"
        raise BackendError(f"{source} is no {kind}, which {weights.name} has to be")
    names, own = _wanted_of(weights, source, trust), own_place(weights)
    with workplace(weights) as folder:
        copies = folder.with_name(f"{folder.name}.added")  # what is half fetched stays as it is
        shutil.rmtree(copies, ignore_errors=True)  # of a killed process
        try:
            copies.mkdir()
            files = _copied(weights, source, names, copies, trust)
            pins = pinned(weights)
            published = all(files[name] == pins.get(name) for name in names)
            goal = target if published else own
            record_of = None if published else Manifest(files, True, str(source.resolve()))
            put(copies, goal, names, record_of)
            shutil.rmtree(folder)  # nobody will go on fetching it
            return goal
        except OSError as error:
            reason = f"{error.filename or copies}: {error.strerror or error}"
            raise BackendError(f"{weights.name} cannot be taken in: {reason}") from error
        finally:
            shutil.rmtree(copies, ignore_errors=True)


def _copied(
    weights: Weights, source: Path, names: list[str], folder: Path, trust: bool
) -> dict[str, str]:
    """Copy files into a workplace; their SHA-256, which is the pinned one unless trusted."""
    pins, files = pinned(weights), {}
    for name in names:
        copy = folder / (name or Path(weights.file).name)
        _copy(source / name, copy, source)
        files[name] = is_now = digest(copy)
        if not trust and is_now != pins.get(name):
            wanted = pins.get(name)
            told = f"not {wanted}" if wanted else "and nobody states which it has to have"
            raise BackendError(
                f"{source / name} has SHA-256 {is_now}, {told}: take the file of {weights.source}, "
                f"or this as your own with `vsa models add {weights.name} {source} --trust`"
            )
    return files


def _wanted_of(weights: Weights, source: Path, trust: bool) -> list[str]:
    """The files of a folder that are taken; for what is pinned to the last file, those."""
    if weights.file:
        return [""]
    inside = [file.name for file in source.iterdir() if file.is_file()]
    pins = list(pinned(weights)) if is_exact(weights) else []
    if pins and set(pins) <= set(inside):
        return pins
    names = hub.chosen(inside)
    if not names or (pins and not trust):
        needed = ", ".join(sorted(set(pins) - set(inside))) or "config.json and weights"
        raise BackendError(f"{source} is no checkpoint of {weights.name}: it lacks {needed}")
    return names


def _copy(source: Path, target: Path, within: Path) -> None:
    """Copy a file; a link is followed inside the folder, and to the blobs of the hub's layout."""
    real, root = source.resolve(), within.resolve()
    if within.is_dir() and not any(
        real.is_relative_to(inside) for inside in (root, root.parent.parent / "blobs")
    ):
        raise BackendError(f"{source} is a link that leads out of its folder, to {real}")
    refuse_without_space(source.name, real.stat().st_size)
    with real.open("rb") as reading, target.open("wb", buffering=0) as writing:
        while chunk := reading.read(_CHUNK_BYTES):
            write(writing, chunk)


def remove(weights: Weights) -> int:
    """Delete what the cache folder holds of the weights: published, the user's own, half fetched.

    Returns:
        How many bytes that frees.

    Raises:
        BackendError: it holds nothing of them, or another process is at them.
    """
    place = location(weights)
    if weights.package is not None or place is None:
        raise BackendError(f"{weights.name} comes with the package {weights.package}")
    gone = [own_place(weights), place, _parts(weights)]
    if not any(path.exists() for path in gone):
        found = look(weights)
        where = f"{found.path} is not vsa's to remove" if found.files else "they are not here"
        raise BackendError(f"nothing of {weights.name} to remove: {where}")
    with workplace(weights):
        freed = sum(map(_delete, gone))
    if weights.repository is not None and not weights.file:
        folder = hub.repository_folder(hub_caches()[0], weights.repository)
        with contextlib.suppress(OSError):  # another revision is there
            (folder / "snapshots").rmdir()
            shutil.rmtree(folder)
    return freed


def _delete(path: Path) -> int:
    """Delete a file or folder with its manifest; how many bytes it had."""
    if (manifest := manifest_path(path)) is not None:
        manifest.unlink(missing_ok=True)
    if not path.exists():
        return 0
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    if path.is_file():
        path.unlink()
        with contextlib.suppress(OSError):  # not the last one in it
            path.parent.rmdir()
    else:
        shutil.rmtree(path)
    return size
