"""What is assessed: predictions of a file or a store, and what is known of the segments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from vsa_core.bring.files import batches, column_at, parquet_parts, text_column
from vsa_core.errors import StoreError, UsageError
from vsa_core.labels import MODALITIES
from vsa_core.query import ask
from vsa_core.schemas import vote_column
from vsa_core.scoring import CURRENT, not_learned, of_reviews
from vsa_core.store import Store
from vsa_core.truths import CLASSES, Truth, read_truth

CONFIDENCES = {"sentiment": "confidence", "emotion": "emotion_confidence"}
VOTES = tuple(vote_column(modality) for modality in MODALITIES)
_WORDS = ("segment_id", "video_id", *CLASSES, "text", *VOTES)
_NUMBERS = (*CONFIDENCES.values(), "start_ms", "end_ms")
_TIMED = re.compile(r"(.+)-\d+-\d+")
_MORE = f"""
SELECT segment_id, c.video_id, c.sentiment, c.emotion, c.confidence,
  list_max(h.emotion_probs) AS emotion_confidence, h.start_ms, h.end_ms, h.text,
  {", ".join(f"h.{vote}" for vote in VOTES)}, run_id
FROM ({CURRENT}) AS c JOIN label_history AS h USING (segment_id, run_id)
"""


@dataclass(frozen=True, slots=True)
class Predictions:
    """What one system says of m segments.

    Attributes:
        name: the file's, or where the store is.
        table: m rows with segment_id (each once), video_id, sentiment, emotion, text and votes
            (strings) and confidence, emotion_confidence, start_ms, end_ms (float64); null where a
            label is not given or something is not known.
        targets: those it says something of, decided or not.
        store: where it is of a store; with `run_id` in the table.
    """

    name: str
    table: pa.Table
    targets: tuple[str, ...]
    store: Store | None = None


def read_predictions(where: str | Path) -> Predictions:
    """What a system says, checked.

    Args:
        where: CSV (its name ends in .csv) or Parquet with `segment_id`, and `sentiment` or
            `emotion` or both (empty or null abstains); it may have `video_id`, `confidence`,
            `emotion_confidence`, `start_ms`, `end_ms`, `text`, `face_vote`, `text_vote` and
            `audio_vote`. Or a store's folder or s3:// address: its models' current labels.

    Raises:
        UsageError: it does not read, lacks a column, or a value is none of its column's.
        StoreError: a table does not read.
    """
    store = _store(where)
    if store is None:
        path = Path(where)
        found = _csv(path) if path.suffix.lower() == ".csv" else _parquet(path)
        return predictions_of(found, str(where))
    answer = ask(store, _MORE)
    found = pa.Table.from_batches(answer.batches, answer.schema)
    said = predictions_of({n: found[n] for n in found.column_names}, store.location)
    table = said.table.append_column("run_id", found["run_id"])
    return Predictions(store.location, table, tuple(CLASSES), store)


def predictions_of(
    columns: pa.Table | Mapping[str, pa.Array | pa.ChunkedArray], name: str
) -> Predictions:
    """Predictions of columns in memory, checked as those of a file.

    Args:
        columns: as `read_predictions` reads them; others are passed over.
        name: what to call them.

    Raises:
        UsageError: as `read_predictions`.
    """
    if isinstance(columns, pa.Table):
        columns = {column: columns[column] for column in columns.column_names}
    targets = tuple(target for target in CLASSES if target in columns)
    if "segment_id" not in columns or not targets:
        lacks = "segment_id" if "segment_id" not in columns else "sentiment or emotion"
        raise UsageError(
            f"{name} lacks the column {lacks}: it needs segment_id, and sentiment or emotion or "
            "both; empty where a model abstains"
        )
    n = len(columns["segment_id"])
    if not n:
        raise UsageError(f"{name} has no rows: there is nothing to assess")
    held = {column: _words(columns, column, n, name) for column in _WORDS}
    held |= {column: _numbers(columns, column, n, name) for column in _NUMBERS}
    _check_ids(held["segment_id"], name)
    for target in targets:
        _check_classes(held[target], target, name)
        _check_shares(held[CONFIDENCES[target]], CONFIDENCES[target], name)
    ids = held["segment_id"]
    held["video_id"] = pc.coalesce(held["video_id"], video_of(ids))
    return Predictions(name, pa.table(held), targets)


def read_known(where: str | Path, predictions: Predictions) -> tuple[Truth, tuple[str, ...]]:
    """What is known of segments, and what of it was left out, one line each.

    Args:
        where: as `truths.read_truth`; or a store's folder or s3:// address: its reviews. Where the
            predictions are of the same store, those count that the labels did not learn from.

    Raises:
        UsageError: it does not read, or says nothing.
        StoreError: a table does not read.
    """
    store = _store(where)
    if store is None:
        return read_truth(Path(where)), ()
    known = of_reviews(store)
    if predictions.store is None or predictions.store.location != store.location:
        return known, ()
    assert known.first_at is not None  # reviews have a time
    # A review of a segment that has no label stays: it is not covered.
    table = predictions.table.filter(pc.is_in(predictions.table["segment_id"], known.ids))
    first = pc.take(known.first_at, pc.index_in(table["segment_id"], known.ids))
    fair, learned = not_learned(store, table.append_column("first_at", first))
    if not learned:
        return known, ()
    note = f"{learned} reviews that the labels may have learned from count not"
    if learned == len(known.ids):
        raise UsageError(f"{store.location} has no other reviews: {note}")
    unfair = pc.and_(
        pc.is_in(known.ids, table["segment_id"].combine_chunks()),
        pc.invert(pc.is_in(known.ids, fair["segment_id"].combine_chunks())),
    )
    kept = pc.invert(unfair)
    labels = {target: said.filter(kept) for target, said in known.labels.items()}
    return Truth(known.name, known.ids.filter(kept), labels, known.first_at.filter(kept)), (note,)


def video_of(segment_ids: pa.Array) -> pa.Array:
    """The video in each id: `<video_id>-<start_ms>-<end_ms>`, else all before the last hyphen."""

    def one(segment_id: str) -> str:
        timed = _TIMED.fullmatch(segment_id)
        return timed[1] if timed else segment_id.rpartition("-")[0] or segment_id

    return pa.array([one(i) for i in segment_ids.to_pylist()], pa.string())


def _store(where: str | Path) -> Store | None:
    """The store that is there; None for a file."""
    if not str(where).startswith("s3://") and not Path(where).is_dir():
        return None
    store = Store(where)
    if store.exists:
        return store
    if any(Path(where).rglob("*.parquet")):
        return None
    raise StoreError(f"no store at {where}: give the folder of one, or a CSV or Parquet file")


def _csv(path: Path) -> dict[str, pa.ChunkedArray]:
    names = (*_WORDS, *_NUMBERS)
    convert = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
    )
    try:
        with path.open("rb") as file:
            table = pa.csv.read_csv(
                file,
                parse_options=pa.csv.ParseOptions(newlines_in_values=True),
                convert_options=convert,
            )
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except pa.ArrowException as error:
        raise UsageError(f"{path} is no CSV that can be read: {error}") from error
    for name in names:
        if table.column_names.count(name) > 1:
            raise UsageError(f"{path} has two columns {name}: keep one of them")
    return {name: table[name] for name in names if name in table.column_names}


def _parquet(path: Path) -> dict[str, pa.ChunkedArray]:
    parts = parquet_parts(path)
    names = [
        name for name in (*_WORDS, *_NUMBERS) if all(name in part.schema.names for part in parts)
    ]
    held: dict[str, list[pa.Array]] = {name: [] for name in names}
    for start, batch in batches(parts, names):
        for name in names:
            values = batch.column(name)
            if name in _WORDS:
                values = text_column(values, column_at(parts, start, name))
            held[name].append(values)
    return {name: pa.chunked_array(found) for name, found in held.items()}


def _words(
    columns: Mapping[str, pa.Array | pa.ChunkedArray], column: str, n: int, name: str
) -> pa.Array:
    if column not in columns:
        return pa.nulls(n, pa.string())
    words = text_column(_whole(columns[column]), f"{name}: column {column}")
    return pc.if_else(pc.equal(words, ""), pa.scalar(None, pa.string()), words)


def _numbers(
    columns: Mapping[str, pa.Array | pa.ChunkedArray], column: str, n: int, name: str
) -> pa.Array:
    if column not in columns:
        return pa.nulls(n, pa.float64())
    values = _whole(columns[column])
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        trimmed = pc.utf8_trim_whitespace(values)
        values = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, values.type), trimmed)
    try:
        numbers = pc.cast(values, pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UsageError(f"{name}: column {column} is not all numbers: {error}") from error
    odd = pc.invert(pc.fill_null(pc.is_finite(numbers), True))
    if pc.any(odd).as_py():
        raise UsageError(f"{name}: column {column} has nan or inf: leave it empty where not known")
    return numbers


def _whole(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _check_ids(ids: pa.Array, name: str) -> None:
    if ids.null_count:
        raise UsageError(f"{name}: {ids.null_count} rows have no segment_id: give each one")
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        first = twice[0].as_py()["values"]
        raise UsageError(f"{name} has segment {first!r} more than once: keep one row of it")


def _check_classes(labels: pa.Array, target: str, name: str) -> None:
    strange = pc.and_(pc.is_valid(labels), pc.less(index_of(labels, target), 0))
    if pc.any(strange).as_py():
        first = labels.filter(strange)[0].as_py()
        raise UsageError(
            f"{name}: {first!r} is no {target}: write one of {', '.join(CLASSES[target])}, or "
            "leave it empty where a model abstains"
        )


def _check_shares(values: pa.Array, column: str, name: str) -> None:
    numbers = values.drop_null().to_numpy(zero_copy_only=False)
    # A store's are float32.
    odd = numbers[(numbers < 0) | (numbers > 1 + 1e-6)]
    if len(odd):
        raise UsageError(
            f"{name}: {column} {odd[0]:.6g} is no probability: give shares from 0 to 1"
        )


def index_of(labels: pa.Array | pa.ChunkedArray, target: str) -> NDArray[np.int64]:
    """(n,) number of each label's class; -1 for null and for what is no class."""
    found = pc.index_in(_whole(labels), pa.array(CLASSES[target], pa.string()))
    return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), np.int64)
