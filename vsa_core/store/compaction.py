"""Joining many small files into few large ones, in bounded memory, while others read and write."""

from __future__ import annotations

import heapq
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from vsa_core.errors import StoreError
from vsa_core.schemas import TABLES, TableSpec
from vsa_core.store.current import Footers, pieces, standing
from vsa_core.store.disk import Disk, Place
from vsa_core.store.files import (
    APPEND_ONLY,
    FINGERPRINT,
    KEYS,
    SCHEMA_TAG,
    FileGoneError,
    StoredFile,
    as_written,
    does_not_read,
    read_file,
    reading,
)

# A compacted file beyond this is left alone until most of it is superseded.
_LARGE_BYTES = 256 << 20
_GROUP_ROWS = 65_536
_GROUP_BYTES = 64 << 20
_HELD = 256
_AHEAD = 32  # small objects fetched ahead
_TRIES = 20

# A key, what its rows were made from, and the rows.
Keyed = tuple[str, str, pa.Table]


def compact_part(
    place: Place, footers: Footers, table: str, part: str, min_files: int, large: int = _LARGE_BYTES
) -> None:
    """Join the files of one part of a table.

    Files that do not open or are of another version stay as they are.

    Args:
        place: where they lie.
        footers: of its files.
        table, part: which.
        min_files: leave a part with fewer files of one key.
        large: a compacted file of so many bytes is only rewritten when most of it is superseded.

    Raises:
        StoreError: a file does not read, the disk is full, another compaction is going on.
    """
    if not _worth_it(place, footers, table, part, min_files, large):
        return
    with place.compacting():
        generation = place.opened(table, part)
        for _ in range(_TRIES):
            made = name_of(table, part, generation)
            try:
                now = standing(place, footers, place.files(table, part))
                torn = {file.name for file in now.torn}
                chosen = [f for f in _chosen(footers, now.files, large) if f.name not in torn]
                rows = _merged(place, footers, chosen)
                place.put(made, partial(write_rows, TABLES[table], rows))
            except FileGoneError:
                continue  # one was replaced since it was listed
            kept = {f.name for f in now.files if f.compacted and f not in chosen}
            # What a file that stays supersedes is only stale as long as that one stands: another
            # compaction may have withdrawn it.
            sure = kept <= {file.name for file in place.files(table, part)}
            place.swap([*chosen, *now.stale] if sure else chosen, made)
            return
    raise StoreError(
        f"{place.where(table)}: its files change too fast to be joined: try again later"
    )


def rewrite_compacted(
    place: Place, footers: Footers, file: StoredFile, change: Callable[[Keyed], Keyed | None]
) -> None:
    """Put a compacted file in the place of one, with other rows.

    Args:
        place: where it lies.
        footers: of its files.
        file: which.
        change: what becomes of a key's rows and fingerprint; None leaves the key out.
    """
    made = name_of(file.table, file.part, file.generation)

    def changed() -> Iterator[Keyed]:
        for keyed in keyed_rows(place, footers, file, file.table in APPEND_ONLY):
            if (new := change(keyed)) is not None:
                yield new

    place.put(made, lambda out: write_rows(TABLES[file.table], changed(), out))
    place.remove([file.name])


def keyed_rows(
    place: Place, footers: Footers, file: StoredFile, all_keys: bool = False
) -> Iterator[Keyed]:
    """The rows of a compacted file key by key, in its order, without what is superseded.

    Raises:
        FileGoneError: it is gone.
        StoreError: it does not read.
    """
    footer = footers.of(file)
    if footer is None or footer.keys is None:
        raise does_not_read(place.where(file.name), OSError("it ends within its data"))
    wanted = set(footer.keys) - (set() if all_keys else set(file.superseded))
    empty = [key for key in footer.keys if key in wanted and not footer.keys[key][1]]
    for key in empty:
        yield key, footer.keys[key][0], TABLES[file.table].schema.empty_table()
    with reading(place.where(file.name)), place.filesystem.open_input_file(file.path) as source:
        for keys, rows in pieces(source, footer, wanted - set(empty), None):
            at = 0
            for key in keys:
                fingerprint, count = footer.keys[key]
                yield key, fingerprint, rows.slice(at, count)
                at += count


def write_rows(spec: TableSpec, keyed: Iterable[Keyed], target: BinaryIO) -> None:
    """A compacted file: large row groups that end where a key's rows end."""
    schema = spec.schema.with_metadata({SCHEMA_TAG: spec.tag})
    written = as_written(schema)
    keys: dict[str, tuple[str, int]] = {}
    with pq.ParquetWriter(target, written, compression="zstd", write_page_checksum=True) as writer:
        for group in _grouped(keyed, keys):
            writer.write_table(
                pa.Table.from_arrays(group.columns, schema=schema).cast(written),
                row_group_size=group.num_rows,
            )
        empty = {key: known for key, known in keys.items() if not known[1]}
        full = {key: known for key, known in keys.items() if known[1]}
        writer.add_key_value_metadata({KEYS.decode(): json.dumps({**full, **empty})})


def name_of(table: str, part: str, generation: int) -> str:
    """A new name for a compacted file."""
    folder = f"{table}/{part}" if part else table
    return f"{folder}/part-{generation:08d}-{uuid.uuid4().hex[:8]}.parquet"


def _worth_it(
    place: Place, footers: Footers, table: str, part: str, min_files: int, large: int
) -> bool:
    for _ in range(_TRIES):
        try:
            now = standing(place, footers, place.files(table, part))
            small = [file for file in (*now.files, *now.stale) if not file.compacted]
            if len(small) < min_files:
                return False
            chosen = _chosen(footers, now.files, large)
        except FileGoneError:
            continue
        return len(chosen) > 1 or any(f.superseded for f in chosen) or bool(now.stale)
    return False


def _chosen(footers: Footers, files: Sequence[StoredFile], large: int) -> list[StoredFile]:
    """What is worth joining, and can be."""
    chosen = []
    footers.read(files)
    for file in files:
        footer = footers.of(file)
        if footer is None or footer.tag != TABLES[file.table].tag:
            continue
        if footer.keys is not None and file.size >= large:
            gone = sum(footer.keys[key][1] for key in file.superseded)
            if 2 * gone <= footer.rows:
                continue
        chosen.append(file)
    return chosen


def _merged(place: Place, footers: Footers, files: Sequence[StoredFile]) -> Iterator[Keyed]:
    """The rows of all files in order of their keys."""
    compacted = [file for file in files if file.compacted]
    small = sorted((f for f in files if f.key is not None), key=lambda file: str(file.key))
    full = [(k for k in keyed_rows(place, footers, f) if k[2].num_rows) for f in compacted]
    yield from heapq.merge(_read_all(place, small), *full, key=lambda keyed: keyed[0])
    for file in compacted:
        footer = footers.of(file)
        for key, (fingerprint, rows) in (footer.keys or {} if footer else {}).items():
            if not rows and key not in file.superseded:
                yield key, fingerprint, TABLES[file.table].schema.empty_table()


def _read_all(place: Place, files: Sequence[StoredFile]) -> Iterator[Keyed]:
    """Small files, those of an object store some ahead of their use."""

    def read(file: StoredFile) -> Keyed:
        with reading(place.where(file.name)):
            data = read_file(place.filesystem, file.path)
        fingerprint = (data.schema.metadata or {}).get(FINGERPRINT, b"").decode()
        return str(file.key), fingerprint, data

    if isinstance(place, Disk):
        yield from map(read, files)
        return
    waiting = iter(files)
    with ThreadPoolExecutor(_AHEAD) as threads:
        running: list[Any] = [threads.submit(read, file) for file in islice(waiting, _AHEAD)]
        while running:
            yield running.pop(0).result()
            running.extend(threads.submit(read, file) for file in islice(waiting, 1))


def _grouped(keyed: Iterable[Keyed], keys: dict[str, tuple[str, int]]) -> Iterator[pa.Table]:
    """The same rows in few tables of whole keys; notes the keys on the way."""
    held: list[pa.Table] = []
    rows = size = 0
    for key, fingerprint, data in keyed:
        keys[key] = (fingerprint, data.num_rows)
        if not data.num_rows:
            continue
        if held and (rows + data.num_rows > _GROUP_ROWS or size + data.nbytes > _GROUP_BYTES):
            yield pa.concat_tables(held)
            held, rows, size = [], 0, 0
        held.append(data.replace_schema_metadata(None))
        if len(held) == _HELD:  # a small table takes far more memory than its rows
            held = [pa.concat_tables(held).combine_chunks()]
        rows += data.num_rows
        size += data.nbytes
    if held:
        yield pa.concat_tables(held)
