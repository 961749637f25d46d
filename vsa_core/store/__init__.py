"""The Parquet store: checked atomic commits, lookups by fingerprint, scans, compaction.

One file per key, put whole and never changed in place, so a reader sees the old rows or the new
ones and a killed writer leaves at most a temporary file that the next run sweeps away. A file
carries the fingerprint of what it was made from; a stage whose output stands with the same
fingerprint has nothing to do. The files lie in a folder (`disk.py`) or a bucket (`objects.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import BinaryIO

import pyarrow as pa

from vsa_core.errors import StoreError
from vsa_core.schemas import TABLES, checked
from vsa_core.store import upkeep
from vsa_core.store.compaction import compact_part
from vsa_core.store.current import by_part, holder_of, ref_of, standing
from vsa_core.store.files import (
    APPEND_ONLY,
    CARD,
    COMPACTABLE,
    FINGERPRINT,
    KEY,
    SCHEMA_TAG,
    FileGoneError,
    StoredFile,
    TableRef,
    UnreachableError,
    plain_name,
    retried,
    write_file,
)
from vsa_core.store.reader import Reader

__all__ = [
    "CARD",
    "COMPACTABLE",
    "FileGoneError",
    "Store",
    "StoredFile",
    "TableRef",
    "UnreachableError",
]


class Store(Reader):
    """A folder of Parquet tables, on a local disk or in an object store.

    Args:
        root: a folder, or a URL such as `s3://bucket/folder`; made at the first commit.

    Attributes:
        location: absolute folder or URL, as errors name it.
        filesystem: opens `StoredFile.path`.
    """

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
                probabilities that do not sum to 1, an id that repeats, a full or read-only disk,
                a bucket that cannot be reached, other rows for a key of an append-only table.
        """
        self._named(table, part, key)
        spec = TABLES[table]
        rows = checked(spec, data, where=f"{table}/{key}")
        if table in APPEND_ONLY and (stood := self._appended(table, part, key)) is not None:
            if (stood.fingerprint, stood.rows) == (fingerprint, rows.num_rows):
                return stood
            raise StoreError(
                f"{table}/{key} stands with other rows, and {table} is append-only: give the "
                "new rows a key of their own"
            )
        upkeep.mark_new(self._place)
        metadata = {SCHEMA_TAG: spec.tag, KEY: key, FINGERPRINT: fingerprint}
        rows = rows.replace_schema_metadata(metadata)
        self._place.commit(
            table,
            part,
            key,
            lambda out: write_file(rows, out),
        )
        return TableRef(table, part, key, fingerprint, rows.num_rows)

    def _appended(self, table: str, part: str, key: str) -> TableRef | None:
        """What a compacted file of an append-only table holds of a key."""
        holder = retried(
            lambda: holder_of(self._place, self._footers, self._place.around(table, part, key), key)
        )
        if holder is None or not holder.compacted:
            return None
        return ref_of(holder, self._footers.of(holder), key)

    def commit_folder(self, kind: str, name: str, files: Mapping[str, bytes]) -> str:
        """Put a folder of files (a model and its card) in place; the card is written last.

        Args:
            kind: e.g. `models`.
            name: the folder's name.
            files: contents by name; one of them `card.json`, whose presence means complete.

        Returns:
            its path or URL.

        Raises:
            StoreError: no card, a full or read-only disk.
        """
        if CARD not in files or not plain_name(name):
            raise StoreError(f"{kind}/{name} cannot be stored: it needs a plain name and {CARD}")
        stood = self.folder(kind, name) is not None
        try:
            for file_name in sorted(files, key=lambda n: n == CARD):
                self._place.put(f"{kind}/{name}/{file_name}", partial(_write, files[file_name]))
        except StoreError:
            if not stood:
                self.remove_folder(kind, name)
            raise
        return self._place.where(f"{kind}/{name}")

    def remove_folder(self, kind: str, name: str) -> None:
        """Remove a folder, its card first, so that it is never taken for complete."""
        found = self._place.contents(f"{kind}/{name}")
        for file_name in sorted(found, key=lambda n: n != CARD):
            self._place.remove([f"{kind}/{name}/{file_name}"])
        self._place.remove_folder(f"{kind}/{name}")

    def discard(self, table: str, key: str, *, part: str | None = None) -> None:
        """Remove a key's rows from one part of a table, or from every part."""
        self._named(table, part or "", key)
        if part is None:
            for own in ["", *self.parts(table)]:
                self.discard(table, key, part=own)
            return

        def look() -> tuple[list[StoredFile], bool]:
            listed = self._place.around(table, part, key)
            now = standing(self._place, self._footers, listed)
            compacted = [file for file in (*now.files, *now.stale) if file.compacted]
            return listed, any(key in self._keys_in(file) for file in compacted)

        listed, joined = retried(look)
        if joined:  # no rows of its own supersede the compacted ones
            self.commit(table, key, TABLES[table].schema.empty_table(), "discarded", part=part)
        else:
            self._place.remove([file.name for file in listed if file.key == key])

    def sweep(self) -> None:
        """Remove temporary files whose writers are gone."""
        for name in self._place.orphans():
            self._place.remove([name])

    # --- upkeep -----------------------------------------------------------------------------

    def compact(self, min_files: int = 2) -> dict[str, tuple[int, int]]:
        """Join small files into large ones, part by part.

        Readers and writers of ours may go on meanwhile; a plain `read_parquet` glob sees rows
        twice for the moment of the swap.

        Args:
            min_files: leave a part with fewer files of one key as it is.

        Returns:
            table → files before and after.

        Raises:
            StoreError: a file does not read, the disk is full, another compaction is going on;
                what stood before stands, and counts, as it did.
        """
        counts: dict[str, tuple[int, int]] = {}
        for table in COMPACTABLE:
            self._named(table, "")
            before = by_part(self._place.files(table))
            for part in before:
                compact_part(self._place, self._footers, table, part, min_files)
            if before:
                after = self._place.files(table)
                counts[table] = (sum(map(len, before.values())), len(after))
        return counts

    def purge(self, video_ids: Iterable[str]) -> dict[str, int]:
        """Remove all rows of some videos from every table, and every file that held them.

        Tables without a `video_id` stay as they are. Cut short, the same call goes on with it.

        Returns:
            table → rows removed.

        Raises:
            StoreError: a file does not read, the disk is full, a compaction is going on.
        """
        self._named("videos", "")
        return upkeep.purge(self._place, self._footers, frozenset(video_ids))

    def outdated(self) -> dict[str, list[str]]:
        """Older versions of the schema that files are written in: table → tags.

        Raises:
            StoreError: the store was written by a newer vsa.
        """
        self._named("videos", "")
        return retried(lambda: upkeep.outdated(self._place, self._footers))

    def rewrite(self, table: str, convert: upkeep.Convert) -> None:
        """Write every file of a table that is of an older version anew, one after the other.

        Args:
            table: name in `schemas.TABLES`.
            convert: rows, the tag they are of and their fingerprint → the same rows as the schema
                has them now, and their fingerprint.

        Raises:
            StoreError: a file does not read, or what becomes of it is not the table's schema.
        """
        self._named(table, "")
        upkeep.rewrite(self._place, self._footers, table, convert)

    def quarantine(self, file: StoredFile) -> str:
        """Put a file aside, into `.quarantine/` of the store; returns its new path or URL."""
        return self._place.quarantine(file.name)


def _write(contents: bytes, target: BinaryIO) -> None:
    target.write(contents)
