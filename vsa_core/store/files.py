"""What the files of a store are named, and how one of them is read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as fs
import pyarrow.parquet as pq

from vsa_core.errors import StoreError

SCHEMA_TAG = b"vsa.schema"
LENGTH = b"vsa.length"  # of every list of a column
KEY = b"vsa.key"
FINGERPRINT = b"vsa.fingerprint"
KEYS = b"vsa.keys"  # of a compacted file: {key: [fingerprint, rows]}, in the order of its rows
COMPACTED = "part-"
EPOCH = "~"
CARD = "card.json"
# The column that names the key of a row, where there is one: a newer file supersedes such rows.
KEY_COLUMNS = {
    "videos": "video_id",
    "transcripts": "video_id",
    "segments": "video_id",
    "predictions": "video_id",
    "embeddings": "video_id",
    "faces": "video_id",
    "runs": "run_id",
}
# Their keys name files, not rows, and nothing is ever superseded.
APPEND_ONLY = ("reviews", "attempts", "promotions")
COMPACTABLE = (*KEY_COLUMNS, *APPEND_ONLY)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
_PART = re.compile(r"part-(?:(\d{8})-[0-9a-f]{8}|[0-9a-f]{32})\.parquet")
_EPOCH_FILE = re.compile(r"~(\d{8})/([^/]+)/(\d{6}-[0-9a-f]{8})\.parquet")
_TAIL_BYTES = 32_768
_MAGIC = b"PAR1"
_TRIES = 50
_T = TypeVar("_T")

Stamp = tuple[int, ...]


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
        path: the file, as the store's filesystem knows it.
        table: the table's name.
        part: the sub-folder's name.
        name: the file's name below that of the store, `/` between folders.
        key: what it is about; None for a compacted one, which holds the rows of many keys.
        size: bytes.
        superseded: keys (values of `key_column`) whose rows in this compacted file have a newer
            file, and do not count.
        stamp: changes whenever the file does.
    """

    path: str
    table: str
    part: str
    name: str
    key: str | None
    size: int
    superseded: tuple[str, ...] = ()
    stamp: Stamp = ()

    @property
    def compacted(self) -> bool:
        """Whether it holds the rows of many keys; else the file is named by its key."""
        return self.key is None

    @property
    def key_column(self) -> str:
        """The column that `superseded` is about."""
        return KEY_COLUMNS.get(self.table, "video_id")

    @property
    def generation(self) -> int:
        """Of a compacted file: the higher one holds the newer rows."""
        found = _PART.fullmatch(self.name.rpartition("/")[2])
        return int(found[1] or 0) if found else 0

    @property
    def epoch(self) -> int | None:
        """Of an object: which compaction's files it is newer than; None for a plain name."""
        found = _EPOCH_FILE.search(self.name)
        return int(found[1]) if found else None

    @property
    def rank(self) -> tuple[int, str]:
        """Orders the files of one key; the highest holds its rows."""
        found = _EPOCH_FILE.search(self.name)
        return (int(found[1]), found[3]) if found else (-1, "")


@dataclass(frozen=True, slots=True)
class Footer:
    """What a file says of itself.

    Attributes:
        tag: `<table>/<version>` of its schema.
        fingerprint: of what its rows were made from; empty for a compacted one.
        rows: how many.
        keys: key → (fingerprint, rows) in the order of the rows; None unless compacted.
        starts: key → number of its first row; empty unless compacted.
    """

    tag: str
    fingerprint: str
    rows: int
    keys: dict[str, tuple[str, int]] | None
    starts: dict[str, int] = field(default_factory=dict)


class TornFileError(Exception):
    """A file that is no whole Parquet file."""


class FileGoneError(StoreError):
    """A file that was replaced or removed since it was listed: list again."""


class UnreachableError(StoreError):
    """A network, a server or credentials that fail: nothing is known of the file itself."""


def plain_name(name: str) -> bool:
    """Whether it can name a key, a part or a folder, and nothing outside its folder."""
    return _NAME.fullmatch(name) is not None and not name.startswith(COMPACTED)


def key_of(name: str) -> tuple[bool, str | None]:
    """Whether a name below a part's folder is one of a store's, and the key it is about."""
    if _PART.fullmatch(name):
        return True, None
    if found := _EPOCH_FILE.fullmatch(name):
        return plain_name(found[2]), found[2]
    stem = name.removesuffix(".parquet")
    return stem != name and plain_name(stem), stem


def read_footer(filesystem: fs.FileSystem, path: str) -> Footer:
    """What a file says of itself, from its last bytes alone.

    Raises:
        OSError: it is gone, or cannot be reached.
        TornFileError: it is no Parquet file of a store's.
    """
    with filesystem.open_input_file(path) as file:
        size = file.size()
        tail = file.read_at(min(size, _TAIL_BYTES), max(0, size - _TAIL_BYTES))
        if len(tail) < 12 or tail[-4:] != _MAGIC:
            raise TornFileError("it ends within its data")
        needed = int.from_bytes(tail[-8:-4], "little") + 8
        if len(tail) < needed <= size:
            tail = file.read_at(needed, size - needed)
    try:
        metadata = pq.read_metadata(pa.BufferReader(tail))
        facts = metadata.metadata or {}
        keys = None
        starts: dict[str, int] = {}
        if KEYS in facts:
            keys = {key: (f, int(n)) for key, (f, n) in json.loads(facts[KEYS]).items()}
            at = 0
            for key, (_, rows) in keys.items():
                starts[key] = at
                at += rows
            if at != metadata.num_rows:
                raise TornFileError(f"it holds {metadata.num_rows} rows and names {at}")
        return Footer(
            facts.get(SCHEMA_TAG, b"nothing").decode(),
            facts.get(FINGERPRINT, b"").decode(),
            metadata.num_rows,
            keys,
            starts,
        )
    except (OSError, pa.ArrowException, ValueError, TypeError) as error:
        raise TornFileError(one_line(error)) from error


def as_written(schema: pa.Schema) -> pa.Schema:
    """A schema whose lists of one length are lists of any, and say the length beside them.

    Arrow reads a list of one length with nulls ten times as slowly as one of any length; in Parquet
    both are the same.
    """
    fields = []
    for column in schema:
        if pa.types.is_fixed_size_list(column.type):
            known = {**(column.metadata or {}), LENGTH: str(column.type.list_size).encode()}
            any_length = pa.list_(column.type.value_field)
            fields.append(column.with_type(any_length).with_metadata(known))
        else:
            fields.append(column)
    return pa.schema(fields, schema.metadata)


def as_read(data: pa.Table) -> pa.Table:
    """Rows as the table's schema has them, of those in a file written `as_written`."""
    for at, column in enumerate(data.schema):
        known = dict(column.metadata or {})
        if (length := known.pop(LENGTH, None)) is not None:
            kind = pa.list_(column.type.value_field, int(length))
            named = column.with_type(kind).with_metadata(known)
            data = data.set_column(at, named, data.column(at).cast(kind))
    return data


def write_file(rows: pa.Table, out: BinaryIO) -> None:
    """The one Parquet file of some rows, page checksums included."""
    data = rows.cast(as_written(rows.schema))
    pq.write_table(data, out, compression="zstd", write_page_checksum=True)


def read_file(
    filesystem: fs.FileSystem, path: str, columns: Sequence[str] | None = None
) -> pa.Table:
    """All rows of one file, page checksums checked.

    Raises:
        OSError, ArrowException, UnicodeDecodeError: it is gone, cannot be reached, or does not
            read.
    """
    with filesystem.open_input_file(path) as source:
        file = pq.ParquetFile(source, page_checksum_verification=True)
        names = None if columns is None else list(columns)
        return as_read(file.read(columns=names, use_threads=False))


def unreachable(error: BaseException) -> bool:
    """Whether an error is the network's or the server's, not the file's."""
    said = str(error)
    return isinstance(error, ConnectionError | TimeoutError) or any(
        word in said for word in ("AWS Error", "google::cloud", "HTTP status", "curlCode")
    )


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Says plainly why a file does not read.

    Raises:
        FileGoneError: it is not there any more.
        StoreError: it cannot be reached, or does not read.
    """
    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise does_not_read(where, error) from error


def retried(look: Callable[[], _T]) -> _T:
    """What a look gives, taken again as long as files are replaced under it.

    Raises:
        FileGoneError: they always are.
    """
    for _ in range(_TRIES):
        try:
            return look()
        except FileGoneError:
            continue
    return look()


def gone(error: BaseException) -> bool:
    """Whether an error says that there is no such file."""
    said = str(error)
    return isinstance(error, FileNotFoundError) or any(
        word in said for word in ("NO_SUCH_KEY", "RESOURCE_NOT_FOUND")
    )


def does_not_read(where: str, error: BaseException, *, reached: bool = True) -> StoreError:
    """What to tell of a file that does not read; not `reached`: it is the network for sure."""
    if gone(error):
        return FileGoneError(f"{where} is gone: run the same command again to make it anew")
    if not reached or unreachable(error):
        return UnreachableError(
            f"{where} cannot be reached ({one_line(error)}): see to the network and the "
            "credentials, and run the same command again; nothing stored is lost"
        )
    return StoreError(
        f"{where} does not read ({one_line(error)}): run `vsa store verify --repair`, which puts "
        "it aside and says what makes it anew"
    )


def is_video(video_ids: Iterable[str]) -> pc.Expression:
    """A filter that keeps the rows of some videos."""
    return pc.field("video_id").isin(pa.array(list(video_ids), pa.string()))


def one_line(error: Any) -> str:
    """An error's text without its line breaks."""
    return " ".join(str(error).split())
