"""A few reviewed segments: which to choose, and how right the labels are by them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from vsa_core.errors import UsageError
from vsa_core.fusion.calibrate import Recalibration, recalibrate

# No segment is so sure that it is never chosen: a confident mistake must have a chance.
_LEAST_SPREAD = 0.15
BLIND = "agreement of the views; blind to what all views get wrong together"


@dataclass(frozen=True, slots=True)
class Estimate:
    """How many of the labels are right, as far as is known.

    Attributes:
        value: estimated share right of the segments that have a label; None where nothing can be
            said.
        low, high: an interval that holds it with probability `level`; None without reviews.
        level: of the interval.
        method: one line: what the estimate rests on.
        reviewed: how many reviews it rests on.
    """

    value: float | None
    low: float | None
    high: float | None
    level: float
    method: str
    reviewed: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """Segments to review.

    Attributes:
        rows: (r,) which, ascending.
        inclusion: (n,) probability in [0, 1] of each segment to be chosen; 0 without a label.
    """

    rows: NDArray[np.intp]
    inclusion: NDArray[np.float64]


def choose_for_review(
    confidence: NDArray[np.floating],
    count: int = 100,
    *,
    agree: NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> Chosen:
    """The segments whose review says most about how right all labels are.

    Segments are put in order of agreement and confidence and drawn systematically, with
    probabilities in proportion to the standard deviation `sqrt(c (1 - c))` of being right: every
    level of confidence has its share (stratification), the unsure ones more than theirs (Neyman).

    Args:
        confidence: (n,) of the labels, best calibrated; NaN where there is none.
        count: how many; all that have a label where they are fewer.
        agree: (n,) whether the votes agree; None leaves it out.
        seed: of the draw; the same gives the same.

    Raises:
        UsageError: a count below 1.

    Source: Neyman 1934; Särndal, Swensson and Wretman 1992, Model Assisted Survey Sampling.
    """
    if count < 1:
        raise UsageError(f"{count} segments cannot be reviewed: ask for 1 or more")
    rng = np.random.default_rng(seed)
    labelled = np.flatnonzero(np.isfinite(confidence))
    c = confidence[labelled].astype(np.float64)
    inclusion = np.zeros(len(confidence))
    share = _inclusion(np.maximum(np.sqrt(np.clip(c * (1 - c), 0, None)), _LEAST_SPREAD), count)
    inclusion[labelled] = share
    if count >= len(labelled):
        return Chosen(labelled, inclusion)
    groups = agree[labelled] if agree is not None else np.zeros(len(c))
    order = np.lexsort((rng.random(len(c)), c, groups))
    ends = np.cumsum(share[order])
    # The last end is `count` but for rounding.
    picks = np.searchsorted(ends[:-1], np.arange(count) + rng.random(), side="right")
    return Chosen(np.sort(labelled[order[picks]]), inclusion)


def held_out(
    fit: Callable[[NDArray[np.intp], NDArray[np.intp]], NDArray[np.float64]],
    rows: NDArray[np.intp],
    labels: NDArray[np.intp],
    *,
    folds: int = 5,
    seed: int = 0,
) -> NDArray[np.float64]:
    """What a fit that uses reviews says of every segment, without having seen its own review.

    Args:
        fit: takes reviewed rows and their labels, gives probabilities (n, K) of all segments.
        rows: (r,) reviewed segments.
        labels: (r,) index of their class.
        folds: how many parts, 2 or more, the reviews are cut into; each is judged by a fit on the
            others. Few folds are quick and make labels look worse than they are.
        seed: of the cut.

    Returns:
        (n, K): of the reviewed rows from the folds, of all others from the fit on all reviews.
        Its confidences and hits are what `recalibrate` and `estimate_accuracy` need.
    """
    out = fit(rows, labels).copy()
    fold = np.random.default_rng(seed).permutation(np.arange(len(rows)) % max(folds, 2))
    for part in np.unique(fold):
        aside = fold == part
        out[rows[aside]] = fit(rows[~aside], labels[~aside])[rows[aside]]
    return out


def estimate_without_reviews(expected: NDArray[np.floating]) -> Estimate:
    """The accuracy that agreement suggests.

    Args:
        expected: (n,) probability of each label by `cocalibrate`; NaN where there is no label.
    """
    seen = np.isfinite(expected)
    value = float(expected[seen].mean()) if seen.any() else None
    return Estimate(value, None, None, 0.95, BLIND if seen.any() else "no label", 0)


def estimate_accuracy(
    confidence: NDArray[np.floating],
    rows: NDArray[np.intp],
    right: NDArray[np.bool_],
    *,
    agree: NDArray[np.bool_] | None = None,
    inclusion: NDArray[np.floating] | None = None,
    method: str = "model",
    level: float = 0.95,
) -> Estimate:
    """How right the labels are, by reviews and confidences together.

    `model` corrects the confidences by the reviews (`recalibrate`) and takes their mean: least
    error, but it leans towards the confidences where reviews are few; any selection by confidence
    and agreement will do. `difference` adds to that mean what the reviewed segments were off,
    weighed by their inclusion: without bias whatever the confidences are worth, with more scatter.

    Where the reviews were also used to improve the labels, `right` and the confidences of the
    reviewed rows must come from fits that did not see those rows' reviews (`held_out`); the
    estimate is then of labels made with as many reviews less one fold.

    Args:
        confidence: (n,) of each segment's label; NaN where there is none.
        rows: (r,) reviewed segments, r > 0.
        right: (r,) whether the label was right.
        agree: (n,) whether the votes agree; None leaves it out.
        inclusion: (n,) of `choose_for_review`; None for a plain random sample.
        method: `model` or `difference`.
        level: of the interval.

    Raises:
        UsageError: no such method, no review, or reviews that do not fit the segments.

    Source: Särndal et al. 1992 (difference estimator); Angelopoulos et al. 2023, Prediction-Powered
    Inference, is its case of a plain random sample.
    """
    if method not in ("model", "difference"):
        raise UsageError(f"no estimate {method!r}: take model or difference")
    fitted = recalibrate(confidence, rows, right, agree)
    if not fitted.reviewed:
        raise UsageError("no labelled segment is reviewed: review some, or estimate without")
    kept = np.isfinite(confidence[rows])
    rows, right = rows[kept], right[kept]
    labelled = np.isfinite(confidence)
    if len(rows) == labelled.sum():
        share = float(right.mean())
        return Estimate(share, share, share, level, f"all {len(rows)} labels reviewed", len(rows))
    z = NormalDist().inv_cdf(0.5 + level / 2)
    if method == "model":
        value, sd = _by_model(fitted, confidence, rows, right, agree)
        how = f"confidences corrected by {len(rows)} reviews"
    else:
        value, sd = _by_difference(fitted, confidence, rows, right, agree, inclusion)
        how = f"confidences plus their mean error on {len(rows)} reviews"
    return Estimate(
        float(np.clip(value, 0, 1)),
        float(np.clip(value - z * sd, 0, 1)),
        float(np.clip(value + z * sd, 0, 1)),
        level,
        how,
        len(rows),
    )


def _by_model(
    fitted: Recalibration,
    confidence: NDArray[np.floating],
    rows: NDArray[np.intp],
    right: NDArray[np.bool_],
    agree: NDArray[np.bool_] | None,
) -> tuple[float, float]:
    """Mean of the corrected confidences of what was not reviewed, and of what was."""
    rest = np.isfinite(confidence)
    total = rest.sum()
    rest[rows] = False
    x, z = fitted.inputs(confidence[rest], None if agree is None else agree[rest])
    means, variances = [], []
    for curve, covariance in zip(fitted.curves, fitted.covariances, strict=True):
        p = 0.5 * (1 + np.tanh((x + z @ curve) / 2))
        spread = p * (1 - p)
        slope = spread @ z / total
        means.append((right.sum() + p.sum()) / total)
        # What the curve may be off, and the luck of the segments nobody looked at.
        variances.append(slope @ covariance @ slope + spread.sum() / total**2)
    value = float(fitted.weights @ np.array(means))
    variance = fitted.weights @ (np.array(variances) + (np.array(means) - value) ** 2)
    return value, float(np.sqrt(variance))


def _by_difference(
    fitted: Recalibration,
    confidence: NDArray[np.floating],
    rows: NDArray[np.intp],
    right: NDArray[np.bool_],
    agree: NDArray[np.bool_] | None,
    inclusion: NDArray[np.floating] | None,
) -> tuple[float, float]:
    """Mean confidence plus the weighted error of it on the reviewed segments."""
    labelled = np.isfinite(confidence)
    total = labelled.sum()
    share = np.full(len(confidence), len(rows) / total) if inclusion is None else inclusion
    if (share[rows] <= 0).any():
        raise UsageError("a reviewed segment had no chance to be chosen: leave out its inclusion")
    value = confidence[labelled].mean() + ((right - confidence[rows]) / share[rows]).sum() / total
    # The error's variance as the corrected confidences have it: steadier than what a hundred
    # errors show, and not 0 where none of them is wrong.
    p = fitted.confidence(confidence, agree)[labelled]
    error = p * (1 - p) + (p - confidence[labelled]) ** 2
    chance = np.maximum(share[labelled], 1e-9)
    return float(value), float(np.sqrt((error * (1 / chance - 1)).sum()) / total)


def _inclusion(size: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Probabilities in proportion to size that sum to the count, none above 1."""
    if count >= len(size):
        return np.ones(len(size))
    sure = np.zeros(len(size), bool)
    while True:
        share = np.where(sure, 1.0, (count - sure.sum()) * size / size[~sure].sum())
        if (share[~sure] <= 1).all():
            return share
        sure |= share >= 1
