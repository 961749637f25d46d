"""What is assessed: predictions of a file or a store, and what is known of the segments."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vsa_core.assess.reviewed import CURRENT, OF_RUN, not_learned, of_reviews
from vsa_core.bring.files import columns_of, number_column, text_column
from vsa_core.errors import StoreError, UsageError
from vsa_core.labels import MODALITIES
from vsa_core.query import ask
from vsa_core.schemas import vote_column
from vsa_core.store import Store
from vsa_core.truths import CLASSES, LABEL, TARGETS, Truth, check_ids, labels_in, read_truth

CONFIDENCES = {"sentiment": "confidence", "emotion": "emotion_confidence", LABEL: "confidence"}
VOTES = tuple(vote_column(modality) for modality in MODALITIES)
# What predictions may be parted by, beside their videos.
KINDS = ("origin", "channel_id")
_WORDS = ("segment_id", "video_id", *TARGETS, "text", *VOTES, *KINDS)
_NUMBERS = (*dict.fromkeys(CONFIDENCES.values()), "start_ms", "end_ms")
_TIMED = re.compile(r"(.+)-\d+-\d+")
# What people call a store's video, beside its id.
_NAMES = """
SELECT video_id, unnest([
  title, source_url, media_path, parse_filename(media_path), parse_filename(media_path, true)
]) AS name FROM videos
"""


@dataclass(frozen=True, slots=True)
class Predictions:
    """What one system says of m segments.

    Attributes:
        name: the file's, or where the store is.
        table: m rows with segment_id (each once), video_id, the targets, text, votes, origin and
            channel_id (strings) and confidence, emotion_confidence, start_ms, end_ms (float64);
            null where a label is not given or something is not known.
        targets: those it says something of, decided or not.
        store: where it is of a store; with `run_id` in the table.
    """

    name: str
    table: pa.Table
    targets: tuple[str, ...]
    store: Store | None = None


def read_predictions(where: str | Path, run_id: str | None = None) -> Predictions:
    """What a system says, checked.

    Args:
        where: a table, as `bring.files.table_parts`, with `segment_id`, and `sentiment` or
            `emotion` or both, or `label` (empty or null abstains); it may have `video_id`,
            `confidence`, `emotion_confidence`, `start_ms`, `end_ms`, `text`, `face_vote`,
            `text_vote`, `audio_vote`, `origin` and `channel_id`. Or a store's folder or s3://
            address: its models' labels, whatever a review made of them.
        run_id: of a store, the run whose labels; None for each video's latest.

    Raises:
        UsageError: it does not read, lacks a column, a value is none of its column's, no such run.
        StoreError: a table does not read.
    """
    store = _store(where)
    if store is None:
        return predictions_of(columns_of(where, _WORDS, _NUMBERS), str(where))
    if run_id is None:
        answer = ask(store, CURRENT)
    elif store.find("runs", run_id) is None:
        raise UsageError(f"{store.location} has no finished run {run_id!r}: see `vsa status`")
    else:
        answer = ask(store, OF_RUN, {"run": run_id})
    found = pa.Table.from_batches(answer.batches, answer.schema)
    if not found.num_rows:
        raise UsageError(f"{store.location} has no labels of a finished run: see `vsa status`")
    said = predictions_of(found, store.location)
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
    if "segment_id" not in columns:
        raise UsageError(f"{name} lacks the column segment_id: each row needs one")
    n = len(columns["segment_id"])
    if not n:
        raise UsageError(f"{name} has no rows: there is nothing to assess")
    held = {
        column: read(_whole(columns[column]), f"{name}: column {column}")
        for read, wanted in ((text_column, _WORDS), (number_column, _NUMBERS))
        for column in wanted
        if column in columns
    }
    check_ids(held["segment_id"], name)
    said = labels_in(held, name)
    for column in dict.fromkeys(CONFIDENCES.values()):
        if column in held:
            _check_shares(held[column], column, name)
    held |= said
    held |= {c: pa.nulls(n, pa.string()) for c in _WORDS if c not in held}
    held |= {c: pa.nulls(n, pa.float64()) for c in _NUMBERS if c not in held}
    held["video_id"] = pc.coalesce(held["video_id"], video_of(held["segment_id"]))
    return Predictions(name, pa.table(held), tuple(t for t in TARGETS if t in said))


def read_known(where: str | Path, predictions: Predictions) -> tuple[Truth, tuple[str, ...]]:
    """What is known of segments, and what of it was left out, one line each.

    Args:
        where: as `truths.read_truth`, a line of a video and its times being held against the
            segment that covers most of it; or a store's folder or s3:// address: its reviews. Where
            the predictions are of the same store, those count that the labels did not learn from.

    Raises:
        UsageError: it does not read, or says nothing.
        StoreError: a table does not read.
    """
    store = _store(where)
    if store is None:
        known = read_truth(where)
        return (known if known.places is None else located(known, predictions)), known.notes
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
    raise StoreError(f"no store at {where}: give the folder of one, or a table")


def _whole(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _check_shares(values: pa.Array, column: str, name: str) -> None:
    numbers = values.drop_null().to_numpy(zero_copy_only=False)
    # A store's are float32.
    odd = numbers[(numbers < 0) | (numbers > 1 + 1e-6)]
    if len(odd):
        raise UsageError(
            f"{name}: {column} {odd[0]:.6g} is no probability: give shares from 0 to 1"
        )


def located(truth: Truth, predictions: Predictions) -> Truth:
    """Truth of places as truth of segments: for each the one that covers most of it, half at least.

    A segment may stand for several places; a place without one keeps an id that no segment has.
    """
    assert truth.places is not None
    table = predictions.table
    segments: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    columns = (table[name].to_pylist() for name in ("video_id", "start_ms", "end_ms", "segment_id"))
    for video, start, end, segment in zip(*columns, strict=True):
        if start is not None and end is not None:
            segments[video].append((start, end, segment))
    names = _names(predictions, segments)
    ids = []
    for own, place in zip(truth.ids.to_pylist(), truth.places.to_pylist(), strict=True):
        video, start, end = place.values()
        video = names.get(video, video)
        best, covering = max(
            ((min(end, e) - max(start, s), name) for s, e, name in segments.get(video, ())),
            default=(0.0, ""),
        )
        taken = covering if best > 0 and 2 * best >= end - start else None
        ids.append(taken or own.replace(place["video"], video, 1))
    return replace(truth, ids=pa.array(ids, pa.string()), places=None)


def _names(predictions: Predictions, videos: Iterable[str]) -> dict[str, str]:
    """The video that each name means; none that several have."""
    found: dict[str, set[str]] = defaultdict(set)
    for video in videos:
        found[video].add(video)
    if predictions.store is not None:
        for row in ask(predictions.store, _NAMES).rows():
            found[row["name"]].add(row["video_id"])
    return {name: next(iter(those)) for name, those in found.items() if len(those) == 1}
