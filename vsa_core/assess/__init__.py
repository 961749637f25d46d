"""How right predictions are, with everything a person asks next; two systems side by side.

`assess_files` takes what a person names, `assess` predictions and what is known of the segments,
`assess_arrays` plain arrays, as training has them. A segment that is known and not predicted is one
that was not decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vsa_core.assess.given import (
    CONFIDENCES,
    KINDS,
    VOTES,
    Predictions,
    read_known,
    read_predictions,
    video_of,
)
from vsa_core.assess.paired import Comparison, compare
from vsa_core.assess.target import TargetAssessment, assess_arrays
from vsa_core.errors import UsageError
from vsa_core.truths import CLASSES, LABEL, TARGETS, Truth, classes_in

__all__ = ["Assessment", "Mistake", "TargetAssessment", "assess", "assess_arrays", "assess_files"]

_VIDEOS = 100


@dataclass(frozen=True, slots=True)
class Mistake:
    """A decision that is wrong; what is not known is None.

    Attributes:
        segment_id, video_id: where.
        start_ms, end_ms: its place in the video.
        text: what is said, written by anybody.
        truth, said: the class it is, and the one decided.
        confidence: of the decision.
        votes: by modality what it said alone.
    """

    segment_id: str
    video_id: str
    start_ms: int | None
    end_ms: int | None
    text: str | None
    truth: str
    said: str
    confidence: float | None
    votes: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Assessment:
    """How right predictions are.

    Attributes:
        predictions, truth: what was held against what.
        against: name of the other predictions; None without.
        targets: by target the figures.
        others: by target those of the other predictions.
        comparisons: by target both side by side.
        mistakes: by target the worst decisions, the most confident first.
        notes: what was left out or is odd, one line each.
    """

    predictions: str
    truth: str
    against: str | None
    targets: Mapping[str, TargetAssessment]
    others: Mapping[str, TargetAssessment]
    comparisons: Mapping[str, Comparison]
    mistakes: Mapping[str, tuple[Mistake, ...]]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; by_video has the 100 worst, the curve 100 points."""
        return {
            "predictions": self.predictions,
            "truth": self.truth,
            "against": self.against,
            "targets": {
                target: {**_target_dict(about), "mistakes": [*map(asdict, self.mistakes[target])]}
                for target, about in self.targets.items()
            },
            "others": {target: _target_dict(about) for target, about in self.others.items()},
            "comparisons": {t: asdict(comparison) for t, comparison in self.comparisons.items()},
            "notes": list(self.notes),
        }


def assess_files(
    predictions: str | Path,
    truth: str | Path,
    *,
    against: str | Path | None = None,
    targets: Sequence[str] = TARGETS,
    run_id: str | None = None,
) -> Assessment:
    """Hold files or stores against each other.

    Args:
        predictions, against: as `given.read_predictions`.
        truth: as `given.read_known`.
        targets: as `assess`.
        run_id: of a store, the run whose labels are assessed; None for each video's latest.

    Raises:
        UsageError: as `assess`, or a file does not read.
        StoreError: a table does not read.
    """
    said = read_predictions(predictions, run_id)
    known, notes = read_known(truth, said)
    others = None if against is None else read_predictions(against)
    return assess(said, known, against=others, targets=targets, notes=notes)


def assess(
    predictions: Predictions,
    truth: Truth,
    *,
    against: Predictions | None = None,
    targets: Sequence[str] = TARGETS,
    notes: Sequence[str] = (),
) -> Assessment:
    """Hold predictions against what is known, target by target.

    Args:
        predictions: of a system (`given.read_predictions`, `given.predictions_of`).
        truth: of some of the segments; they all count, predicted or not.
        against: of another system, compared on the same segments.
        targets: which; of several those are passed over, with a note, of which nothing is known or
            nothing is said; `label`, of any classes, is one where there is no other.
        notes: to stand before those found here.

    Raises:
        UsageError: nothing is known, or nothing said, of any target asked for, or no known segment
            is among the predictions.
    """
    if not len(truth.ids) or truth.ids.null_count:
        raise UsageError(f"{truth.name} has no segments, or some without an id: give each its id")
    found = [*notes]
    systems = [predictions] if against is None else [predictions, against]
    for system in systems:
        found += _unmatched(system, truth)
    abouts: list[dict[str, TargetAssessment]] = [{} for _ in systems]
    comparisons: dict[str, Comparison] = {}
    mistakes: dict[str, tuple[Mistake, ...]] = {}
    absent = []
    for target in targets:
        if target == LABEL and (abouts[0] or LABEL not in truth.labels):
            continue
        reason = _absent(target, systems, truth)
        if reason is not None:
            absent.append(reason)
            continue
        classes = _classes(target, systems, truth)
        rows = [_rows(system, truth, target, classes) for system in systems]
        if target == LABEL:
            found += _named_apart(rows, systems, truth)
        for about, mine, system in zip(abouts, rows, systems, strict=True):
            about[target] = mine.assessed()
            if about[target].unsure and about[target].bins:
                found.append(
                    f"{about[target].unsure} {target} labels of {system.name} have no confidence: "
                    "calibration and risk by coverage are without them"
                )
        mistakes[target] = rows[0].mistakes(abouts[0][target].worst)
        if against is not None:
            video = np.unique(rows[0].videos, return_inverse=True)[1]
            said = [mine.said for mine in rows]
            comparisons[target] = compare(rows[0].truth, said[0], said[1], video, len(classes))
    if not abouts[0]:
        raise UsageError("; ".join(absent))
    return Assessment(
        predictions.name,
        truth.name,
        None if against is None else against.name,
        abouts[0],
        abouts[1] if against is not None else {},
        comparisons,
        mistakes,
        (*found, *absent),
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    """What is said of the n segments whose class is known; -1 and null where nothing is."""

    target: str
    classes: tuple[str, ...]
    truth: NDArray[np.int64]
    said: NDArray[np.int64]
    videos: NDArray[np.str_]
    table: pa.Table

    def assessed(self) -> TargetAssessment:
        confidence = _floats(self.table[CONFIDENCES[self.target]])
        lengths, unit = self._lengths()
        return assess_arrays(
            self.truth,
            self.said,
            self.videos,
            self.classes,
            confidence=confidence,
            lengths=lengths,
            unit=unit,
            kinds={k: pc.fill_null(self.table[k], "-").to_pylist() for k in KINDS if self._has(k)},
        )

    def _has(self, column: str) -> bool:
        return self.table[column].null_count < self.table.num_rows

    def _lengths(self) -> tuple[NDArray[np.float64], str]:
        """In seconds; where no time is known in words."""
        seconds = (_floats(self.table["end_ms"]) - _floats(self.table["start_ms"])) / 1000
        if np.isfinite(seconds).any():
            return seconds, "s"
        texts = self.table["text"].to_pylist()
        words = [float("nan") if text is None else float(len(text.split())) for text in texts]
        return np.array(words, np.float64), "words"

    def mistakes(self, rows: Sequence[int]) -> tuple[Mistake, ...]:
        classes = self.classes
        picked = self.table.take(pa.array(rows, pa.int64())).to_pylist()
        return tuple(
            Mistake(
                about["segment_id"],
                str(self.videos[row]),
                _whole_number(about["start_ms"]),
                _whole_number(about["end_ms"]),
                about["text"],
                classes[self.truth[row]],
                classes[self.said[row]],
                about[CONFIDENCES[self.target]],
                {vote.removesuffix("_vote"): about[vote] for vote in VOTES},
            )
            for row, about in zip(rows, picked, strict=True)
        )


def _classes(target: str, systems: Sequence[Predictions], truth: Truth) -> tuple[str, ...]:
    if target in CLASSES:
        return CLASSES[target]
    said = (
        labels.unique() for labels in (truth.labels[target], *(s.table[target] for s in systems))
    )
    return tuple(sorted({name for some in said for name in some.to_pylist()} - {None}))


def _rows(system: Predictions, truth: Truth, target: str, classes: tuple[str, ...]) -> _Rows:
    known = pc.is_valid(truth.labels[target])
    ids = truth.ids.filter(known)
    at = pc.index_in(ids, system.table["segment_id"].combine_chunks())
    table = system.table.take(at)
    videos = pc.coalesce(table["video_id"].combine_chunks(), video_of(ids))
    table = table.set_column(table.column_names.index("segment_id"), "segment_id", ids)
    return _Rows(
        target,
        classes,
        _index(truth.labels[target].filter(known), classes),
        _index(table[target].combine_chunks(), classes),
        np.array(videos.to_pylist(), np.str_),
        table,
    )


def _named_apart(rows: Sequence[_Rows], systems: Sequence[Predictions], truth: Truth) -> list[str]:
    """A line for each system none of whose classes is one of the truth."""
    notes = []
    for mine, system in zip(rows, systems, strict=True):
        said, known = (
            {mine.classes[k] for k in np.unique(those[those >= 0])}
            for those in (mine.said, mine.truth)
        )
        if said and not said & known:
            notes.append(
                f"no class is both in {system.name} ({_few(said)}) and in {truth.name} "
                f"({_few(known)}): if they mean the same, name them alike, as `vsa label --classes`"
                " does"
            )
    return notes


def _few(names: set[str]) -> str:
    first = sorted(names)
    return ", ".join(first[:3]) + (" …" if len(first) > 3 else "")


def _absent(target: str, systems: Sequence[Predictions], truth: Truth) -> str | None:
    """Why a target cannot be assessed; None where it can."""
    if target not in truth.labels or truth.labels[target].null_count == len(truth.ids):
        return f"{truth.name} says no segment's {target}"
    for system in systems:
        if target not in system.targets:
            return f"{system.name} has no column {target}: it is not assessed"
    return None


def _unmatched(system: Predictions, truth: Truth) -> list[str]:
    ids = system.table["segment_id"].combine_chunks()
    there = pc.is_in(truth.ids, ids)
    if not there.true_count:
        raise UsageError(
            f"none of the {len(truth.ids)} segments in {truth.name} is in {system.name}, "
            f"{truth.ids[0].as_py()!r} for one: give the truth of these segments"
        )
    notes = []
    if missing := there.false_count:
        notes.append(
            f"{missing} of {len(there)} segments in {truth.name} are not in {system.name}: they "
            "count as not covered"
        )
    if unknown := pc.invert(pc.is_in(ids, truth.ids)).true_count:
        notes.append(
            f"{unknown} of {len(ids)} segments in {system.name} are not in {truth.name}: they are "
            "passed over"
        )
    return notes


def _target_dict(about: TargetAssessment) -> dict[str, Any]:
    shown = {name: getattr(about, name) for name in about.__slots__}
    curve = about.curve.thinned() if about.curve is not None else None
    columns = ("threshold", "coverage", "risk")
    return {
        **{name: _plain(value) for name, value in shown.items() if name not in ("curve", "worst")},
        "by_video": [asdict(part) for part in about.by_video[:_VIDEOS]],
        "curve": None if curve is None else {n: getattr(curve, n).tolist() for n in columns},
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value


def _index(labels: pa.Array, classes: Sequence[str]) -> NDArray[np.int64]:
    """(n,) number of each label's class; -1 for null."""
    return np.asarray(pc.fill_null(classes_in(labels, classes), -1).to_numpy(), np.int64)


def _floats(values: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(pc.cast(values, pa.float64()).to_numpy(), np.float64)


def _whole_number(value: float | None) -> int | None:
    return None if value is None else round(value)
