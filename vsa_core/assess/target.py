"""How right decisions about one target are: every figure, its interval, and where they fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsa_core.agree import has_unique_top
from vsa_core.assess.figures import (
    ClassScore,
    Figure,
    accuracy_of,
    class_scores,
    known,
    mean_of_classes,
    with_interval,
)
from vsa_core.errors import UsageError
from vsa_core.evaluate import Bin, calibration_error, confusion_by_video, reliability
from vsa_core.fusion.abstain import RiskCoverage, risk_coverage

# Shares of all rows at which it is said how right the most confident ones are.
COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.5)
_WORST = 50


@dataclass(frozen=True, slots=True)
class Kept:
    """How right the most confident decisions are.

    Attributes:
        asked: share of all rows to be kept.
        coverage: the least share from there on; decisions of equal confidence stay together.
            None where fewer have a confidence.
        threshold: least confidence kept; None as above.
        accuracy: share right of those kept; None as above.
    """

    asked: float
    coverage: float | None
    threshold: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Part:
    """Figures of some of the rows.

    Attributes:
        name: the video, or the range of lengths.
        n: rows with a truth.
        coverage: share decided.
        accuracy: share right of those decided; None where none is.
        weighted_f1: of those decided; None where none is.
    """

    name: str
    n: int
    coverage: float
    accuracy: float | None
    weighted_f1: float | None


@dataclass(frozen=True, slots=True)
class TargetAssessment:
    """How right the decisions about one target are.

    All but `n`, `coverage` and `support` is over the rows decided; who decides less is seen in the
    coverage, and nowhere else.

    Attributes:
        classes: K names.
        n: rows with a truth, decided or not.
        videos: how many videos they are of.
        coverage: share decided.
        accuracy, macro_f1, weighted_f1: macro F1 is the mean over the classes that occur in the
            truth of all rows, decided or not: one on which it never decides counts 0.
        macro_precision, macro_recall, weighted_precision, weighted_recall: means as the F1's; None
            where nothing was decided.
        by_class: each class by itself.
        confusion: K rows (truth) of K + 1 counts (decision; the last abstained).
        unsure: decided rows without a confidence; calibration and curve know nothing of them.
        ece: expected calibration error; None without confidences.
        bins: the reliability table; empty without confidences.
        curve: risk at every threshold of confidence; None without confidences.
        aurc: area under risk over coverage, a mean over the coverage reached; None without.
        kept: accuracy at some coverages; empty without confidences.
        by_video: every video, the least accurate first, those without a decision last.
        by_length: quarters of the lengths; empty where no length is known.
        by_kind: by kind (such as where the label comes from) the rows of each value.
        worst: rows (of the arrays given) that are wrong, the most confident first; 50 at most.
    """

    classes: tuple[str, ...]
    n: int
    videos: int
    coverage: Figure
    accuracy: Figure
    macro_f1: Figure
    weighted_f1: Figure
    macro_precision: float | None
    macro_recall: float | None
    weighted_precision: float | None
    weighted_recall: float | None
    by_class: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    unsure: int
    ece: float | None
    bins: tuple[Bin, ...]
    curve: RiskCoverage | None
    aurc: float | None
    kept: tuple[Kept, ...]
    by_video: tuple[Part, ...]
    by_length: tuple[Part, ...]
    by_kind: Mapping[str, tuple[Part, ...]]
    worst: tuple[int, ...]


def assess_arrays(
    truth: NDArray[np.integer],
    said: NDArray[Any],
    groups: Sequence[str] | NDArray[Any],
    classes: Sequence[str],
    *,
    confidence: NDArray[np.floating] | None = None,
    lengths: NDArray[np.floating] | None = None,
    unit: str = "s",
    kinds: Mapping[str, Sequence[str]] | None = None,
    intervals: bool = True,
) -> TargetAssessment:
    """Every figure of n decisions.

    Args:
        truth: (n,) index of the class; -1 where it is not known, which counts nowhere.
        said: (n, K) probabilities, of which the highest decides (a tie or NaN abstains); or (n,)
            index of the class decided, -1 abstains.
        groups: (n,) the video or dialogue of each row.
        classes: K names.
        confidence: (n,) probability of each decision, NaN where not known; None takes the highest
            of the probabilities, and without any has none.
        lengths: (n,) of the segments, NaN where not known.
        unit: of the lengths.
        kinds: name → (n,) values to part the rows by.
        intervals: whether to draw videos for intervals; without it takes milliseconds.

    Raises:
        UsageError: the arrays do not fit each other, or no truth is known.
    """
    truth, groups = np.asarray(truth), np.asarray(groups)
    decided, confidence = _decisions(np.asarray(said), confidence, len(classes))
    for name, rows in (("decisions", decided), ("groups", groups), ("lengths", lengths)):
        if rows is not None and len(rows) != len(truth):
            raise UsageError(f"{len(rows)} {name} for {len(truth)} rows with a truth: give as many")
    if len(truth) and max(truth.max(), decided.max()) >= len(classes):
        raise UsageError(f"a class above {len(classes) - 1}: there are {len(classes)}, from 0")
    at = np.flatnonzero(truth >= 0)
    if not len(at):
        raise UsageError("no row has a truth: there is nothing to assess")
    truth, decided = truth[at], decided[at]
    names, counts = _by_value(truth, decided, groups[at], classes)
    total = counts.sum(axis=0)

    def figure(statistic: Callable[[NDArray[np.number]], float]) -> Figure:
        return with_interval(counts, statistic, bounds=(0.0, 1.0), wanted=intervals)

    def mean(what: str, weighted: bool) -> float | None:
        return known(mean_of_classes(total, what, weighted=weighted))

    made, right = decided >= 0, decided == truth
    sure = np.full(len(truth), np.nan) if confidence is None else confidence[at].astype(np.float64)
    sure = np.where(made, sure, np.nan)
    judged = np.isfinite(sure)
    # Rows that nothing is known of lower its coverage, as they should.
    curve = risk_coverage(sure, right=right) if judged.any() else None
    wrong = np.flatnonzero(made & ~right)
    worst = wrong[np.argsort(-np.nan_to_num(sure[wrong], nan=-1.0), kind="stable")]
    parts = list(map(_part, names, counts))
    return TargetAssessment(
        classes=tuple(map(str, classes)),
        n=len(truth),
        videos=len(names),
        coverage=figure(lambda sums: float(sums[:, :-1].sum() / sums.sum())),
        accuracy=figure(accuracy_of),
        macro_f1=figure(mean_of_classes),
        weighted_f1=figure(lambda sums: mean_of_classes(sums, weighted=True)),
        macro_precision=mean("precision", False),
        macro_recall=mean("recall", False),
        weighted_precision=mean("precision", True),
        weighted_recall=mean("recall", True),
        by_class=class_scores(total, classes),
        confusion=tuple(tuple(map(int, row)) for row in total),
        unsure=int((made & ~judged).sum()),
        ece=calibration_error(sure[judged], right[judged]) if judged.any() else None,
        bins=reliability(sure[judged], right[judged]) if judged.any() else (),
        curve=curve,
        aurc=None if curve is None else curve.aurc,
        kept=() if curve is None else tuple(_kept(curve, asked) for asked in COVERAGES),
        by_video=tuple(sorted(parts, key=_badness)),
        by_length=() if lengths is None else _by_length(truth, decided, lengths[at], unit, classes),
        by_kind={
            kind: tuple(map(_part, *_by_value(truth, decided, np.asarray(values)[at], classes)))
            for kind, values in (kinds or {}).items()
        },
        worst=tuple(map(int, at[worst[:_WORST]])),
    )


def _decisions(
    said: NDArray[Any], confidence: NDArray[np.floating] | None, classes: int
) -> tuple[NDArray[np.int64], NDArray[np.floating] | None]:
    if said.ndim == 1:
        return said.astype(np.int64), confidence
    if said.ndim != 2 or said.shape[1] != classes:
        raise UsageError(f"probabilities of shape {said.shape} for {classes} classes")
    decided = np.where(has_unique_top(said), np.nan_to_num(said).argmax(axis=1), -1)
    return decided, said.max(axis=1) if confidence is None else confidence


def _kept(curve: RiskCoverage, asked: float) -> Kept:
    enough = np.flatnonzero(curve.coverage >= asked - 1e-9)
    if not len(enough):
        return Kept(asked, None, None, None)
    at = enough[0]
    coverage, threshold, risk = (x[at] for x in (curve.coverage, curve.threshold, curve.risk))
    return Kept(asked, float(coverage), float(threshold), float(1 - risk))


def _by_value(
    truth: NDArray[np.integer],
    decided: NDArray[np.integer],
    values: NDArray[Any],
    classes: Sequence[str],
) -> tuple[list[str], NDArray[np.int64]]:
    """The g values that occur, and the counts (g, K, K + 1) of their rows by truth and decision."""
    names, of = np.unique(values, return_inverse=True)
    counts = confusion_by_video(truth, decided, of.astype(np.int64), len(classes))
    return list(map(str, names)), counts


def _part(name: str, confusion: NDArray[np.integer]) -> Part:
    return Part(
        name,
        int(confusion.sum()),
        float(confusion[:, :-1].sum() / confusion.sum()),
        known(accuracy_of(confusion)),
        known(mean_of_classes(confusion, weighted=True)),
    )


def _badness(part: Part) -> tuple[float, int, str]:
    return 2.0 if part.accuracy is None else part.accuracy, -part.n, part.name


def _by_length(
    truth: NDArray[np.integer],
    decided: NDArray[np.integer],
    lengths: NDArray[np.floating],
    unit: str,
    classes: Sequence[str],
) -> tuple[Part, ...]:
    """Quarters by length, as far as equal lengths, which stay together, can be parted."""
    told = np.isfinite(lengths)
    if not told.any():
        return ()
    edges = np.quantile(lengths[told], [0.25, 0.5, 0.75])
    quarter = np.where(told, np.searchsorted(edges, lengths), 4)
    present, counts = _by_value(truth, decided, quarter, classes)

    def name(q: int) -> str:
        if q == 4:
            return "length not known"
        low, high = (f"{x:.4g}" for x in (lengths[quarter == q].min(), lengths[quarter == q].max()))
        return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"

    return tuple(map(_part, map(name, map(int, present)), counts))
