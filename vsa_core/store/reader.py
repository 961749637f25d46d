"""What a store is asked: what stands under a key, and the rows of a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as fs

from vsa_core.errors import StoreError
from vsa_core.schemas import TABLES
from vsa_core.store import upkeep
from vsa_core.store.current import Footers, Standing, by_part, holder_of, pieces, ref_of, standing
from vsa_core.store.disk import Disk
from vsa_core.store.files import (
    APPEND_ONLY,
    CARD,
    FileGoneError,
    StoredFile,
    TableRef,
    plain_name,
    read_file,
    reading,
    retried,
)
from vsa_core.store.objects import place_of

_TRIES = 50


class Reader:
    """A store, read only; see `Store`."""

    def __init__(self, root: str | Path) -> None:
        self._place = place_of(str(root))
        self.location = self._place.location
        self.filesystem: fs.FileSystem = self._place.filesystem
        self._footers = Footers(self._place)
        self._admitted = False

    def __reduce__(self) -> tuple[type[Reader], tuple[str]]:
        return type(self), (self.location,)

    # --- names ------------------------------------------------------------------------------

    @property
    def root(self) -> Path:
        """The folder of a local store.

        Raises:
            StoreError: it is no local one.
        """
        if not isinstance(self._place, Disk):
            raise StoreError(f"{self.location} is no folder of this machine")
        return self._place.root

    @staticmethod
    def part_of(backend_id: str) -> str:
        """The folder name of a backend's part of a table."""
        return re.sub(r"[^A-Za-z0-9._-]", "-", backend_id)

    @property
    def exists(self) -> bool:
        """Whether anything was ever committed here."""
        return not TABLES.keys().isdisjoint(self._place.folders(""))

    def where(self, file: StoredFile) -> str:
        """The path or URL of a file, for people."""
        return self._place.where(file.name)

    def _named(self, table: str, part: str, key: str = "x") -> None:
        if table not in TABLES:
            raise StoreError(f"no table is named {table!r}; there are: {', '.join(TABLES)}")
        if part and not plain_name(part):
            raise StoreError(f"{part!r} cannot name a part of table {table}")
        if not plain_name(key):
            raise StoreError(f"{key!r} cannot be a key of table {table}")
        if not self._admitted:
            upkeep.admit(self._place)
            self._admitted = True

    def find(self, table: str, key: str, *, part: str = "") -> TableRef | None:
        """What stands under a key; None where nothing does, or nothing that can be opened."""
        self._named(table, part, key)
        return retried(lambda: self._find(table, part, key)[1])

    def _find(self, table: str, part: str, key: str) -> tuple[StoredFile | None, TableRef | None]:
        """The file that holds a key, and what it holds of it."""
        holder = None
        if isinstance(self._place, Disk) and table not in APPEND_ONLY:
            holder = self._place.own(table, part, key)
        if holder is None:
            listed = self._place.around(table, part, key)
            holder = holder_of(self._place, self._footers, listed, key)
        if holder is None:
            return None, None
        return holder, ref_of(holder, self._footers.of(holder), key)

    def fresh(self, table: str, key: str, fingerprint: str, *, part: str = "") -> TableRef | None:
        """`find`, but only what was made from exactly this."""
        ref = self.find(table, key, part=part)
        return ref if ref is not None and ref.fingerprint == fingerprint else None

    def refs(self, table: str, part: str = "") -> dict[str, TableRef]:
        """What stands under every key of one part: one listing, and each footer read once.

        Keys whose file is torn or of another version of the schema are left out.
        """
        self._named(table, part)

        def listed() -> dict[str, TableRef]:
            now = self._standing(table, part)
            self._footers.read(now.files)
            found = {
                key: ref_of(file, self._footers.of(file), key) for key, file in now.holder.items()
            }
            return {key: ref for key in sorted(found) if (ref := found[key]) is not None}

        return retried(listed)

    def read(self, ref: TableRef, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows behind a ref.

        Raises:
            StoreError: the file is gone or does not read.
        """
        self._named(ref.table, ref.part, ref.key)

        def rows() -> pa.Table:
            holder, _ = self._find(ref.table, ref.part, ref.key)
            if holder is None:
                where = f"{ref.table}/{ref.part}/{ref.key}".replace("//", "/")
                raise StoreError(
                    f"{self._place.where(where)} is gone: run the same command again to make it "
                    "anew"
                )
            return pa.concat_tables([t for _, t in self._rows(holder, {ref.key}, columns)])

        return retried(rows)

    def scan(
        self,
        table: str,
        *,
        part: str | None = None,
        keys: Iterable[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> Iterator[pa.Table]:
        """The rows of a table in Arrow tables of many sizes, in order of part.

        Args:
            table: name in `schemas.TABLES`.
            part: only this part; None for all.
            keys: only these keys (video ids); None for all.
            columns: only these columns; None for all.
        """
        for _, rows in self.pieces(table, part=part, keys=keys, columns=columns):
            yield rows

    def pieces(
        self,
        table: str,
        *,
        part: str | None = None,
        keys: Iterable[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> Iterator[tuple[tuple[str, ...], pa.Table]]:
        """`scan`, with the keys that each table holds all rows of, in the order of its rows."""
        self._named(table, part or "")
        wanted = None if keys is None else set(keys)
        done: set[tuple[str, str]] = set()
        for _ in range(_TRIES):
            try:
                for found, now in self._parts_standing(table, part).items():
                    for file in now.files:
                        held = [file.key] if file.key else self._held(file)
                        ours = {
                            key
                            for key in held
                            if (found, key) not in done and (wanted is None or key in wanted)
                        }
                        for whole, rows in self._rows(file, ours, columns) if ours else ():
                            done.update((found, key) for key in whole)
                            yield whole, rows
                return
            except FileGoneError:
                continue  # compacted or replaced meanwhile: what was not given yet lies elsewhere
        raise StoreError(f"{self.location}: {table} changes too fast to be read: try again later")

    def parts(self, table: str) -> list[str]:
        """Names of a table's sub-folders."""
        self._named(table, "")
        return [name for name in self._place.folders(table) if plain_name(name)]

    def keys(self, table: str, part: str = "") -> list[str]:
        """Keys that stand in one part of a table."""
        self._named(table, part)
        return retried(lambda: sorted(self._standing(table, part).holder))

    def files(self, table: str) -> list[StoredFile]:
        """Every Parquet file of a table that counts, with what in it no longer does."""
        self._named(table, "")

        def counting() -> list[StoredFile]:
            found: list[StoredFile] = []
            for listed in by_part(self._place.files(table, None)).values():
                # Nothing can supersede what is in an only file: its footer need not be read.
                if len(listed) == 1:
                    found += listed
                else:
                    found += standing(self._place, self._footers, listed).files
            return found

        return retried(counting)

    def _standing(self, table: str, part: str) -> Standing:
        return standing(self._place, self._footers, self._place.files(table, part))

    def _parts_standing(self, table: str, part: str | None) -> dict[str, Standing]:
        return {
            found: standing(self._place, self._footers, listed)
            for found, listed in by_part(self._place.files(table, part)).items()
        }

    def _keys_in(self, file: StoredFile) -> list[str]:
        """The keys of a compacted file."""
        footer = self._footers.of(file)
        return list(footer.keys) if footer is not None and footer.keys is not None else []

    def _held(self, file: StoredFile) -> list[str]:
        """The keys of a compacted file that count."""
        hidden = set(file.superseded)
        return [key for key in self._keys_in(file) if key not in hidden]

    def rows_of(self, file: StoredFile, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows of one file that count, in bounded tables.

        Raises:
            FileGoneError: it was replaced since it was listed.
            StoreError: it does not read.
        """
        if file.key is None and self.tag(file) is None:
            raise StoreError(f"{self.where(file)} does not read (its footer is torn)")
        keys = {file.key} if file.key is not None else set(self._held(file))
        for _, rows in self._rows(file, keys, columns):
            yield rows

    def _rows(
        self, file: StoredFile, keys: set[str], columns: Sequence[str] | None
    ) -> Iterator[tuple[tuple[str, ...], pa.Table]]:
        with reading(self._place.where(file.name)):
            if file.key is not None:
                yield (file.key,), read_file(self.filesystem, file.path, columns)
                return
            footer = self._footers.of(file)
            if footer is not None and footer.keys is not None:
                with self.filesystem.open_input_file(file.path) as source:
                    yield from pieces(source, footer, keys, columns)

    def every_file(self, table: str) -> list[StoredFile]:
        """Every Parquet file of a table, also those that do not open or count for nothing."""
        self._named(table, "")
        return self._place.files(table)

    def tag(self, file: StoredFile) -> str | None:
        """The version of the schema that a file is written in; None where it does not open."""
        footer = self._footers.of(file)
        return None if footer is None else footer.tag

    def folder(self, kind: str, name: str) -> str | None:
        """Where a complete folder put there by `commit_folder` lies, or None."""
        if not plain_name(name) or CARD not in self._place.contents(f"{kind}/{name}"):
            return None
        return self._place.where(f"{kind}/{name}")

    def folders(self, kind: str) -> list[str]:
        """Names of the complete folders of a kind."""
        return [name for name in self._place.folders(kind) if self.folder(kind, name)]

    def unfinished_folders(self, kind: str) -> list[str]:
        """Names of the folders of a kind whose writer was killed."""
        return [name for name in self._place.folders(kind) if not self.folder(kind, name)]

    def read_folder(self, kind: str, name: str, file: str) -> bytes:
        """The contents of a folder's file.

        Raises:
            StoreError: it is not there, or does not read.
        """
        with reading(self._place.where(f"{kind}/{name}/{file}")):
            return self._place.read(f"{kind}/{name}/{file}")

    def orphans(self) -> Iterator[str]:
        """Temporary files of killed writers, each locked against use while it is looked at."""
        for name in self._place.orphans():
            yield self._place.where(name)
