"""What is done to a whole store: its version, rows purged, files written anew."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vsa_core.errors import StoreError
from vsa_core.schemas import TABLES, checked
from vsa_core.store.compaction import Keyed, rewrite_compacted
from vsa_core.store.current import Footers, by_part, standing
from vsa_core.store.disk import Place
from vsa_core.store.files import (
    COMPACTABLE,
    FINGERPRINT,
    KEY,
    KEY_COLUMNS,
    SCHEMA_TAG,
    StoredFile,
    gone,
    one_line,
    read_file,
    reading,
    retried,
    write_file,
)

# Rows, the tag they are of and their fingerprint → the rows and the fingerprint they have now.
Convert = Callable[[pa.Table, str, str], tuple[pa.Table, str]]

_MARK = "vsa-store.json"
_FORMAT = 2  # of names and folders; 1 had no mark
_QUARANTINE = ".quarantine"


def admit(place: Place) -> None:
    """Raises StoreError where a store was written by a newer vsa than this."""
    mark = _mark(place)
    newer = [] if mark.get("format", 0) <= _FORMAT else [f"format {mark['format']}"]
    for table, version in mark.get("tables", {}).items():
        if table in TABLES and version > TABLES[table].version:
            newer.append(f"{table}/{version}")
    if newer:
        raise _too_new(place, newer)


def mark_new(place: Place) -> None:
    """Note which versions a store begins with, at its first commit."""
    if not place.marked:
        if not _mark(place) and TABLES.keys().isdisjoint(place.folders("")):
            _put_mark(place)
        place.marked = True


def outdated(place: Place, footers: Footers) -> dict[str, list[str]]:
    """Older tags of the schema found in files, by table; see `Store.outdated`."""
    mark = _mark(place)
    now = {name: spec.version for name, spec in TABLES.items()}
    if mark.get("format") == _FORMAT and mark.get("tables") == now:
        return {}
    older: dict[str, list[str]] = {}
    for table, spec in TABLES.items():
        files = place.files(table)
        footers.read(files)
        tags = {footer.tag for file in files if (footer := footers.of(file)) is not None}
        if newer := [tag for tag in tags if _version(tag) > spec.version]:
            raise _too_new(place, newer)
        if tags := tags - {spec.tag}:
            older[table] = sorted(tags)
    if not older:
        with contextlib.suppress(StoreError):  # it may be read-only: then it is looked at again
            _put_mark(place)
    return older


def rewrite(
    place: Place,
    footers: Footers,
    table: str,
    convert: Convert,
) -> None:
    """Write files of an older version anew; see `Store.rewrite`."""
    spec = TABLES[table]

    def converted(keyed: Keyed, tag: str, where: str) -> Keyed:
        key, made_from, rows = keyed
        new, made_from = convert(rows.replace_schema_metadata(None), tag, made_from)
        new = checked(spec, new, where)
        if new.num_rows != rows.num_rows:
            raise StoreError(f"{where}: {rows.num_rows} rows became {new.num_rows} in {spec.tag}")
        return key, made_from, new

    def one(file: StoredFile) -> None:
        footer = footers.of(file)
        if footer is None or footer.tag == spec.tag:
            return
        tag, where = footer.tag, place.where(file.name)
        if file.key is None:
            rewrite_compacted(place, footers, file, lambda keyed: converted(keyed, tag, where))
        else:
            with reading(where):
                rows = read_file(place.filesystem, file.path)
            _, made_from, new = converted((file.key, footer.fingerprint, rows), tag, where)
            _replace(place, file, new, made_from)

    def whole() -> None:
        for part, listed in by_part(place.files(table)).items():
            with _alone(place, table, part):
                now = standing(place, footers, listed)
                for file in now.files:
                    one(file)
                place.remove(f.name for f in now.stale if _tag(footers, f) != spec.tag)

    retried(whole)


def purge(place: Place, footers: Footers, videos: frozenset[str]) -> dict[str, int]:
    """Remove all rows of some videos; see `Store.purge`."""
    removed: dict[str, int] = {}
    for table, spec in TABLES.items():
        if "video_id" not in spec.schema.names:
            continue
        for part in by_part(place.files(table)):
            with _alone(place, table, part):
                count = retried(partial(_purge_part, place, footers, table, part, videos))
            removed[table] = removed.get(table, 0) + count
    for table in KEY_COLUMNS:
        for part in ["", *place.folders(f"{_QUARANTINE}/{table}")]:
            folder = f"{_QUARANTINE}/{table}/{part}".rstrip("/")
            place.remove(f"{folder}/{name}" for name in place.contents(folder))
    return {table: count for table, count in removed.items() if count}


def _purge_part(
    place: Place, footers: Footers, table: str, part: str, videos: frozenset[str]
) -> int:
    by_key = KEY_COLUMNS.get(table) == "video_id"
    now = standing(place, footers, place.files(table, part))
    count = 0
    # What counts first, then what is superseded: nothing old may come to count again.
    for file, counts in [*((f, True) for f in now.files), *((f, False) for f in now.stale)]:
        footer = footers.of(file)
        if file.key is not None and by_key:
            if file.key in videos:
                count += footer.rows if counts and footer else 0
                place.remove([file.name])
        elif footer is None:
            continue
        elif file.key is not None:
            count += _purge_own(place, file, footer.fingerprint, videos, counts)
        elif footer.keys is not None and (not by_key or not videos.isdisjoint(footer.keys)):
            count += _purge_compacted(place, footers, file, videos, by_key, counts)
    for file in now.torn:
        raise StoreError(
            f"{place.where(file.name)} does not open, so that nobody knows whose rows it holds: "
            "run `vsa store verify --repair` first"
        )
    return count


def _purge_own(
    place: Place, file: StoredFile, fingerprint: str, videos: frozenset[str], counts: bool
) -> int:
    with reading(place.where(file.name)):
        rows = read_file(place.filesystem, file.path)
    kept = _without(rows, videos)
    if kept.num_rows == rows.num_rows:
        return 0
    if not counts:
        place.remove([file.name])
        return 0
    _replace(place, file, kept, fingerprint)
    return rows.num_rows - kept.num_rows


def _purge_compacted(
    place: Place,
    footers: Footers,
    file: StoredFile,
    videos: frozenset[str],
    by_key: bool,
    counts: bool,
) -> int:
    removed = 0

    def change(keyed: Keyed) -> Keyed | None:
        nonlocal removed
        key, made_from, rows = keyed
        if by_key:
            removed += rows.num_rows if key in videos else 0
            return None if key in videos else keyed
        kept = _without(rows, videos)
        removed += rows.num_rows - kept.num_rows
        return key, made_from, kept

    if not counts:
        place.remove([file.name])
        return 0
    if not by_key and not _holds(place, file, videos):
        return 0
    rewrite_compacted(place, footers, file, change)
    return removed


def _holds(place: Place, file: StoredFile, videos: frozenset[str]) -> bool:
    with reading(place.where(file.name)):
        rows = read_file(place.filesystem, file.path, ["video_id"])
    return _without(rows, videos).num_rows < rows.num_rows


def _without(rows: pa.Table, videos: frozenset[str]) -> pa.Table:
    theirs = pc.is_in(rows["video_id"], value_set=pa.array(sorted(videos), pa.string()))
    return rows.filter(pc.invert(theirs))


def _replace(place: Place, file: StoredFile, rows: pa.Table, fingerprint: str) -> None:
    """Other rows under the key and fingerprint of a file, which is removed."""
    spec = TABLES[file.table]
    key = str(file.key)
    metadata = {SCHEMA_TAG: spec.tag, KEY: key, FINGERPRINT: fingerprint}
    data = pa.Table.from_arrays(rows.columns, schema=spec.schema.with_metadata(metadata))
    made = place.commit(
        file.table,
        file.part,
        key,
        lambda out: write_file(data, out),
    )
    if made != file.name:
        place.remove([file.name])


@contextlib.contextmanager
def _alone(place: Place, table: str, part: str) -> Iterator[None]:
    """No compaction of ours meanwhile, and none that began before ends after."""
    with place.compacting():
        if table in COMPACTABLE:
            place.opened(table, part)
        yield


def _tag(footers: Footers, file: StoredFile) -> str | None:
    footer = footers.of(file)
    return None if footer is None else footer.tag


def _version(tag: str) -> int:
    number = tag.rpartition("/")[2]
    return int(number) if number.isdigit() else 0


def _mark(place: Place) -> dict[str, Any]:
    try:
        found = json.loads(place.read(_MARK))
    except ValueError:
        return {}
    except OSError as error:
        if gone(error):
            return {}
        raise StoreError(
            f"{place.where(_MARK)} does not read ({one_line(error)}): see to the network and the "
            "permissions, and run the same command again"
        ) from error
    return found if isinstance(found, dict) else {}


def _put_mark(place: Place) -> None:
    mark = {"format": _FORMAT, "tables": {name: spec.version for name, spec in TABLES.items()}}
    place.put(_MARK, lambda out: out.write(json.dumps(mark, indent=1).encode() + b"\n"))


def _too_new(place: Place, tags: list[str]) -> StoreError:
    return StoreError(
        f"{place.location} was written by a newer vsa ({', '.join(sorted(tags))}): update vsa"
    )
