"""The Parquet store: checked atomic commits, lookups by fingerprint, scans, compaction.

One file per key, `<table>/[<part>/]<key>.parquet`, replaced whole and never changed in place, so
a reader sees the old rows or the new ones and a killed writer leaves at most a temporary file
that the next run sweeps away. A file carries the fingerprint of what it was made from; a stage
whose output stands with the same fingerprint has nothing to do.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from vsa_core.errors import StoreError
from vsa_core.schemas import TABLES, checked

SCHEMA_TAG = b"vsa.schema"
_KEY = b"vsa.key"
_FINGERPRINT = b"vsa.fingerprint"
_KEYS = b"vsa.keys"  # of a compacted file: {key: [fingerprint, rows]}
_COMPACTED = "part-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
_TMP = ".tmp"
_LOCK = ".lock"
CARD = "card.json"
# Tables keyed by video, which a big store holds by the ten thousand.
COMPACTABLE = ("videos", "transcripts", "segments", "predictions", "embeddings", "faces")


@dataclass(frozen=True, slots=True)
class TableRef:
    """Where rows lie: what crosses a task's border instead of the rows themselves.

    Attributes:
        table: name in `schemas.TABLES`.
        part: sub-folder (a backend, a run); empty for tables without.
        key: what the file is about (a video, a shard).
        fingerprint: of what the rows were made from.
        rows: how many.
    """

    table: str
    part: str
    key: str
    fingerprint: str
    rows: int


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One Parquet file of a table.

    Attributes:
        path: the file.
        part: the sub-folder's name.
        superseded: video ids whose rows in this compacted file have a newer file of their own,
            and do not count.
    """

    path: Path
    part: str
    superseded: tuple[str, ...] = ()

    @property
    def compacted(self) -> bool:
        """Whether it holds the rows of many keys; else the file is named by its key."""
        return self.path.name.startswith(_COMPACTED)


class Store:
    """A folder of Parquet tables.

    Args:
        root: the folder; made at the first commit.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()
        self._compacted: dict[Path, tuple[int, dict[str, tuple[str, int]]]] = {}

    # --- names ------------------------------------------------------------------------------

    @staticmethod
    def part_of(backend_id: str) -> str:
        """The folder name of a backend's part of a table."""
        return re.sub(r"[^A-Za-z0-9._-]", "-", backend_id)

    @property
    def exists(self) -> bool:
        """Whether anything was ever committed here."""
        return any((self.root / table).is_dir() for table in TABLES)

    def _folder(self, table: str, part: str) -> Path:
        if table not in TABLES:
            raise StoreError(f"no table is named {table!r}; there are: {', '.join(TABLES)}")
        if part and not _NAME.fullmatch(part):
            raise StoreError(f"{part!r} cannot name a part of table {table}")
        return self.root / table / part if part else self.root / table

    def _path(self, table: str, key: str, part: str) -> Path:
        if not _NAME.fullmatch(key) or key.startswith(_COMPACTED):
            raise StoreError(f"{key!r} cannot be a key of table {table}")
        return self._folder(table, part) / f"{key}.parquet"

    # --- writing ----------------------------------------------------------------------------

    def commit(
        self, table: str, key: str, data: pa.Table, fingerprint: str, *, part: str = ""
    ) -> TableRef:
        """Put the rows of one key in place of what stood there, whole or not at all.

        Args:
            table: name in `schemas.TABLES`.
            key: what the rows are about; letters, digits, `.`, `_`, `-`.
            data: exactly the table's columns, in order.
            fingerprint: of what the rows were made from.
            part: sub-folder (a backend, a run).

        Raises:
            StoreError: a missing, unknown or mistyped column, a null where none may be,
                probabilities that do not sum to 1, an id that repeats, a full or read-only disk.
        """
        path = self._path(table, key, part)
        spec = TABLES[table]
        rows = checked(spec, data, where=f"{table}/{key}")
        metadata = {SCHEMA_TAG: spec.tag, _KEY: key, _FINGERPRINT: fingerprint}
        self._put_table(rows.replace_schema_metadata(metadata), path)
        return TableRef(table, part, key, fingerprint, rows.num_rows)

    def commit_folder(self, kind: str, name: str, files: Mapping[str, bytes]) -> Path:
        """Put a folder of files (a model and its card) in place; the card is written last.

        Args:
            kind: e.g. `models`.
            name: the folder's name.
            files: contents by name; one of them `card.json`, whose presence means complete.

        Raises:
            StoreError: no card, a full or read-only disk.
        """
        if CARD not in files or not _NAME.fullmatch(name):
            raise StoreError(f"{kind}/{name} cannot be stored: it needs a plain name and {CARD}")
        folder = self.root / kind / name
        for file_name in sorted(files, key=lambda n: n == CARD):
            with self._writing(folder / file_name) as target:
                target.write(files[file_name])
        return folder

    def folder(self, kind: str, name: str) -> Path | None:
        """A complete folder put there by `commit_folder`, or None."""
        folder = self.root / kind / name
        return folder if (folder / CARD).is_file() else None

    def discard(self, table: str, key: str) -> None:
        """Remove a key's rows from every part of a table."""
        for part in ["", *self.parts(table)]:
            if self._find_compacted(table, key, part) is None:
                self._path(table, key, part).unlink(missing_ok=True)
            else:  # no rows of its own supersede the compacted ones
                self.commit(table, key, TABLES[table].schema.empty_table(), "discarded", part=part)

    def sweep(self) -> None:
        """Remove temporary files whose writers are gone."""
        for path in self.orphans():
            path.unlink(missing_ok=True)

    def _put_table(self, data: pa.Table, path: Path) -> None:
        with self._writing(path) as target:
            pq.write_table(data, target, compression="zstd", write_page_checksum=True)

    @contextmanager
    def _writing(self, path: Path) -> Iterator[BinaryIO]:
        """A temporary file that takes the place of `path` at the end of the block.

        It is flocked while in work, which is how `sweep` knows an orphan: the lock of a killed
        process is gone.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            tmp, target = _claimed(self.root / _TMP)
            try:
                with target:
                    yield target
                    target.flush()
                    os.fsync(target.fileno())
                    with self._lock(fcntl.LOCK_SH):
                        tmp.replace(path)
            finally:
                tmp.unlink(missing_ok=True)
            _fsync_folder(path.parent)
        except OSError as error:
            raise StoreError(_why_not_written(self.root, path, error)) from error

    @contextmanager
    def _lock(self, kind: int) -> Iterator[None]:
        """Commits share the store; compaction has it alone while it swaps files."""
        with (self.root / _LOCK).open("ab") as lock:
            fcntl.flock(lock, kind)
            yield

    def orphans(self) -> Iterator[Path]:
        """Temporary files of killed writers, each locked against use while it is looked at."""
        for path in sorted((self.root / _TMP).glob("*.tmp")):
            try:
                with path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    yield path
            except (BlockingIOError, FileNotFoundError):
                continue  # being written, or done meanwhile

    # --- reading ----------------------------------------------------------------------------

    def find(self, table: str, key: str, *, part: str = "") -> TableRef | None:
        """What stands under a key; None where nothing does, or nothing that can be opened."""
        path = self._path(table, key, part)
        try:
            metadata = pq.read_metadata(path)
        except FileNotFoundError:
            return self._find_compacted(table, key, part)
        except (OSError, pa.ArrowException):
            return None  # torn: `verify` names it, the next run writes it anew
        facts = metadata.metadata or {}
        if facts.get(SCHEMA_TAG) != TABLES[table].tag.encode():
            return None
        fingerprint = facts.get(_FINGERPRINT, b"").decode()
        return TableRef(table, part, key, fingerprint, metadata.num_rows)

    def fresh(self, table: str, key: str, fingerprint: str, *, part: str = "") -> TableRef | None:
        """`find`, but only what was made from exactly this."""
        ref = self.find(table, key, part=part)
        return ref if ref is not None and ref.fingerprint == fingerprint else None

    def read(self, ref: TableRef, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows behind a ref.

        Raises:
            StoreError: the file is gone or does not read.
        """
        path = self._path(ref.table, ref.key, ref.part)
        if path.is_file():
            return read_file(path, columns)
        for compacted, keys in self._compacted_files(ref.table, ref.part):
            if ref.key in keys:
                return read_file(compacted, columns, pc.field("video_id") == ref.key)
        raise StoreError(f"{path} is gone: run the same command again to make it anew")

    def scan(
        self,
        table: str,
        *,
        part: str | None = None,
        keys: Iterable[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> Iterator[pa.Table]:
        """The rows of a table, one Arrow table per file, in order of part and key.

        Args:
            table: name in `schemas.TABLES`.
            part: only this part; None for all.
            keys: only these keys (video ids); None for all.
            columns: only these columns; None for all.
        """
        wanted = None if keys is None else sorted(set(keys))
        for file in self.files(table):
            if part is not None and file.part != part:
                continue
            if not file.path.name.startswith(_COMPACTED):
                if wanted is None or file.path.stem in wanted:
                    yield read_file(file.path, columns)
                continue
            keep = ~is_video(file.superseded)
            if wanted is not None:
                keep = keep & is_video(wanted)
            yield read_file(file.path, columns, keep)

    def batches(
        self, file: StoredFile, keys: Sequence[str], columns: Sequence[str], rows: int = 4096
    ) -> Iterator[pa.Table]:
        """The rows of some keys in a compacted file, few at a time however large it is.

        Args:
            file: as `files` gives it.
            keys: only these (video ids); what is superseded is left out.
            columns: only these.
            rows: a table at most.

        Raises:
            StoreError: the file is gone or does not read.
        """
        keep = is_video(keys) & ~is_video(file.superseded)
        checked_pages = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
        try:
            scanner = ds.dataset(file.path, format="parquet").scanner(
                columns=list(columns),
                filter=keep,
                batch_size=rows,
                batch_readahead=1,
                fragment_readahead=1,
                fragment_scan_options=checked_pages,
            )
            for batch in scanner.to_batches():
                yield pa.Table.from_batches([batch])
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(file.path, error) from error

    def parts(self, table: str) -> list[str]:
        """Names of a table's sub-folders."""
        folder = self._folder(table, "")
        return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []

    def keys(self, table: str, part: str = "") -> list[str]:
        """Keys that stand in one part of a table."""
        found = {file.path.stem for file in self._small_files(table, part)}
        for _, keys in self._compacted_files(table, part):
            found.update(keys)
        return sorted(found)

    def files(self, table: str) -> list[StoredFile]:
        """Every Parquet file of a table, with what in it no longer counts."""
        listed: list[StoredFile] = []
        for part in ["", *self.parts(table)]:
            small = self._small_files(table, part)
            own = {file.path.stem for file in small}
            for path, keys in self._compacted_files(table, part):
                listed.append(StoredFile(path, part, tuple(sorted(own & keys.keys()))))
                own |= keys.keys()
            listed.extend(small)
        return listed

    def _small_files(self, table: str, part: str) -> list[StoredFile]:
        folder = self._folder(table, part)
        names = sorted(folder.glob("*.parquet")) if folder.is_dir() else []
        return [StoredFile(p, part) for p in names if not p.name.startswith(_COMPACTED)]

    def _compacted_files(
        self, table: str, part: str
    ) -> list[tuple[Path, dict[str, tuple[str, int]]]]:
        """Compacted files, the newest first, each with its keys → (fingerprint, rows)."""
        if table not in COMPACTABLE:
            return []
        found = []
        for path in self._folder(table, part).glob(f"{_COMPACTED}*.parquet"):
            try:
                changed_ns = path.stat().st_mtime_ns
                known = self._compacted.get(path)
                if known is None or known[0] != changed_ns:
                    facts = pq.read_metadata(path).metadata or {}
                    keys = {k: (f, n) for k, (f, n) in json.loads(facts[_KEYS]).items()}
                    known = self._compacted[path] = (changed_ns, keys)
                found.append((known[0], path, known[1]))
            except (OSError, pa.ArrowException, KeyError, ValueError):
                continue  # torn: `verify` names it, the next run writes its videos anew
        return [(path, keys) for _, path, keys in sorted(found, reverse=True, key=lambda f: f[:2])]

    def _find_compacted(self, table: str, key: str, part: str) -> TableRef | None:
        for _, keys in self._compacted_files(table, part):
            if key in keys:
                return TableRef(table, part, key, *keys[key])
        return None

    # --- upkeep -----------------------------------------------------------------------------

    def compact(self, min_files: int = 2) -> dict[str, tuple[int, int]]:
        """Join each table's one-video files into one file per part.

        Readers of ours may go on meanwhile; a plain `read_parquet` glob sees rows twice for the
        moment of the swap.

        Args:
            min_files: leave a part with fewer own files as it is.

        Returns:
            table → files before and after.
        """
        counts: dict[str, tuple[int, int]] = {}
        for table in COMPACTABLE:
            before = len(self.files(table))
            for part in ["", *self.parts(table)]:
                if len(self._small_files(table, part)) >= min_files:
                    self._compact_part(table, part)
            if before:
                counts[table] = (before, len(self.files(table)))
        return counts

    def _compact_part(self, table: str, part: str) -> None:
        spec = TABLES[table]
        old = self._compacted_files(table, part)
        small = {file.path: file.path.stat() for file in self._small_files(table, part)}
        keys: dict[str, tuple[str, int]] = {}
        for _, known in reversed(old):
            keys.update(known)
        for path in small:
            ref = self.find(table, path.stem, part=part)
            if ref is None:
                raise StoreError(f"{path} does not open: run `vsa store verify` first")
            keys[ref.key] = (ref.fingerprint, ref.rows)
        target_path = self._folder(table, part) / f"{_COMPACTED}{uuid.uuid4().hex}.parquet"
        metadata = {
            **(spec.schema.metadata or {}),
            SCHEMA_TAG: spec.tag,
            _KEYS: json.dumps(keys, sort_keys=True),
        }
        schema = spec.schema.with_metadata(metadata)
        with (
            self._writing(target_path) as target,
            pq.ParquetWriter(
                target, schema, compression="zstd", write_page_checksum=True
            ) as writer,
        ):
            for batch in _regrouped(
                self.read(TableRef(table, part, key, *keys[key])) for key in sorted(keys)
            ):
                writer.write_table(pa.Table.from_arrays(batch.columns, schema=schema))
        with self._lock(fcntl.LOCK_EX):
            for path, seen in small.items():
                now = path.stat()
                # A file committed anew meanwhile stays, and supersedes what was just joined.
                if (now.st_ino, now.st_mtime_ns) == (seen.st_ino, seen.st_mtime_ns):
                    path.unlink()
            for path, _ in old:
                path.unlink()


def read_file(path: Path, columns: Sequence[str] | None = None, keep: Any = None) -> pa.Table:
    try:
        return pq.read_table(
            path,
            columns=None if columns is None else list(columns),
            filters=keep,
            partitioning=None,
            page_checksum_verification=True,
        )
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"{path} does not read ({_one_line(error)}): remove it and run the same command again"
    )


def is_video(video_ids: Iterable[str]) -> pc.Expression:
    return pc.field("video_id").isin(pa.array(list(video_ids), pa.string()))


def _regrouped(tables: Iterable[pa.Table], rows: int = 65_536) -> Iterator[pa.Table]:
    """The same rows in fewer, larger tables, so that row groups are worth skipping."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table.replace_schema_metadata(None))
        if sum(t.num_rows for t in held) >= rows:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


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


def _fsync_folder(folder: Path) -> None:
    """Make a rename outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _why_not_written(root: Path, path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"no space left in {root} while writing {path.relative_to(root)}: free some and run "
            "the same command again; nothing stored so far is lost"
        )
    return f"{path} cannot be written: {error.strerror or error}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
