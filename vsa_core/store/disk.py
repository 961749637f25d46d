"""A store's files on a local disk: renames that are atomic, and locks that a dead process loses."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow.fs as fs

from vsa_core.errors import StoreError
from vsa_core.store.files import COMPACTED, EPOCH, StoredFile, key_of
from vsa_core.whole_files import flush

_TMP = ".tmp"
_LOCK = ".lock"
_COMPACTING = ".compacting"
_QUARANTINE = ".quarantine"

Write = Callable[[BinaryIO], object]


class Place(Protocol):
    """Where a store's files lie. Names are relative to the store, `/` between folders.

    Attributes:
        location: absolute folder or URL, as errors name it.
        filesystem: opens `path(name)`.
        marked: whether the store is known to say which versions it holds.
    """

    location: str
    filesystem: fs.FileSystem
    marked: bool

    def path(self, name: str) -> str:
        """What the filesystem calls a file."""

    def where(self, name: str) -> str:
        """What errors call a file."""

    def files(self, table: str, part: str | None = None) -> list[StoredFile]:
        """Every file of a table, or of one part of it, as it lies there."""

    def around(self, table: str, part: str, key: str) -> list[StoredFile]:
        """The files of a part that may hold a key: its own, and the compacted ones."""

    def folders(self, name: str) -> list[str]:
        """Names of the folders in a folder."""

    def contents(self, name: str) -> list[str]:
        """Names of the files in a folder."""

    def remove_folder(self, name: str) -> None:
        """Remove an empty folder."""

    def commit(self, table: str, part: str, key: str, write: Write) -> str:
        """Put a key's file in the place of those that stood there; returns its name."""

    def put(self, name: str, write: Write) -> None:
        """Put one file in place, whole or not at all."""

    def read(self, name: str) -> bytes:
        """A file's contents; FileNotFoundError, OSError."""

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; what is gone already is no matter."""

    def quarantine(self, name: str) -> str:
        """Put a file aside; returns where."""

    def compacting(self) -> AbstractContextManager[None]:
        """Keeps a second compaction of ours out, where that can be done."""

    def opened(self, table: str, part: str) -> int:
        """A generation above all there are, for a compacted file of a part."""

    def swap(self, joined: Sequence[StoredFile], made: str) -> bool:
        """Let a compacted file take the place of what was joined; False: it was withdrawn.

        Args:
            joined: files whose rows the compacted one now holds, or that counted for nothing.
            made: the compacted one, put already under a generation that `opened` gave.
        """

    def orphans(self) -> Iterator[str]:
        """What killed writers have left, each locked against use while it is looked at."""


class Disk:
    """A folder of a local disk.

    Args:
        root: made at the first commit.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.location = str(root)
        self.filesystem: fs.FileSystem = fs.LocalFileSystem()
        self.marked = False

    def path(self, name: str) -> str:
        return f"{self.location}/{name}"

    where = path

    def files(self, table: str, part: str | None = None) -> list[StoredFile]:
        found: list[StoredFile] = []
        with self._listing():
            for own in ["", *self._parts(table)] if part is None else [part]:
                self._collect(table, own, found)
        return found

    def own(self, table: str, part: str, key: str) -> StoredFile | None:
        """The file of a key, which holds its rows whatever else there is; None without one."""
        name = f"{_folder(table, part)}/{key}.parquet"
        try:
            facts = os.stat(self.path(name))  # noqa: PTH116 - as often as there are videos
        except FileNotFoundError:
            return None
        return _stored(self.path(name), table, part, name, key, facts)

    def around(self, table: str, part: str, key: str) -> list[StoredFile]:
        found: list[StoredFile] = []
        with self._listing():
            self._collect(table, part, found, only=key)
        return found

    def folders(self, name: str) -> list[str]:
        try:
            with os.scandir(self.path(name)) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def contents(self, name: str) -> list[str]:
        return sorted(e.name for e in _entries(self.path(name)) if e.is_file())

    def remove_folder(self, name: str) -> None:
        with contextlib.suppress(OSError):  # what is left in it keeps it
            Path(self.path(name)).rmdir()

    def commit(self, table: str, part: str, key: str, write: Write) -> str:
        name = f"{_folder(table, part)}/{key}.parquet"
        self.put(name, write)
        return name

    def put(self, name: str, write: Write) -> None:
        path = Path(self.path(name))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            tmp, target = _claimed(self.root / _TMP)
            try:
                with target:
                    write(target)
                    target.flush()
                    os.fsync(target.fileno())
                    with self._lock(_LOCK, fcntl.LOCK_SH):
                        tmp.replace(path)
            finally:
                tmp.unlink(missing_ok=True)
            flush(path.parent)
        except OSError as error:
            raise StoreError(self._why_not_written(path, error)) from error

    def read(self, name: str) -> bytes:
        return Path(self.path(name)).read_bytes()

    def remove(self, names: Iterable[str]) -> None:
        try:
            for name in names:
                Path(self.path(name)).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"{self.location}: a file cannot be removed ({error.strerror}): see to its "
                "permissions and run the same command again"
            ) from error

    def quarantine(self, name: str) -> str:
        target = self.root / _QUARANTINE / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            Path(self.path(name)).replace(target)
        except OSError as error:
            raise StoreError(self._why_not_written(target, error)) from error
        return str(target)

    @contextmanager
    def compacting(self) -> Iterator[None]:
        try:
            with self._lock(_COMPACTING, fcntl.LOCK_EX | fcntl.LOCK_NB):
                yield
        except BlockingIOError as error:
            raise StoreError(
                f"{self.location} is being compacted by another process: wait for it to end"
            ) from error
        except OSError as error:
            raise StoreError(self._why_not_written(self.root / _COMPACTING, error)) from error

    def opened(self, table: str, part: str) -> int:
        generations = [
            max(file.generation, file.epoch or 0) for file in self.around(table, part, "")
        ]
        return 1 + max(generations, default=0)

    def swap(self, joined: Sequence[StoredFile], made: str) -> bool:
        with self._lock(_LOCK, fcntl.LOCK_EX):
            if not Path(self.path(made)).is_file():
                return False
            for file in joined:
                path = Path(file.path)
                try:
                    # What was committed anew meanwhile stays, and supersedes what was joined.
                    if _stamp(path.stat()) == file.stamp:
                        path.unlink()
                except FileNotFoundError:
                    continue
        return True

    def orphans(self) -> Iterator[str]:
        for path in sorted((self.root / _TMP).glob("*.tmp")):
            try:
                with path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    yield f"{_TMP}/{path.name}"
            except (BlockingIOError, FileNotFoundError):
                continue  # being written, or done meanwhile

    @contextmanager
    def _lock(self, name: str, kind: int) -> Iterator[None]:
        """Commits share the store; compaction has it alone while it swaps files."""
        with (self.root / name).open("ab") as lock:
            fcntl.flock(lock, kind)
            yield

    @contextmanager
    def _listing(self) -> Iterator[None]:
        """No swap while a folder is listed, or the listing might hold neither old nor new."""
        try:
            lock = (self.root / _LOCK).open("rb")
        except OSError:  # nobody ever wrote here, or it is a copy
            yield
            return
        with lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    def _parts(self, table: str) -> list[str]:
        return [name for name in self.folders(table) if not name.startswith((".", EPOCH))]

    def _collect(
        self, table: str, part: str, found: list[StoredFile], only: str | None = None
    ) -> None:
        """The files of one part; with `only` just that key's and the compacted ones."""
        folder = _folder(table, part)
        own = f"{only}.parquet"
        for entry in _entries(self.path(folder)):
            if entry.name.endswith(".parquet"):
                if only is None or entry.name.startswith(COMPACTED) or entry.name == own:
                    self._add(table, part, entry.name, entry, found)
            elif entry.name.startswith(EPOCH):  # of a store that was copied from objects
                for keyed in _entries(f"{self.path(folder)}/{entry.name}"):
                    if only in (None, keyed.name):
                        for version in _entries(keyed.path):
                            name = f"{entry.name}/{keyed.name}/{version.name}"
                            self._add(table, part, name, version, found)

    def _add(
        self, table: str, part: str, name: str, entry: os.DirEntry[str], found: list[StoredFile]
    ) -> None:
        ours, key = key_of(name)
        if ours:
            try:
                facts = entry.stat()
            except FileNotFoundError:
                return  # replaced or compacted meanwhile
            name = f"{_folder(table, part)}/{name}"
            found.append(_stored(self.path(name), table, part, name, key, facts))

    def _why_not_written(self, path: Path, error: OSError) -> str:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return (
                f"no space left in {self.location} while writing {path.relative_to(self.root)}: "
                "free some and run the same command again; nothing stored so far is lost"
            )
        return f"{path} cannot be written: {error.strerror or error}"


def _folder(table: str, part: str) -> str:
    return f"{table}/{part}" if part else table


def _stamp(facts: os.stat_result) -> tuple[int, ...]:
    return (facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino, facts.st_size)


def _stored(
    path: str, table: str, part: str, name: str, key: str | None, facts: os.stat_result
) -> StoredFile:
    return StoredFile(path, table, part, name, key, facts.st_size, stamp=_stamp(facts))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _claimed(folder: Path) -> tuple[Path, BinaryIO]:
    """A new temporary file, flocked as long as it is open."""
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        path = folder / f"{uuid.uuid4().hex}.tmp"
        file = path.open("xb")
        fcntl.flock(file, fcntl.LOCK_SH)
        if os.fstat(file.fileno()).st_nlink:
            return path, file
        file.close()  # swept in the moment before it was locked
