"""Figures of decisions against known classes, and where they lie if videos were drawn anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ECE_BINS = 15
_DRAWS = 1000
# Videos drawn at once, so that memory does not grow with the draws.
_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """How well decisions do on some of the segments.

    Attributes:
        rows: how many of them have a truth.
        coverage: share of those that were decided, in [0, 1].
        accuracy: share right of those decided; None when nothing was decided.
        macro_f1: mean F1, over those decided, of the classes that occur in the truth of all; None
            when nothing was decided.
    """

    rows: int
    coverage: float
    accuracy: float | None
    macro_f1: float | None


@dataclass(frozen=True, slots=True)
class Split:
    """How well decisions do where the views agree, and where they do not."""

    all: Part
    agreeing: Part
    disagreeing: Part


@dataclass(frozen=True, slots=True)
class Bin:
    """The decisions whose confidence is above `low` and up to `high` (0 is in the first).

    Attributes:
        low, high: of the confidence.
        rows: how many.
        confidence: their mean; None without a row.
        accuracy: share right; None without a row.
    """

    low: float
    high: float
    rows: int
    confidence: float | None
    accuracy: float | None


def split_scores(
    truth: NDArray[np.integer],
    decided: NDArray[np.integer],
    agreeing: NDArray[np.bool_],
    disagreeing: NDArray[np.bool_] | None = None,
) -> Split:
    """Scores of n segments, and apart of those whose views agree and of those whose do not.

    Args:
        truth: (n,) index of the class; -1 where it is not known, which counts nowhere.
        decided: (n,) index of the class; -1 abstains.
        agreeing: (n,) where the views agree.
        disagreeing: (n,) where they do not; None takes every segment that is not `agreeing`.
    """
    known = truth >= 0
    others = ~agreeing if disagreeing is None else disagreeing
    return Split(*(_part(truth[m], decided[m]) for m in (known, known & agreeing, known & others)))


def calibration_error(
    confidence: NDArray[np.floating], right: NDArray[np.bool_], bins: int = ECE_BINS
) -> float:
    """Expected calibration error, the mean gap of confidence and accuracy over equal bins.

    Args:
        confidence: (n,) probability of each decision, n > 0.
        right: (n,) whether it was right.
        bins: how many equal parts [0, 1] is cut into.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks.
    """
    gaps = np.bincount(_bin_of(confidence, bins), confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def reliability(
    confidence: NDArray[np.floating], right: NDArray[np.bool_], bins: int = ECE_BINS
) -> tuple[Bin, ...]:
    """The bins of `calibration_error`, each with its confidence and accuracy.

    Args:
        confidence: (n,) probability of each decision.
        right: (n,) whether it was right.
        bins: how many equal parts [0, 1] is cut into.
    """
    index = _bin_of(confidence, bins)
    rows = np.bincount(index, minlength=bins)
    sums = [np.bincount(index, values, minlength=bins) for values in (confidence, right)]
    sure, hits = (total / np.maximum(rows, 1) for total in sums)
    return tuple(
        Bin(
            b / bins,
            (b + 1) / bins,
            int(rows[b]),
            float(sure[b]) if rows[b] else None,
            float(hits[b]) if rows[b] else None,
        )
        for b in range(bins)
    )


def confusion_by_video(
    truth: NDArray[np.integer],
    decided: NDArray[np.integer],
    video: NDArray[np.integer],
    classes: int,
) -> NDArray[np.int64]:
    """Counts (G, K, K + 1) by video, truth and decision; the last column counts those undecided.

    Args:
        truth: (n,) index of the class.
        decided: (n,) index of the class; -1 abstains.
        video: (n,) number of the segment's video, from 0 to G - 1.
        classes: K.
    """
    said = np.where(decided < 0, classes, decided)
    videos = int(video.max(initial=-1)) + 1
    cell = (video.astype(np.int64) * classes + truth) * (classes + 1) + said
    size = videos * classes * (classes + 1)
    return np.bincount(cell, minlength=size).reshape(videos, classes, classes + 1)


def f1_of(confusion: NDArray[np.number], *, weighted: bool = False) -> float:
    """Mean F1 of the classes that occur in the truth; NaN where none does.

    Args:
        confusion: (K, K or more) counts by truth and decision; a decision beyond the K classes is
            right for none.
        weighted: by how often each class occurs, instead of all alike.
    """
    k = len(confusion)
    support = confusion.sum(axis=1)
    occurs = support > 0
    if not occurs.any():
        return float("nan")
    of_class = 2 * np.diag(confusion) / np.maximum(support + confusion.sum(axis=0)[:k], 1)
    return float(np.average(of_class[occurs], weights=support[occurs] if weighted else None))


def interval_by_video(
    sums: NDArray[np.number],
    statistic: Callable[[NDArray[np.number]], float],
    *,
    level: float = 0.9,
    draws: int = _DRAWS,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Where a figure lies if videos like these were drawn anew; None with fewer than two videos.

    A bootstrap over whole videos, for segments of one video err together. Its standard error is
    taken times Student's t of as many videos: percentiles of a few videos are far too narrow.

    Args:
        sums: (G, ...) what the figure is made from, by video.
        statistic: the figure of the total (...) of any videos; NaN where it has none.
        level: probability that the interval holds the figure; half of the rest lies on each side.
        draws: how often videos are drawn.
        seed: of the draws.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap; Cameron, Gelbach and
    Miller 2008, Bootstrap-Based Improvements for Inference with Clustered Errors.
    """
    from scipy.stats import t

    videos = len(sums)
    if videos < 2:
        return None
    rng = np.random.default_rng(seed)
    even = np.full(videos, 1 / videos)
    # Only floats are multiplied fast, and counts are exact in them.
    exact = sums.astype(np.float64)
    found: list[float] = []
    while len(found) < draws:
        times = rng.multinomial(videos, even, min(draws - len(found), max(_AT_ONCE // videos, 1)))
        found.extend(map(statistic, np.tensordot(times.astype(np.float64), exact, axes=1)))
    drawn = np.array(found)
    drawn = drawn[np.isfinite(drawn)]
    value = statistic(sums.sum(axis=0))
    if not len(drawn) or not np.isfinite(value):
        return None
    # Of so few videos draws vary less than new videos would.
    error = float(drawn.std()) * np.sqrt(videos / (videos - 1))
    reach = float(t.ppf(0.5 + level / 2, videos - 1)) * error
    return float(value - reach), float(value + reach)


def _bin_of(confidence: NDArray[np.floating], bins: int) -> NDArray[np.int64]:
    # A confidence on an edge belongs to the bin below it, so that 1 has one.
    index: NDArray[np.int64] = np.ceil(confidence * bins).astype(np.int64) - 1
    return np.clip(index, 0, bins - 1)


def _part(truth: NDArray[np.integer], decided: NDArray[np.integer]) -> Part:
    made = decided >= 0
    if not made.any():
        return Part(len(truth), 0.0, None, None)
    true, said = truth[made], decided[made]
    k = int(max(truth.max(), decided.max())) + 1
    hits = np.bincount(true[true == said], minlength=k)
    f1 = 2 * hits / np.maximum(np.bincount(true, minlength=k) + np.bincount(said, minlength=k), 1)
    return Part(
        len(truth),
        float(made.mean()),
        float((true == said).mean()),
        float(f1[np.unique(truth)].mean()),
    )
