"""SHA-256 of files and folders; what has not changed since it was hashed is not read again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

# A file changed within this time before it was hashed could change again unseen: the clock of a
# file system may be as coarse as that.
_SETTLED_NS = 2_000_000_000
_CHUNK_BYTES = 1 << 20
_hashed: dict[str, tuple[int | str, ...]] = {}


def digest(path: Path) -> str:
    """SHA-256 of a file; of a folder that of `sha256sum`'s lines over its files, by name.

    A process reads a file once for as long as its size, times and inode stay the same.
    """
    return folder_digest(path, digest) if path.is_dir() else _looked_up(path, _hashed)


def folder_digest(path: Path, hashed: Callable[[Path], str]) -> str:
    """`digest` of a folder, with its files hashed by a function."""
    inside = {
        file.relative_to(path).as_posix(): file
        for file in path.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    lines = "".join(f"{hashed(inside[name])}  {name}\n" for name in sorted(inside))
    return hashlib.sha256(lines.encode()).hexdigest()


def git_blob(path: Path) -> str:
    """The id git gives a file's content: SHA-1 behind its length, 40 hex digits."""
    sha1 = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            sha1.update(chunk)
    return sha1.hexdigest()


class Remembered:
    """`digest` for whoever only shows it: hashes are remembered from process to process.

    Args:
        place: the file they are kept in; one that cannot be read or written is done without.
        afresh: hash everything, and remember that.
    """

    def __init__(self, place: Path, afresh: bool = False) -> None:
        self._place = place
        self._known: dict[str, tuple[int | str, ...]] = {}
        if not afresh:
            try:
                read = json.loads(place.read_text(encoding="utf-8"))
                self._known = {str(path): tuple(entry) for path, entry in read.items()}
            except (OSError, ValueError, TypeError, AttributeError):
                pass
        self._before = dict(self._known)

    def __call__(self, path: Path) -> str:
        """SHA-256 of a file or folder."""
        return folder_digest(path, self) if path.is_dir() else _looked_up(path, self._known)

    def save(self) -> None:
        """Write what was hashed, unless nothing was."""
        if self._known == self._before:
            return
        known = {path: entry for path, entry in self._known.items() if Path(path).exists()}
        part = self._place.with_name(f"{self._place.name}.part")
        try:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(known), encoding="utf-8")
            part.replace(self._place)
        except OSError:
            part.unlink(missing_ok=True)


def _looked_up(path: Path, known: dict[str, tuple[int | str, ...]]) -> str:
    """A file's SHA-256, from what is known where the file is as it was."""
    now = path.stat()
    stamp = (now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino)
    before = known.get(str(path), ())
    if before[:-1] == stamp:
        return str(before[-1])
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time_ns() - max(now.st_mtime_ns, now.st_ctime_ns) > _SETTLED_NS:
        known[str(path)] = (*stamp, found)
    return found
