"""Saying less to be right more often: risk against coverage, and sets of labels with a promise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsa_core.errors import UsageError

EXPECTED = "expected from calibrated confidences; nobody has checked it"
REVIEWED = "measured on reviewed segments"
# Confidences at which tables for people say what is kept.
LEVELS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """What is lost and won by keeping only labels at least so sure; P thresholds, falling.

    Attributes:
        threshold: (P,) least confidence that is kept.
        coverage: (P,) share kept of all segments, those without a label too, rising.
        risk: (P,) share wrong of those kept.
        aurc: area under risk over coverage, as a mean over the coverage reached; None without any
            label.
        basis: one line: where the risk comes from.
    """

    threshold: NDArray[np.float64]
    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]
    aurc: float | None
    basis: str

    def thinned(self, points: int = 100) -> RiskCoverage:
        """The same curve at no more than so many thresholds, first and last among them."""
        if len(self.threshold) <= points:
            return self
        at = np.unique(np.linspace(0, len(self.threshold) - 1, points).round().astype(int))
        return RiskCoverage(
            self.threshold[at], self.coverage[at], self.risk[at], self.aurc, self.basis
        )


def risk_coverage(
    confidence: NDArray[np.floating],
    *,
    right: NDArray[np.bool_] | None = None,
    rows: NDArray[np.intp] | None = None,
    inclusion: NDArray[np.floating] | None = None,
    expected: NDArray[np.floating] | None = None,
) -> RiskCoverage:
    """The risk at every threshold of confidence.

    Args:
        confidence: (n,) of every segment's label; NaN where there is none, which counts against
            coverage. Without `right` the risk is one minus it, so it should be calibrated.
        expected: (n,) probability that each label is right, where that is not its confidence.
        right: (r,) whether the label of each reviewed segment was.
        rows: (r,) which were reviewed; None if all n were.
        inclusion: (n,) of `choose_for_review`; None for a plain random sample.

    Raises:
        UsageError: outcomes and rows differ in number, or a reviewed row had no chance.

    Source: El-Yaniv and Wiener 2010; Geifman and El-Yaniv 2017.
    """
    n = len(confidence)
    if right is None:
        hoped = confidence if expected is None else expected
        seen, wrong, weight = np.arange(n), 1 - hoped, np.ones(n)
    else:
        seen = np.arange(n) if rows is None else rows
        if len(seen) != len(right):
            raise UsageError(f"{len(seen)} reviewed rows, {len(right)} outcomes: give one for each")
        wrong = 1.0 - right
        weight = np.ones(len(seen)) if inclusion is None else _inverse(inclusion[seen])
    basis = EXPECTED if right is None else REVIEWED
    kept = np.isfinite(confidence[seen])
    seen, wrong, weight = seen[kept], wrong[kept], weight[kept]
    if not len(seen):
        nothing = np.zeros(0)
        return RiskCoverage(nothing, nothing, nothing, None, basis)
    order = np.argsort(-confidence[seen], kind="stable")
    c = confidence[seen][order].astype(np.float64)
    mass = np.cumsum(weight[order])
    risk = np.cumsum((weight * wrong)[order]) / mass
    # Segments of equal confidence are kept or dropped together.
    last = np.append(np.flatnonzero(np.diff(c)), len(c) - 1)
    everyone = np.sort(confidence[np.isfinite(confidence)])
    coverage = (len(everyone) - np.searchsorted(everyone, c[last], side="left")) / n
    steps = np.diff(coverage, prepend=0.0)
    aurc = float((risk[last] * steps).sum() / coverage[-1])
    return RiskCoverage(c[last], coverage, risk[last], aurc, basis)


def pick_threshold(curve: RiskCoverage, target_risk: float) -> tuple[float, float] | None:
    """The least confidence at which the risk is no more than the target, and its coverage.

    None where no threshold reaches it.
    """
    good = np.flatnonzero(curve.risk <= target_risk)
    if not len(good):
        return None
    return float(curve.threshold[good[-1]]), float(curve.coverage[good[-1]])


def conformal_sets(
    probs: NDArray[np.floating],
    known_rows: NDArray[np.intp],
    known_labels: NDArray[np.intp],
    alpha: float = 0.1,
    *,
    per_class: bool = False,
    inclusion: NDArray[np.floating] | None = None,
) -> NDArray[np.bool_]:
    """Sets of labels that hold the truth of a segment with probability 1 − alpha.

    A class is in the set where its probability is no lower than the reviewed segments' own
    probability of the truth mostly is. The promise holds on average over segments exchangeable with
    the reviewed ones, whatever the probabilities are worth; bad ones make large sets. It is one per
    target, not per segment, and holds for segments of new videos only as far as they are alike.

    Args:
        probs: (n, K), of the reviewed rows from a fit that did not see their review; NaN rows get
            all classes.
        known_rows: (r,) reviewed segments.
        known_labels: (r,) index of their class.
        alpha: how often the truth may be missed, between 0 and 1.
        per_class: keep the promise for each class (needs reviews of each; without, all sets hold
            the class).
        inclusion: (n,) of `choose_for_review`, above 0 where promises are wanted; None for a plain
            random sample.

    Returns:
        (n, K) which classes are in each segment's set; a set may be empty where all is unlikely.

    Raises:
        UsageError: no reviews, alpha outside (0, 1), or labels that are no class.

    Source: Vovk et al. 2005; Sadinle, Lei and Wasserman 2019 (least ambiguous sets); Tibshirani et
    al. 2019 for samples drawn with unequal probability.
    """
    k = probs.shape[1]
    if not 0 < alpha < 1:
        raise UsageError(f"alpha {alpha} promises nothing: take one between 0 and 1, such as 0.1")
    if len(known_rows) != len(known_labels):
        raise UsageError(
            f"{len(known_rows)} reviewed rows, {len(known_labels)} labels: give one for each"
        )
    kept = np.isfinite(probs[known_rows]).all(axis=1)
    rows, labels = known_rows[kept], known_labels[kept]
    if not len(rows):
        raise UsageError(
            "sets of labels need reviewed segments: without any nothing says how often a label is "
            "wrong; review about 100"
        )
    if labels.min() < 0 or labels.max() >= k:
        raise UsageError(f"a review names class {labels.max()}: there are {k}, from 0")
    weight = np.ones(len(probs))
    if inclusion is not None:
        _inverse(inclusion[rows])
        # Who had no chance to be reviewed is like none of the reviewed, and gets all classes.
        weight = 1 / np.maximum(inclusion, 1e-9)
    misfit = 1 - np.nan_to_num(probs.astype(np.float64), nan=1.0)
    own = misfit[rows, labels]
    out = np.zeros(probs.shape, bool)
    for c in range(k):
        like = labels == c if per_class else np.ones(len(rows), bool)
        order = np.argsort(own[like])
        limits = np.append(own[like][order], np.inf)
        mass = np.cumsum(weight[rows][like][order])
        # A new segment counts among the reviewed ones, with its own weight.
        total = (mass[-1] if len(mass) else 0.0) + weight
        at = np.searchsorted(mass, (1 - alpha) * total * (1 - 1e-12))
        out[:, c] = misfit[:, c] <= limits[at]
    return out


def _inverse(inclusion: NDArray[np.floating]) -> NDArray[np.float64]:
    if (inclusion <= 0).any():
        raise UsageError("a reviewed segment had no chance to be chosen: leave out its inclusion")
    inverse: NDArray[np.float64] = 1.0 / inclusion.astype(np.float64)
    return inverse
