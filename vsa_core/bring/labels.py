"""A table of labels: what was decided on each segment of somebody else's predictions, and why."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vsa_core import __version__
from vsa_core.bring.predictions import CLASSES_TAG
from vsa_core.config import Agree
from vsa_core.fusion.decide import Decided, decide
from vsa_core.fusion.strategies import Fused, Known
from vsa_core.fusion.views import Views
from vsa_core.labels import Origin
from vsa_core.table_files import write_table_file

MIN_VOTE = Agree().min_confidence
_BATCH_ROWS = 65_536


def labels_of(
    views: Views,
    fused: Fused,
    *,
    min_confidence: float = 0.0,
    known: Known | None = None,
) -> Decided:
    """The label of each segment; what a human said of one stands above everything.

    Args:
        views: n segments with one target.
        fused: what fusing them came to.
        min_confidence: a label less probable than this is not given.
        known: what humans said: there the origin is `human` and the confidence NaN, while the
            probabilities stay those of fusion.
    """
    [target] = views.probs
    opinion = fused.opinion.probs[target]
    decided = decide(views.probs[target], opinion, MIN_VOTE, min_confidence)
    if known is None:
        return decided
    label, confidence = decided.label.copy(), decided.confidence.copy()
    probs, origin = decided.probs.copy(), decided.origin.astype(object)
    label[known.rows] = known.labels
    confidence[known.rows] = np.nan
    probs[known.rows] = opinion[known.rows]
    origin[known.rows] = Origin.HUMAN.value
    return replace(
        decided, label=label, confidence=confidence, probs=probs, origin=origin.astype(np.str_)
    )


def write_labels(
    path: str | Path,
    views: Views,
    fused: Fused,
    decided: Decided,
    *,
    order: NDArray[np.intp] | None = None,
    settings: Mapping[str, Any] | None = None,
    sets: NDArray[np.bool_] | None = None,
) -> None:
    """Write a row per segment: all of them or, when anything fails, nothing.

    Columns: `segment_id`, `video_id`, `label` (null: none), `probs` (in the order of the metadata
    `vsa.classes`; null without an opinion), `confidence` (null: no label, or a human's),
    `agreement`, `origin`, and of each modality `<modality>_vote` (null: absent or abstains) and
    `<modality>_attention` (null: absent, or nothing was used). With `sets` also `label_set`, the
    names of the classes in it, after `confidence`.

    Args:
        path: the file to write or replace; its ending says the format (`table_files.FORMATS`), of
            which only Parquet keeps the metadata.
        views: the n segments, with one target.
        fused: what fusing them came to.
        decided: their labels.
        order: in which order; None as in `views`.
        settings: JSON-able, for the metadata `vsa.settings`.
        sets: (n, K) which classes are in each segment's set.

    Raises:
        UsageError: its ending is none, or the file cannot be written.
    """
    [classes] = views.classes.values()
    names = pa.array(classes, pa.string())
    order = np.arange(len(views)) if order is None else order
    schema = _schema(views.names, classes, fused, settings or {}, sets is not None)
    videos = pa.array(views.videos, pa.string())

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(order), _BATCH_ROWS):
            rows = order[start : start + _BATCH_ROWS]
            columns = [
                views.segment_ids.take(pa.array(rows)),
                videos.take(pa.array(views.video[rows])),
                _named(names, decided.label[rows]),
                _lists(decided.probs[rows]),
                pa.array(decided.confidence[rows].astype(np.float32), from_pandas=True),
                *([_sets(names, sets[rows])] if sets is not None else []),
                pa.array(decided.agreement[rows]),
                pa.array(decided.origin[rows]),
            ]
            columns += [_named(names, votes) for votes in decided.votes[rows].T]
            columns += [
                pa.array(weights.astype(np.float32), from_pandas=True)
                for weights in fused.opinion.attention[rows].T
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    write_table_file(Path(path), schema, batches())


def column_names(modalities: Sequence[str]) -> tuple[str, ...]:
    """What each modality is called in a column's name: letters, digits and `_`, no two alike."""
    found: list[str] = []
    for modality in modalities:
        plain = re.sub(r"\W", "_", modality)
        plain = f"_{plain}" if plain[0].isdigit() else plain
        name, number = plain, 2
        while name.lower() in (other.lower() for other in found):  # SQL takes A and a for one
            name, number = f"{plain}_{number}", number + 1
        found.append(name)
    return tuple(found)


def _schema(
    modalities: Sequence[str],
    classes: Sequence[str],
    fused: Fused,
    settings: Mapping[str, Any],
    with_sets: bool,
) -> pa.Schema:
    fields = [
        pa.field("segment_id", pa.string(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("probs", pa.list_(pa.float32())),
        pa.field("confidence", pa.float32()),
        *([pa.field("label_set", pa.list_(pa.string()))] if with_sets else []),
        pa.field("agreement", pa.string(), nullable=False),
        pa.field("origin", pa.string(), nullable=False),
    ]
    names = column_names(modalities)
    fields += [pa.field(f"{name}_vote", pa.string()) for name in names]
    fields += [pa.field(f"{name}_attention", pa.float32()) for name in names]
    facts = {
        CLASSES_TAG: json.dumps(list(classes), ensure_ascii=False),
        "vsa.version": __version__,
        "vsa.strategy": fused.report["strategy"],
        "vsa.settings": json.dumps(dict(settings), ensure_ascii=False, sort_keys=True),
    }
    return pa.schema(fields, metadata=facts)


def _named(names: pa.Array, index: NDArray[np.intp]) -> pa.Array:
    """The name of each class; null for -1."""
    return names.take(pa.array(index, mask=index < 0))


def _lists(probs: NDArray[np.floating]) -> pa.Array:
    """A list per row; null for a row that is not finite."""
    k = probs.shape[1]
    said = np.isfinite(probs).all(axis=1)
    ends = np.concatenate([[0], np.cumsum(said * k)])
    offsets = pa.array(ends.astype(np.int32), mask=np.append(~said, False))
    return pa.ListArray.from_arrays(offsets, pa.array(probs[said].ravel().astype(np.float32)))


def _sets(names: pa.Array, sets: NDArray[np.bool_]) -> pa.Array:
    """A list of names per row."""
    ends = np.concatenate([[0], np.cumsum(sets.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), names.take(pa.array(np.nonzero(sets)[1])))
