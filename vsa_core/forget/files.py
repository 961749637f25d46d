"""A store file by file: rows changed for good, and every name there is, whatever wrote it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pyarrow as pa
import pyarrow.fs as fs

from vsa_core.errors import StoreError
from vsa_core.schemas import TABLES, checked
from vsa_core.store import Store
from vsa_core.store.compaction import rewrite_compacted
from vsa_core.store.current import Footers, by_part, standing
from vsa_core.store.disk import Place
from vsa_core.store.files import StoredFile, read_file, reading, retried
from vsa_core.store.objects import place_of

Change = Callable[[pa.Table], pa.Table]
_QUARANTINE = ".quarantine"


def edit(store: Store, table: str, change: Change) -> None:
    """Change rows of a table and leave no file behind that held the old ones.

    A file whose rows stay as they are is not touched, and one that has none left is removed.
    Unlike `Store.purge` it is for rows that no `video_id` names.

    Args:
        store: whose.
        table: name in `schemas.TABLES`.
        change: rows → what becomes of them; some may go.

    Raises:
        StoreError: a file does not read, the disk is full, a compaction is going on.
    """
    place = place_of(store.location)
    footers = Footers(place)
    for part in by_part(place.files(table)):
        with place.compacting():
            place.opened(table, part)  # a compaction that began before cannot end after this
            retried(partial(_edit_part, store, place, footers, table, part, change))
        if part and not place.files(table, part):
            place.remove_folder(f"{table}/{part}")  # it may be named after a channel


def _edit_part(
    store: Store, place: Place, footers: Footers, table: str, part: str, change: Change
) -> None:
    now = standing(place, footers, place.files(table, part))
    for file in now.torn:
        raise StoreError(
            f"{place.where(file.name)} does not open, so that nobody knows whose rows it holds: "
            "run `vsa store verify --repair` first"
        )
    for file in now.files:
        _edit_file(store, place, footers, file, change)
    # What counts for nothing may hold them too.
    place.remove(file.name for file in now.stale)


def _edit_file(
    store: Store, place: Place, footers: Footers, file: StoredFile, change: Change
) -> None:
    with reading(place.where(file.name)):
        rows = read_file(place.filesystem, file.path).replace_schema_metadata(None)
    changed = checked(TABLES[file.table], change(rows), place.where(file.name))
    if not changed.num_rows and rows.num_rows:
        place.remove([file.name])
    elif not file.superseded and changed.equals(rows):
        return
    elif file.key is None:
        rewrite_compacted(place, footers, file, lambda keyed: change(keyed[2]))
    else:
        footer = footers.of(file)
        fingerprint = footer.fingerprint if footer is not None else ""
        store.commit(file.table, file.key, changed, fingerprint, part=file.part)


def drop_quarantined(store: Store) -> None:
    """Remove what was put aside as unreadable: nobody knows whose rows it holds."""
    place = place_of(store.location)
    place.remove(name for _, name in every_file(store) if name.startswith(f"{_QUARANTINE}/"))


def every_file(store: Store) -> Iterator[tuple[str, str]]:
    """(path as the store's filesystem knows it, name in the store) of every file, in order."""
    base = place_of(store.location).path("").rstrip("/")
    selector = fs.FileSelector(base, allow_not_found=True, recursive=True)
    for info in sorted(store.filesystem.get_file_info(selector), key=lambda i: i.path):
        if info.type == fs.FileType.File:
            yield info.path, info.path.removeprefix(base).lstrip("/")
