"""What somebody knows of some segments: a file of segment_id and label, held against the views."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from vsa_core.bring.files import batches, column_at, parquet_parts, text_column
from vsa_core.errors import UsageError
from vsa_core.fusion.strategies import Known
from vsa_core.fusion.views import Views
from vsa_core.labels import SENTIMENTS

_COLUMNS = ("segment_id", "label")
INCLUSION = "inclusion"


def read_known(where: str | Path, views: Views) -> tuple[Known, tuple[str, ...]]:
    """Labels of some of the segments, and what was odd about the file, one line each.

    Args:
        where: Parquet or CSV (its name ends in .csv) with the columns `segment_id` and `label`; a
            row without a label says nothing.
        views: the segments; the labels are classes of their only target.

    Raises:
        UsageError: it does not read, a label is no class, a segment has two labels, or no segment
            is known.
    """
    known, _, notes = read_reviews(where, views)
    return known, notes


def read_reviews(
    where: str | Path, views: Views
) -> tuple[Known, NDArray[np.float64] | None, tuple[str, ...]]:
    """The same with how probable each segment was to be reviewed, (r,) in (0, 1].

    That is the column `inclusion`, as `vsa label --ask` writes it; None without it.

    Raises:
        UsageError: as `read_known`, or an inclusion is no number above 0 and up to 1.
    """
    [(target, classes)] = views.classes.items()
    ids, labels, inclusion = _columns(where)
    said = pc.fill_null(pc.not_equal(labels, ""), False)
    notes = []
    if unlabelled := said.false_count:
        notes.append(f"{where}: {unlabelled} rows have no label: they are passed over")
    ids, labels = ids.filter(said), labels.filter(said)
    inclusion = inclusion.filter(said) if inclusion is not None else None
    if not len(ids):
        raise UsageError(f"{where}: no row has a label: write what each segment is")
    label = pc.index_in(labels, pa.array(classes, pa.string()))
    if label.null_count:
        odd = pc.index(pc.is_null(label), True).as_py()
        raise UsageError(
            f"{where}: label {labels[odd].as_py()!r} of segment {ids[odd].as_py()!r} is none of "
            f"the classes ({', '.join(classes)}): {_hint(labels, classes)}"
        )
    row = pc.index_in(ids, views.segment_ids)
    known = pc.is_valid(row)
    if strange := known.false_count:
        first = ids[pc.index(known, False).as_py()].as_py()
        if strange == len(known):
            raise UsageError(
                f"{where}: none of its {strange} segments is among the predictions, {first!r} for "
                "one: give the labels of these segments"
            )
        notes.append(
            f"{where}: {strange} of {len(known)} segments are not among the predictions, "
            f"{first!r} for one: they are passed over"
        )
    rows = row.filter(known).to_numpy().astype(np.intp)
    of = label.filter(known).to_numpy().astype(np.intp)
    found, first = _once(where, views, classes, target, rows, of)
    chance = None
    if inclusion is not None:
        chance = inclusion.filter(known).to_numpy(zero_copy_only=False).astype(np.float64)[first]
        # Also false for NaN, which is what a row without one comes to.
        bad = np.flatnonzero(~((chance > 0) & (chance <= 1)))
        if len(bad):
            segment = views.segment_ids[int(found.rows[bad[0]])].as_py()
            raise UsageError(
                f"{where}: {INCLUSION} of segment {segment!r} is no number above 0 and up to 1: "
                "leave the column as `--ask` wrote it, or take it out"
            )
    return found, chance, tuple(notes)


def _once(
    where: str | Path,
    views: Views,
    classes: Sequence[str],
    target: str,
    rows: NDArray[np.intp],
    labels: NDArray[np.intp],
) -> tuple[Known, NDArray[np.intp]]:
    """One label per segment, in the order of the segments, and which row each comes from."""
    kept, first = np.unique(rows, return_index=True)
    said = np.full(len(views), -1)
    said[kept] = labels[first]
    differing = np.flatnonzero(said[rows] != labels)
    if len(differing):
        row = rows[differing[0]]
        raise UsageError(
            f"{where}: segment {views.segment_ids[int(row)].as_py()!r} is "
            f"{classes[said[row]]} and {classes[labels[differing[0]]]}: keep one label for it"
        )
    return Known(target, kept, labels[first]), first


def _columns(where: str | Path) -> tuple[pa.Array, pa.Array, pa.Array | None]:
    """Ids and labels as words, and inclusions where the file has them."""
    if Path(where).suffix.lower() == ".csv":
        return _csv_columns(Path(where))
    parts = parquet_parts(where)
    for part in parts:
        _check_columns(part.path, part.schema.names)
    found: tuple[list[pa.Array], ...] = ([], [])
    for start, batch in batches(parts, _COLUMNS):
        for name, held in zip(_COLUMNS, found, strict=True):
            held.append(text_column(batch.column(name), column_at(parts, start, name)))
    ids, labels = (pa.concat_arrays(held) for held in found)
    if any(part.schema.names.count(INCLUSION) != 1 for part in parts):
        return ids, labels, None
    chances = [batch.column(INCLUSION) for _, batch in batches(parts, [INCLUSION])]
    return ids, labels, _numbers(where, pa.chunked_array(chances).combine_chunks())


def _csv_columns(path: Path) -> tuple[pa.Array, pa.Array, pa.Array | None]:
    columns = (*_COLUMNS, INCLUSION)
    words = pa.csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()))
    try:
        with path.open("rb") as file:
            table = pa.csv.read_csv(file, convert_options=words)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except pa.ArrowException as error:
        raise UsageError(f"{path} is no CSV that can be read: {error}") from error
    _check_columns(path, table.column_names)
    if not table.num_rows:
        raise UsageError(f"{path} has no rows: write segment_id,label in each")
    ids, labels = (table.column(name).combine_chunks() for name in _COLUMNS)
    if table.column_names.count(INCLUSION) != 1:
        return ids, labels, None
    chances = table.column(INCLUSION).combine_chunks()
    return ids, labels, _numbers(path, chances)


def _numbers(where: str | Path, column: pa.Array) -> pa.Array:
    """The column as numbers; null where it is empty."""
    try:
        if pa.types.is_string(column.type):
            column = pc.if_else(pc.equal(column, ""), None, column)
        return pc.cast(column, pa.float64())
    except pa.ArrowException as error:
        raise UsageError(
            f"{where}: {INCLUSION} holds what is no number ({error}): leave the column as "
            "`--ask` wrote it, or take it out"
        ) from error


def _check_columns(path: Path, found: Sequence[str]) -> None:
    for name in _COLUMNS:
        if found.count(name) != 1:
            lacks = "has two columns" if name in found else "lacks the column"
            raise UsageError(
                f"{path} {lacks} {name}: it needs {' and '.join(_COLUMNS)}; there are "
                f"{', '.join(found)}"
            )


def _hint(labels: pa.Array, classes: Sequence[str]) -> str:
    """What to do about labels that are no classes."""
    if list(classes) != [str(i) for i in range(len(classes))]:
        return "correct it, or name the classes with --classes"
    named = sorted(set(pc.unique(labels).to_pylist()))
    ours = [str(s) for s in SENTIMENTS]
    order = ours if len(classes) == len(ours) and set(named) <= set(ours) else named
    return (
        f"name them in the order of probs with --classes, such as --classes {','.join(order)}"
        if len(order) == len(classes)
        else "name them in the order of probs with --classes"
    )
