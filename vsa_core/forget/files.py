"""A store file by file: rows changed for good, and every name there is, whatever wrote it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.fs as fs

from vsa_core.errors import StoreError
from vsa_core.schemas import TABLES, checked
from vsa_core.store import Store
from vsa_core.store.compaction import rewrite_compacted
from vsa_core.store.current import Footers, by_part, standing
from vsa_core.store.disk import Disk, Place
from vsa_core.store.files import StoredFile, read_file, reading, retried
from vsa_core.store.objects import place_of

Change = Callable[[pa.Table], pa.Table]
_QUARANTINE = ".quarantine/"


@dataclass(frozen=True, slots=True)
class Entry:
    """What lies in a store.

    Attributes:
        path: as the store's filesystem knows it.
        name: in the store, `/` between folders.
        is_file: else a folder.
    """

    path: str
    name: str
    is_file: bool


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
        rewrite_compacted(place, footers, file, lambda keyed: (*keyed[:2], change(keyed[2])))
    else:
        footer = footers.of(file)
        fingerprint = footer.fingerprint if footer is not None else ""
        store.commit(file.table, file.key, changed, fingerprint, part=file.part)
        if file.epoch is not None or not isinstance(place, Disk):
            place.remove([file.name])  # the new rows have a name of their own


def drop_quarantined(store: Store) -> None:
    """Remove what was put aside as unreadable: nobody knows whose rows it holds."""
    place = place_of(store.location)
    place.remove(e.name for e in entries(store) if e.is_file and e.name.startswith(_QUARANTINE))


def drop_folders(store: Store, named: Callable[[str], bool]) -> None:
    """Remove folders without a file whose names are of some kind.

    An object store keeps a marker in the place of a folder that had files, and among objects a
    folder is named by its video.
    """
    place = place_of(store.location)
    listed = entries(store)
    used = {parent for e in listed if e.is_file for parent in _parents(e.name)}
    for entry in listed:
        if not entry.is_file and entry.name not in used and named(entry.name):
            place.remove_folder(entry.name)


def entries(store: Store) -> list[Entry]:
    """Every file and folder in a store, in order."""
    base = place_of(store.location).path("").rstrip("/")
    selector = fs.FileSelector(base, allow_not_found=True, recursive=True)
    return [
        Entry(
            info.path, info.path.removeprefix(base).strip("/"), info.type != fs.FileType.Directory
        )
        for info in sorted(store.filesystem.get_file_info(selector), key=lambda info: info.path)
    ]


def _parents(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]
