"""Which files of a table count, and for which keys, when several hold the same one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vsa_core.schemas import TABLES
from vsa_core.store.disk import Disk, Place
from vsa_core.store.files import (
    APPEND_ONLY,
    FileGoneError,
    Footer,
    StoredFile,
    TableRef,
    TornFileError,
    as_read,
    does_not_read,
    gone,
    read_footer,
)

# Above every generation: on a disk a plain name is what was written last.
_LAST = 1 << 62
_AT_ONCE = 16


class Footers:
    """What files say of themselves, each read once.

    Args:
        place: where they lie.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._known: dict[str, tuple[tuple[int, ...], Footer | TornFileError]] = {}

    def of(self, file: StoredFile) -> Footer | None:
        """A file's; None where it is torn.

        Raises:
            FileGoneError: it is gone.
            StoreError: it cannot be reached.
        """
        found = self._read(file)
        return None if isinstance(found, TornFileError) else found

    def read(self, files: Sequence[StoredFile]) -> None:
        """Read those of many files side by side; what is gone is left out."""
        missing = [file for file in files if not self._has(file)]
        # A disk answers before a thread would have begun.
        if len(missing) < 2 or isinstance(self._place, Disk):
            for file in missing:
                self._try(file)
        else:
            with ThreadPoolExecutor(_AT_ONCE) as threads:
                list(threads.map(self._try, missing))

    def _has(self, file: StoredFile) -> bool:
        known = self._known.get(file.name)
        return known is not None and known[0] == file.stamp

    def _try(self, file: StoredFile) -> None:
        try:
            self._read(file)
        except FileGoneError:
            return

    def _read(self, file: StoredFile) -> Footer | TornFileError:
        known = self._known.get(file.name)
        if known is not None and known[0] == file.stamp:
            return known[1]
        found: Footer | TornFileError
        try:
            found = read_footer(self._place.filesystem, file.path)
            if file.compacted and found.keys is None:
                found = TornFileError("it names no keys")
        except TornFileError as error:
            found = error
        except OSError as error:
            if gone(error) or not isinstance(self._place, Disk):
                raise does_not_read(self._place.where(file.name), error, reached=False) from error
            found = TornFileError(str(error))
        self._known[file.name] = (file.stamp, found)
        return found


@dataclass(slots=True)
class Standing:
    """The files of one part of a table.

    Attributes:
        files: those that count, compacted ones first, each with what in it does not.
        stale: those whose every row another file supersedes.
        torn: those that do not open.
        holder: key → the file that holds it, unless that one is torn.
    """

    files: list[StoredFile] = field(default_factory=list)
    stale: list[StoredFile] = field(default_factory=list)
    torn: list[StoredFile] = field(default_factory=list)
    holder: dict[str, StoredFile] = field(default_factory=dict)


def standing(place: Place, footers: Footers, listed: Iterable[StoredFile]) -> Standing:
    """What counts among the files of one part of a table.

    Raises:
        FileGoneError: one was replaced since it was listed.
    """
    found = Standing()
    own: dict[str, StoredFile] = {}
    compacted = []
    on_disk = isinstance(place, Disk)
    for file in listed:
        if file.key is None:
            compacted.append(file)
            continue
        other = own.get(file.key)
        if other is None:
            own[file.key] = file
        else:
            loser, own[file.key] = sorted((other, file), key=lambda f: _order(f, on_disk))
            found.stale.append(loser)
    footers.read(compacted)
    taken: set[str] = set()
    for file in sorted(compacted, key=_age, reverse=True):
        footer = footers.of(file)
        if footer is None or footer.keys is None:
            found.torn.append(file)
            continue
        if file.table in APPEND_ONLY:
            for key in footer.keys.keys() & own.keys():
                found.stale.append(own.pop(key))
            superseded: list[str] = []
            stale = taken.issuperset(footer.keys)
        else:
            superseded = []
            for key in footer.keys:
                newer = own.get(key)
                if key in taken or (newer is not None and _generation(newer) >= file.generation):
                    superseded.append(key)
                elif newer is not None:
                    found.stale.append(own.pop(key))
            stale = len(superseded) == len(footer.keys)
        if stale and footer.keys:
            found.stale.append(file)
            continue
        kept = replace(file, superseded=tuple(sorted(superseded))) if superseded else file
        found.files.append(kept)
        hidden = set(superseded)
        found.holder.update((key, kept) for key in footer.keys if key not in hidden)
        taken.update(key for key in footer.keys if key not in hidden)
    found.files.extend(own[key] for key in sorted(own))
    found.holder.update(own)
    return found


def holder_of(
    place: Place, footers: Footers, listed: Iterable[StoredFile], key: str
) -> StoredFile | None:
    """The file that holds one key, as `standing` has it.

    Raises:
        FileGoneError: one was replaced since it was listed.
    """
    files = list(listed)
    on_disk = isinstance(place, Disk)
    own = max((f for f in files if f.key == key), key=lambda f: _order(f, on_disk), default=None)
    for file in sorted((f for f in files if f.compacted), key=_age, reverse=True):
        footer = footers.of(file)
        if footer is not None and footer.keys is not None and key in footer.keys:
            newer = own is not None and _generation(own) >= file.generation
            return own if newer and file.table not in APPEND_ONLY else file
    return own


def by_part(listed: Iterable[StoredFile]) -> dict[str, list[StoredFile]]:
    """The files of each part of a table, in order of the parts."""
    parts: dict[str, list[StoredFile]] = {}
    for file in listed:
        parts.setdefault(file.part, []).append(file)
    return dict(sorted(parts.items()))


def ref_of(file: StoredFile, footer: Footer | None, key: str) -> TableRef | None:
    """What a file holds of a key; None where it is torn or of another version."""
    if footer is None or footer.tag != TABLES[file.table].tag:
        return None
    if footer.keys is None:
        return TableRef(file.table, file.part, key, footer.fingerprint, footer.rows)
    return TableRef(file.table, file.part, key, *footer.keys[key])


def pieces(
    source: Any, footer: Footer, wanted: set[str], columns: Sequence[str] | None
) -> Iterator[tuple[tuple[str, ...], pa.Table]]:
    """The rows of some keys of a compacted file, a row group at a time.

    The rows lie key by key in the order of the footer's keys. A key's rows come in one piece.

    Args:
        source: an open file.
        footer: of it.
        wanted: only these keys.
        columns: only these; None for all.

    Raises:
        OSError, ArrowException: it does not read.
    """
    file = pq.ParquetFile(source, page_checksum_verification=True)
    names = None if columns is None else list(columns)
    keys, starts = footer.keys or {}, footer.starts
    ends = [(key, starts[key], starts[key] + keys[key][1]) for key in wanted & keys.keys()]
    ends.sort(key=lambda span: span[1])
    nothing = tuple(key for key, first, last in ends if first == last)
    ends = [span for span in ends if span[1] < span[2]]
    if nothing:
        yield nothing, _empty(file, names)
    start, rest, at = 0, None, 0  # `rest`: the first rows of a key that goes on in the next group
    for group in range(file.num_row_groups):
        stop = start + file.metadata.row_group(group).num_rows
        mine: list[tuple[str, int, int]] = []
        while at < len(ends) and ends[at][2] <= stop:
            mine.append(ends[at])
            at += 1
        partly = at < len(ends) and ends[at][1] < stop
        if mine or partly:
            data = as_read(file.read_row_group(group, columns=names, use_threads=False))
            if mine:
                slices = [
                    _cut(data, max(first, start) - start, last - max(first, start))
                    for first, last in _joined(mine)
                ]
                whole = slices if rest is None else [rest, *slices]
                rest = None
                yield tuple(key for key, _, _ in mine), pa.concat_tables(whole)
            if partly:
                first = max(ends[at][1], start) - start
                tail = _cut(data, first, data.num_rows - first)
                rest = tail if rest is None else pa.concat_tables([rest, tail])
        start = stop


def _cut(data: pa.Table, first: int, rows: int) -> pa.Table:
    """Some rows; few are copied, for a slice holds all of what it was cut from."""
    if 2 * rows > data.num_rows:
        return data.slice(first, rows)
    return data.take(pa.array(np.arange(first, first + rows)))


def _joined(spans: Iterable[tuple[str, int, int]]) -> list[tuple[int, int]]:
    """Neighbouring spans of rows as one."""
    joined: list[tuple[int, int]] = []
    for _, first, last in spans:
        if joined and joined[-1][1] == first:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined


def _empty(file: pq.ParquetFile, names: Sequence[str] | None) -> pa.Table:
    schema = file.schema_arrow
    if names is not None:
        schema = pa.schema([schema.field(name) for name in names], schema.metadata)
    return as_read(schema.empty_table())


def _order(file: StoredFile, on_disk: bool) -> tuple[int, str]:
    """A plain name is the newest on a disk; among objects it is what was copied there first."""
    return (_LAST, "") if on_disk and file.epoch is None else file.rank


def _generation(file: StoredFile) -> int:
    return _LAST if file.epoch is None else file.epoch


def _age(file: StoredFile) -> tuple[int, int, str]:
    """Orders compacted files; those without a generation by the time they were written."""
    changed = file.stamp[0] if file.generation == 0 and file.stamp else 0
    return (file.generation, changed, file.name)
