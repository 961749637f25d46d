"""Search every byte of a store for what must not be in it any more.

Parquet compresses its pages, so each file is searched twice: its bytes as they lie there, where
footers hold key lists and the least and greatest values, and every text in it, decoded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as fs
import pyarrow.parquet as pq

from vsa_core.forget.files import entries
from vsa_core.store import Store

_MEDIA = "media/"
_SIDECARS = (".json", ".vtt", ".srt", ".json3", ".txt")
_BLOCK = 4 * 2**20
_BATCH_ROWS = 65_536
_ID = re.compile(r"[vx]?([0-9a-f]{16})|([0-9a-f]{16})[0-9a-f]{48}")
_CORE = 16  # hex digits of a SHA-256 that name a video: its id has them, and so has the hash
_HEX_RUN = re.compile(rb"[0-9a-f]{%d,}" % _CORE)
# After an address or a path these go on with another one; before it only a word does.
_GOES_ON = rb"(?![\w\-/~%]|\.\w)"
_BEGAN = rb"(?<![\w\-])"


class Needles:
    """What is looked for.

    Args:
        ids: video_ids, source_ids and SHA-256 in hex; found wherever their digits stand.
        texts: addresses, paths, names; found as whole ones, so that `…/watch?v=1` is in
            `…/watch?v=1&t=9` and not in `…/watch?v=12`.
    """

    def __init__(self, ids: Iterable[str], texts: Iterable[str]) -> None:
        known = {identity: _ID.fullmatch(identity) for identity in ids}
        self._cores = {(m[1] or m[2]).encode() for m in known.values() if m is not None}
        others = {identity for identity, match in known.items() if match is None}
        spelled = {form for text in {*texts, *others} if text for form in _spellings(text)}
        self._texts = (
            re.compile(
                _BEGAN
                + b"(?:"
                + b"|".join(re.escape(form) for form in sorted(spelled, key=len, reverse=True))
                + b")"
                + _GOES_ON
            )
            if spelled
            else None
        )
        self.longest = max(map(len, spelled), default=0)

    def within(self, data: bytes) -> bool:
        """Whether any of it is in there."""
        if self._cores:
            for run in _HEX_RUN.finditer(data):
                digits = run[0]
                for at in range(len(digits) - _CORE + 1):
                    if digits[at : at + _CORE] in self._cores:
                        return True
        return self._texts is not None and self._texts.search(data) is not None

    def within_text(self, text: str) -> bool:
        """Whether any of it is in a text."""
        return self.within(text.encode("utf-8", "surrogateescape"))


@dataclass(slots=True)
class Search:
    """What came of a search.

    Attributes:
        files: how many were searched.
        size: bytes of them.
        texts: texts in Parquet that were decoded and searched.
        traces: one line per place where something was found.
        unread: one line per file that could not be decoded, and so not be searched.
    """

    files: int = 0
    size: int = 0
    texts: int = 0
    traces: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def search(
    store: Store, needles: Needles, skip: Callable[[str], bool], names: Needles | None = None
) -> Search:
    """Look through every file of a store; of other videos' media only the names.

    Args:
        store: local, or an object store.
        needles: what must not be in a file or its name.
        skip: tells of a path in the store, `<kind>/<name>/…`, whether it is left out.
        names: what must not be in a name either.
    """
    found = Search()
    for entry in entries(store):
        path, within = entry.path, entry.name
        if skip(within):
            continue
        if needles.within_text(within) or (names is not None and names.within_text(within)):
            found.traces.append(f"{within}: its name")
        if not entry.is_file:
            continue
        if within.startswith(_MEDIA) and not within.endswith(_SIDECARS):
            continue  # another video's picture and sound, which hold no id
        try:
            _search_bytes(store.filesystem, path, within, needles, found)
            if within.endswith(".parquet"):
                _search_parquet(store.filesystem, path, within, needles, found)
        except FileNotFoundError:
            continue  # replaced or removed by a run meanwhile
        except (OSError, pa.ArrowException) as error:
            found.unread.append(f"{within}: does not read ({' '.join(str(error).split())})")
    return found


def _spellings(text: str) -> set[bytes]:
    """A text as it stands in a table, and as JSON has it."""
    raw = text.encode("utf-8", "surrogateescape")
    return {raw, json.dumps(text)[1:-1].encode()}


def _search_bytes(
    filesystem: fs.FileSystem, path: str, within: str, needles: Needles, found: Search
) -> None:
    found.files += 1
    # A block begins with the end of the one before it, so that nothing is cut in two.
    overlap = max(needles.longest + 2, 2 * _CORE)
    tail = b""
    hit = False
    with filesystem.open_input_stream(path, compression=None) as stream:
        while block := stream.read(_BLOCK):
            found.size += len(block)
            hit = hit or needles.within(tail + block)
            tail = (tail + block)[-overlap:]
    if hit:
        found.traces.append(f"{within}: its bytes")


def _search_parquet(
    filesystem: fs.FileSystem, path: str, within: str, needles: Needles, found: Search
) -> None:
    with filesystem.open_input_file(path) as file:
        parquet = pq.ParquetFile(file)
        named = [f.name for f in parquet.schema_arrow if _holds_text(f.type)]
        hits: dict[str, None] = {}
        for batch in parquet.iter_batches(_BATCH_ROWS, columns=named):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                for texts in _texts_in(column):
                    found.texts += len(texts)
                    if name not in hits and needles.within(_joined(texts)):
                        hits[name] = None
    found.traces.extend(f"{within}: column {name}" for name in hits)


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_nested(kind):
        return any(_holds_text(kind.field(i).type) for i in range(kind.num_fields))
    return any(
        test(kind)
        for test in (
            pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_dictionary
        )
    )  # fmt: skip


def _texts_in(column: pa.Array) -> Iterator[pa.Array]:
    """Every text in a column, out of lists and structs too, without nulls."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        yield from _texts_in(column.dictionary)
    elif pa.types.is_struct(kind):
        for child in column.flatten():
            yield from _texts_in(child)
    elif pa.types.is_nested(kind):
        yield from _texts_in(column.flatten())
    elif _holds_text(kind):
        yield pc.cast(column, pa.large_string()).drop_null()


def _joined(texts: pa.Array) -> bytes:
    """All of them, a line between each."""
    lists = pa.LargeListArray.from_arrays(pa.array([0, len(texts)], pa.int64()), texts)
    joined = pc.binary_join(lists, pa.scalar("\n", pa.large_string()))[0].as_py()
    return b"" if joined is None else joined.encode()
