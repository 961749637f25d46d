"""A store's labels against what people know: its own reviews, or a file of truths.

The model's label is scored, not what a review made of it: where the truth is the store's reviews,
those count that the labels did not learn from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vsa_core.errors import StoreError, UsageError
from vsa_core.evaluate import Score, compare_to_truth, confusion_by_video, f1_of, interval_by_video
from vsa_core.fusion.card import read_card
from vsa_core.fusion.registry import known_since
from vsa_core.query import ask
from vsa_core.store import Store
from vsa_core.truths import CLASSES, Truth, read_truth

_LEVEL = 0.95
_COLUMNS = "segment_id, video_id, channel_id, sentiment, emotion, confidence, origin, run_id"
# Of each video's finished runs the latest, as the view `labels` takes them, before reviews.
CURRENT = f"""
SELECT {_COLUMNS} FROM label_history JOIN current_runs USING (video_id, run_id)
"""
_OF_RUN = f"SELECT {_COLUMNS} FROM label_history WHERE run_id = $run"
# A null leaves what an older review said, as in `labels`.
_REVIEWS = """
SELECT
  segment_id,
  arg_max(sentiment, (reviewed_at, review_id)) AS sentiment,
  arg_max(emotion, (reviewed_at, review_id)) AS emotion,
  min(reviewed_at) AS first_at
FROM reviews GROUP BY segment_id
"""


def score(store: Store, truth: Path | None, run_id: str | None = None) -> dict[str, Any]:
    """How right a store's labels are, always with how many of the known segments have one.

    Args:
        store: whose labels.
        truth: CSV or Parquet file with `segment_id` and `sentiment` or `emotion` or both, null
            or empty where nothing is known; None for the store's reviews, of which only those
            count that were first given when the model that labels the segment was already there,
            and all where that model learned from none.
        run_id: the run whose labels; None for each video's latest.

    Returns:
        JSON-able: `truth` and `run_id`; `title`, one line; `notes`, what was left out; `rows`, one
        for each target; and `targets`, by target `n` (segments with a truth and a row in the
        labels), `videos`, `coverage` (share of them that are labelled), `accuracy`, `macro_f1`
        and `weighted_f1` of the labelled ones, each as `value`, `low`, `high` (95 % over whole
        videos; null with fewer than two), `ece`, `labels` and `confusion` (counts by truth and
        label), `by_channel` and `by_origin` (n, coverage, accuracy and macro_f1 each).

    Raises:
        UsageError: no such run or file, a file that is none, no truth about any labelled segment.
        StoreError: a table does not read.
    """
    known = of_reviews(store) if truth is None else read_truth(truth)
    found = _labels(store, known, run_id)
    notes = []
    if missing := len(known.ids) - found.num_rows:
        what = f"of {len(known.ids)} segments in {known.name}" if len(known.ids) else ""
        notes.append(f"{missing} {what} have no row in the labels: they are passed over")
    if truth is None:
        found, learned = not_learned(store, found)
        if learned:
            notes.append(f"{learned} reviews that the labels may have learned from count not")
    targets = {}
    for target in CLASSES:
        told = found.filter(pc.is_valid(found[f"true_{target}"]))
        if told.num_rows:
            targets[target] = _scored(told, target)
    if not targets:
        raise UsageError(_nothing(known, notes, run_id))
    rows = [
        {
            "target": target,
            "n": about["n"],
            "coverage": round(about["coverage"], 3),
            **{name: _shown(about[name]) for name in ("accuracy", "macro_f1", "weighted_f1")},
        }
        for target, about in targets.items()
    ]
    whose = f"labels of run {run_id}" if run_id else "current labels"
    return {
        "truth": known.name,
        "run_id": run_id,
        "title": f"{whose} against {known.name}",
        "notes": notes,
        "rows": rows,
        "targets": targets,
    }


def _scored(told: pa.Table, target: str) -> dict[str, Any]:
    classes = CLASSES[target]
    truth, said = (_index(told[name], classes) for name in (f"true_{target}", target))
    overall = _compared(told, target)
    by_video = confusion_by_video(truth, said, _numbers(told["video_id"]), len(classes))

    def figure(value: float | None, statistic: Any) -> dict[str, float | None]:
        low, high = interval_by_video(by_video, statistic, level=_LEVEL) or (None, None)
        return {"value": value, "low": _within(low), "high": _within(high)}

    return {
        "n": overall.rows,
        "videos": len(by_video),
        "coverage": overall.coverage,
        "accuracy": figure(overall.accuracy, _accuracy),
        "macro_f1": figure(overall.macro_f1, _macro_f1),
        "weighted_f1": figure(overall.weighted_f1, _weighted_f1),
        "ece": overall.ece,
        "labels": list(overall.labels),
        "confusion": [list(row) for row in overall.confusion],
        "by_channel": _apart(told, target, "channel_id"),
        "by_origin": _apart(told, target, "origin"),
    }


def _compared(told: pa.Table, target: str) -> Score:
    truth = told[f"true_{target}"].to_pylist()
    # The confidence in `labels` is the sentiment's.
    sure = {"labels": told["confidence"].to_pylist()} if target == "sentiment" else None
    [found] = compare_to_truth(truth, {"labels": told[target].to_pylist()}, confidences=sure)
    return found


def _apart(told: pa.Table, target: str, column: str) -> dict[str, dict[str, Any]]:
    """Scores by value of a column; `-` where it has none."""
    values = pc.fill_null(told[column], "-")
    found = {}
    for value in sorted(pc.unique(values).to_pylist()):
        part = _compared(told.filter(pc.equal(values, value)), target)
        found[value] = {
            "n": part.rows,
            "coverage": part.coverage,
            "accuracy": part.accuracy,
            "macro_f1": part.macro_f1,
        }
    return found


def _accuracy(total: NDArray[np.number]) -> float:
    """Of counts (K, K + 1) by truth and label, the last column without one; as in `Score`."""
    decided = total[:, :-1].sum()
    return float(np.trace(total) / decided) if decided else float("nan")


def _macro_f1(total: NDArray[np.number]) -> float:
    """As in `Score`: a class that is never labelled counts 0."""
    decided, occurs = total[:, :-1], total.sum(axis=1) > 0
    of_class = 2 * np.diag(decided) / np.maximum(decided.sum(axis=1) + decided.sum(axis=0), 1)
    return float(of_class[occurs].mean()) if decided.any() else float("nan")


def _weighted_f1(total: NDArray[np.number]) -> float:
    return f1_of(total[:, :-1], weighted=True)


def _within(bound: float | None) -> float | None:
    return None if bound is None else min(max(bound, 0.0), 1.0)


def _shown(figure: Mapping[str, float | None]) -> str:
    if figure["value"] is None:
        return "-"
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def _index(labels: pa.ChunkedArray, classes: Sequence[str]) -> NDArray[np.int64]:
    """Number of each label's class; -1 for null."""
    found = pc.index_in(labels, pa.array(classes, pa.string()))
    return np.asarray(pc.fill_null(found, -1).to_numpy(), np.int64)


def _numbers(values: pa.ChunkedArray) -> NDArray[np.int64]:
    encoded = values.combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices.to_numpy(), np.int64)


def _labels(store: Store, known: Truth, run_id: str | None) -> pa.Table:
    """The labels of known segments, with what is known of them as `true_<target>`."""
    if run_id is None:
        answer = ask(store, CURRENT)
    else:
        if store.find("runs", run_id) is None:
            raise UsageError(f"{store.location} has no finished run {run_id!r}: see `vsa status`")
        answer = ask(store, _OF_RUN, {"run": run_id})
    ids = known.ids

    def wanted() -> Iterator[pa.RecordBatch]:
        for batch in answer.batches:
            yield batch.filter(pc.is_in(batch.column("segment_id"), ids))

    found = pa.Table.from_batches(wanted(), answer.schema)
    at = pc.index_in(found["segment_id"], ids)
    for target, labels in known.labels.items():
        found = found.append_column(f"true_{target}", pc.take(labels, at))
    if known.first_at is not None:
        found = found.append_column("first_at", pc.take(known.first_at, at))
    return found


def not_learned(store: Store, found: pa.Table) -> tuple[pa.Table, int]:
    """The segments whose label cannot have learned from their review, and how many others."""
    since = known_since(store)
    fair = np.zeros(found.num_rows, np.bool_)
    columns = ["run_id", "model_id", "model_card"]
    for run in [row for rows in store.scan("runs", columns=columns) for row in rows.to_pylist()]:
        mine = pc.equal(found["run_id"], run["run_id"]).to_numpy()
        if not mine.any():
            continue
        if run["model_card"] is None or not _learned_from_reviews(store, run["model_id"]):
            fair |= mine
        else:
            stood = pa.scalar(since[run["model_id"]], found["first_at"].type)
            fair |= mine & pc.greater(found["first_at"], stood).to_numpy()
    return found.filter(pa.array(fair)), int((~fair).sum())


def _learned_from_reviews(store: Store, model_id: str) -> bool:
    """Whether it may have; a model whose card is gone may."""
    try:
        return bool(read_card(store, model_id)["data"]["reviewed"])
    except StoreError:
        return True


def of_reviews(store: Store) -> Truth:
    """What the reviews of a store say of its segments.

    Raises:
        UsageError: there are none.
    """
    answer = ask(store, _REVIEWS)
    found = pa.Table.from_batches(answer.batches, answer.schema)
    if not found.num_rows:
        raise UsageError(
            f"{store.location} has no reviews: give a file of segment_id and sentiment or emotion"
        )
    columns = {name: found[name].combine_chunks() for name in found.column_names}
    return Truth(
        "reviews",
        columns["segment_id"],
        {target: columns[target] for target in CLASSES},
        columns["first_at"],
    )


def _nothing(known: Truth, notes: Sequence[str], run_id: str | None) -> str:
    """Why there is nothing to score."""
    whose = f"run {run_id}" if run_id else "a finished run"
    because = "; ".join(notes) or "no row says what a segment is"
    return f"nothing in {known.name} can be held against the labels of {whose}: {because}"
