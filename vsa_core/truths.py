"""What somebody knows of a store's segments: a file of their sentiments and emotions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from vsa_core.bring.files import batches, column_at, parquet_parts, text_column
from vsa_core.errors import UsageError
from vsa_core.labels import EMOTIONS, SENTIMENTS

CLASSES = {"sentiment": tuple(map(str, SENTIMENTS)), "emotion": tuple(map(str, EMOTIONS))}
_ID = "segment_id"


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of r segments.

    Attributes:
        name: `reviews`, or the file's.
        ids: (r,) segments, each once.
        labels: by target (r,) classes; null where nothing is known.
        first_at: (r,) when it was first reviewed; None for a file.
    """

    name: str
    ids: pa.Array
    labels: Mapping[str, pa.Array]
    first_at: pa.Array | None = None


def read_truth(path: Path) -> Truth:
    """What a file says of segments, checked.

    Args:
        path: CSV (its name ends in .csv) or Parquet with `segment_id`, and `sentiment` or
            `emotion` or both; other columns are not read.

    Raises:
        UsageError: it does not read, lacks a column, has a class that is none or a segment twice.
    """
    columns = _csv(path) if path.suffix.lower() == ".csv" else _parquet(path)
    targets = [target for target in CLASSES if target in columns]
    if _ID not in columns or not targets:
        raise UsageError(
            f"{path} lacks the column {_ID if _ID not in columns else 'sentiment or emotion'}: it "
            f"needs {_ID}, and sentiment or emotion or both"
        )
    ids = columns[_ID]
    if not len(ids):
        raise UsageError(f"{path} has no rows: write {_ID},{','.join(targets)} in each")
    unknown = pa.nulls(len(ids), pa.string())
    labels = {t: _or_null(columns[t]) if t in columns else unknown for t in CLASSES}
    for target in targets:
        _check_classes(path, target, labels[target])
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        first = twice[0].as_py()["values"]
        raise UsageError(f"{path} has segment {first!r} more than once: keep one row of it")
    return Truth(str(path), ids, labels)


def _check_classes(path: Path, target: str, labels: pa.Array) -> None:
    known = pc.index_in(labels, pa.array(CLASSES[target], pa.string()))
    odd = pc.and_(pc.is_valid(labels), pc.is_null(known))
    if pc.any(odd).as_py():
        first = labels.filter(odd)[0].as_py()
        raise UsageError(
            f"{path}: {first!r} is no {target}: write one of {', '.join(CLASSES[target])}, or "
            "leave it empty"
        )


def _or_null(labels: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(labels, ""), pa.scalar(None, pa.string()), labels)


def _csv(path: Path) -> dict[str, pa.Array]:
    names = (_ID, *CLASSES)
    words = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
    )
    try:
        with path.open("rb") as file:
            # Other columns, such as what is said, may hold lines of their own.
            lines = pa.csv.ParseOptions(newlines_in_values=True)
            table = pa.csv.read_csv(file, parse_options=lines, convert_options=words)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except pa.ArrowException as error:
        raise UsageError(f"{path} is no CSV that can be read: {error}") from error
    _check_once(path, table.column_names)
    return {name: table[name].combine_chunks() for name in names if name in table.column_names}


def _parquet(path: Path) -> dict[str, pa.Array]:
    parts = parquet_parts(path)
    for part in parts:
        _check_once(part.path, part.schema.names)
    names = [n for n in (_ID, *CLASSES) if all(n in part.schema.names for part in parts)]
    held: dict[str, list[pa.Array]] = {name: [] for name in names}
    for start, batch in batches(parts, names):
        for name in names:
            held[name].append(text_column(batch.column(name), column_at(parts, start, name)))
    return {name: pa.concat_arrays(found) for name, found in held.items()}


def _check_once(path: Path, found: Sequence[str]) -> None:
    for name in (_ID, *CLASSES):
        if found.count(name) > 1:
            raise UsageError(f"{path} has two columns {name}: keep one of them")
