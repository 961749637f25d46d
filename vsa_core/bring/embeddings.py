"""Embeddings in Parquet files: checked once, then held in memory or in a scratch file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vsa_core.bring.files import TablePart, batches, column_at, number_lists
from vsa_core.errors import UsageError
from vsa_core.fusion.spool import Spool, check_room
from vsa_core.fusion.views import Embedding, Held

COLUMN = "embedding"
# All views together: up to this they are held in memory, above it in scratch files.
HELD_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class Rows:
    """Where the N rows of a table belong.

    Attributes:
        parts: the files of the table.
        segment: (N,) index among the n segments.
        view: (N,) index among the V views.
        used: (N,) bool, False where the status says that there is nothing.
    """

    parts: tuple[TablePart, ...]
    segment: NDArray[np.int32]
    view: NDArray[np.int8]
    used: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Checked:
    """What the embedding columns hold.

    Attributes:
        embeddings: per view.
        embedded: (n, V) bool, where there is a finite one.
        broken: (n, V) bool, where there is one that is not finite.
        marks: (N,) a number of each row's that is the same where embeddings are; 0 without one.
    """

    embeddings: tuple[Embedding, ...]
    embedded: NDArray[np.bool_]
    broken: NDArray[np.bool_]
    marks: NDArray[np.float64]


def read_embeddings(
    rows: Rows,
    segments: pa.StringArray,
    names: Sequence[str],
    held_bytes: int = HELD_BYTES,
) -> Checked:
    """Look at every embedding once.

    Args:
        rows: where the table's rows belong.
        segments: ids of the n segments.
        names: of the V views.
        held_bytes: up to this size, of all views together, they are held in memory.

    Raises:
        UsageError: not lists of numbers, lists of different length within a view, or no room for
            scratch files.
    """
    embedded = np.zeros((len(segments), len(names)), np.bool_)
    broken = np.zeros_like(embedded)
    marks = np.zeros(len(rows.segment))
    widths = [0] * len(names)
    size = 4 * sum(part.values.get(COLUMN, 0) for part in rows.parts)
    if size > held_bytes:
        check_room(size)
    held: dict[int, NDArray[np.float32]] = {}
    spools: dict[int, Spool] = {}
    ranks: dict[int, NDArray[np.intp]] = {}
    for start, batch in batches(rows.parts, [COLUMN]):
        what = column_at(rows.parts, start, COLUMN)
        column = number_lists(batch.column(0), what)
        lengths = list_lengths(column, what)
        part = slice(start, start + batch.num_rows)
        given = rows.used[part] & (lengths > 0)
        for v in np.unique(rows.view[part][given]):
            taken = np.flatnonzero(given & (rows.view[part] == v))
            width = widths[v] = widths[v] or int(lengths[taken[0]])
            at = rows.segment[part][taken]
            odd = np.flatnonzero(lengths[taken] != width)
            if len(odd):
                raise UsageError(
                    f"{column_at(rows.parts, start, COLUMN)}: segment "
                    f"{segments[int(at[odd[0]])].as_py()!r} has {lengths[taken[odd[0]]]} numbers "
                    f"for {names[v]}, others {width}: give one modality vectors of one width"
                )
            vectors = _vectors(column.take(pa.array(taken)), width)
            finite = np.isfinite(vectors).all(axis=1)
            spread = np.random.default_rng(0).random(width)
            # Row by row, so that it does not depend on the rows beside; that of zeros is not 0.
            marks[start + taken[finite]] = 1 + (vectors[finite] * spread).sum(axis=1)
            embedded[at[finite], v] = True
            broken[at[~finite], v] = True
            if v not in ranks:
                # In the order of the segments, whatever that of the rows: the same table shuffled
                # is the same input.
                has = np.zeros(len(segments), np.bool_)
                has[rows.segment[rows.used & (rows.view == v)]] = True
                ranks[v] = np.cumsum(has) - 1
                if size > held_bytes:
                    spools[v] = Spool(int(has.sum()), width)
                else:
                    held[v] = np.empty((int(has.sum()), width), np.float32)
            slots = ranks[v][at[finite]]
            if v in spools:
                spools[v].put(slots, vectors[finite])
            else:
                held[v][slots] = vectors[finite]
    kept: list[Embedding] = []
    for v, width in enumerate(widths):
        finite_at = np.flatnonzero(embedded[:, v])
        if v in spools:
            kept.append(spools[v].kept(finite_at, ranks[v][finite_at]))
            continue
        vectors = held.pop(v, np.zeros((0, width), np.float32))
        if len(finite_at) < len(vectors):
            vectors = vectors[ranks[v][finite_at]]
        kept.append(Held(finite_at, vectors))
    return Checked(tuple(kept), embedded, broken, marks)


def list_lengths(column: pa.Array, what: str) -> NDArray[np.intp]:
    """Length of each list of numbers; 0 where it is null.

    Raises:
        UsageError: the column holds something else.
    """
    kind = column.type
    if pa.types.is_null(kind):
        return np.zeros(len(column), np.intp)
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    numbers = (pa.types.is_floating, pa.types.is_integer, pa.types.is_null)
    if not any(a(kind) for a in lists) or not any(a(kind.value_type) for a in numbers):
        raise UsageError(f"{what} is {kind}: make it a list of floats")
    lengths: NDArray[np.intp] = pc.fill_null(pc.list_value_length(column), 0).to_numpy(
        zero_copy_only=False
    )
    return lengths.astype(np.intp)


def _vectors(lists: pa.Array, width: int) -> NDArray[np.float32]:
    """Lists as an array (b, d); a null in a list, and what overflows, is not finite."""
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        vectors: NDArray[np.float32] = np.asarray(flat, np.float32).reshape(-1, width)
    return vectors
