"""Labels judged by reviews: how right they are, and confidences that reviews have corrected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsa_core.agree import agreement
from vsa_core.config import Agree
from vsa_core.fusion.abstain import conformal_sets, risk_coverage
from vsa_core.fusion.calibrate import recalibrate, with_confidence
from vsa_core.fusion.knowing import described
from vsa_core.fusion.review import Estimate, estimate_accuracy, held_out
from vsa_core.fusion.strategies import Fused, Known, Opinion
from vsa_core.fusion.views import Views
from vsa_core.labels import Agreement

# Fewer reviews say too little to correct anything by.
ENOUGH_REVIEWS = 30
FOLDS = 5
# Above it the labels are judged by one fit without reviews instead of one for each fold.
MOST_REFITTED = 50_000


@dataclass(frozen=True, slots=True)
class Judged:
    """Fused segments after reviews have judged them.

    Attributes:
        fused: the same, its confidences corrected where that makes them truer; labels stay.
        estimate: how right the labels are.
        recalibrated: whether the confidences were corrected.
        report: JSON-able: `estimate`, `recalibrated`, `risk_coverage` and `thresholds` (measured on
            the reviewed segments), `log_loss` of the confidences before and after.
        warnings: lines people can act on.
        held_out: (n, K) probabilities with corrected confidences, those of reviewed segments from
            fits that did not see their review.
        known: the reviews.
        inclusion: (n,) how probable each segment was to be reviewed; None for a random sample.
    """

    fused: Fused
    estimate: Estimate
    recalibrated: bool
    report: dict[str, Any]
    warnings: tuple[str, ...]
    held_out: NDArray[np.float64]
    known: Known
    inclusion: NDArray[np.float64] | None

    @property
    def right(self) -> NDArray[np.bool_]:
        """(r,) whether fits without it gave each reviewed segment the label that people gave."""
        probs = np.nan_to_num(self.held_out[self.known.rows])
        hits: NDArray[np.bool_] = (probs.argmax(axis=1) == self.known.labels) & probs.any(axis=1)
        return hits

    def label_sets(self, alpha: float) -> NDArray[np.bool_]:
        """Sets (n, K) that hold the truth of all but a share `alpha` of the segments.

        A set holds the label at least; that of a reviewed segment holds what the review says.
        """
        probs, known = self.held_out, self.known
        sets = conformal_sets(probs, known.rows, known.labels, alpha, inclusion=self.inclusion)
        said = np.isfinite(probs).all(axis=1)
        top = np.nan_to_num(probs).argmax(axis=1)
        sets[said, top[said]] = True
        sets[known.rows] = False
        sets[known.rows, known.labels] = True
        return sets


def judge(
    views: Views,
    fused: Fused,
    known: Known,
    refit: Callable[[Known | None], Fused],
    *,
    inclusion: NDArray[np.floating] | None = None,
    seed: int = 0,
) -> Judged:
    """How right the labels are by reviews, none judged by what was learnt from its own review.

    Args:
        views: n segments.
        fused: what fusing them with `known` came to.
        known: the reviews, at least one.
        refit: fuses the segments again with other reviews.
        inclusion: (r,) how probable each review was to be chosen; None for a random sample.
        seed: of the cut into folds.

    Raises:
        UsageError: no reviewed segment has a label.
    """
    target, rows = known.target, known.rows
    final = fused.opinion.probs[target].astype(np.float64)
    held, how = _held_out(views, fused, known, refit, seed)
    label = np.where(np.isfinite(held).all(axis=1), np.nan_to_num(held).argmax(axis=1), -1)
    confidence = held.max(axis=1)
    right = label[rows] == known.labels
    states = agreement(views.probs[target], Agree().min_confidence).states
    agree = np.asarray(states == Agreement.AGREE.value)
    estimate = estimate_accuracy(confidence, rows, right, agree=agree)
    estimate = replace(estimate, method=f"{estimate.method}{how}")
    everyone = None
    if inclusion is not None:
        # Of the others nobody wrote down how probable they were: the least is the safest guess.
        everyone = np.full(len(views), float(inclusion.min()))
        everyone[rows] = inclusion
    before, after = _losses(confidence, rows, right, agree, seed)
    gain = before - after
    # Sure enough, for a correction that chance suggests makes good confidences worse.
    sd = float(gain.std() / np.sqrt(max(len(gain), 1)))
    helps = len(gain) >= ENOUGH_REVIEWS and float(gain.mean()) > sd
    if helps:
        curve = recalibrate(confidence, rows, right, agree)
        final = with_confidence(final, curve.confidence(final.max(axis=1), agree))
        held = with_confidence(held, curve.confidence(confidence, agree))
        probs = {**fused.opinion.probs, target: final}
        fused = replace(fused, opinion=Opinion(probs, fused.opinion.attention))
    measured = risk_coverage(held.max(axis=1), right=right, rows=rows, inclusion=everyone)
    warnings = []
    if len(rows) < ENOUGH_REVIEWS:
        warnings.append(
            f"{len(rows)} reviews are too few to correct confidences by: review "
            f"{ENOUGH_REVIEWS} at least, better 100"
        )
    report = {
        "estimate": asdict(estimate),
        "recalibrated": helps,
        "log_loss": {"before": float(before.mean()), "after": float(after.mean())},
        **described(measured),
    }
    return Judged(fused, estimate, helps, report, tuple(warnings), held, known, everyone)


def _held_out(
    views: Views,
    fused: Fused,
    known: Known,
    refit: Callable[[Known | None], Fused],
    seed: int,
) -> tuple[NDArray[np.float64], str]:
    """Probabilities (n, K) that no row's own review has touched, and how that was done."""
    target = known.target
    learnt = fused.model.engine is not None
    if not learnt:
        return fused.opinion.probs[target].astype(np.float64), ""
    if len(views) > MOST_REFITTED or len(known.rows) < 2:
        return refit(None).opinion.probs[target].astype(np.float64), (
            ", of labels made without the reviews"
        )

    def fit(rows: NDArray[np.intp], labels: NDArray[np.intp]) -> NDArray[np.float64]:
        if len(rows) == len(known.rows):
            return fused.opinion.probs[target].astype(np.float64)
        return refit(Known(target, rows, labels)).opinion.probs[target].astype(np.float64)

    held = held_out(fit, known.rows, known.labels, folds=FOLDS, seed=seed)
    return held, ", each judged by a fit without it"


def _losses(
    confidence: NDArray[np.float64],
    rows: NDArray[np.intp],
    right: NDArray[np.bool_],
    agree: NDArray[np.bool_],
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log loss in nats of each reviewed confidence, as it is and corrected by other reviews."""
    kept = np.isfinite(confidence[rows])
    rows, right = rows[kept], right[kept]
    corrected = confidence[rows].copy()
    fold = np.random.default_rng(seed).permutation(np.arange(len(rows)) % FOLDS)
    for part in np.unique(fold):
        aside = fold == part
        curve = recalibrate(confidence, rows[~aside], right[~aside], agree)
        corrected[aside] = curve.confidence(confidence, agree)[rows[aside]]

    def loss(p: NDArray[np.float64]) -> NDArray[np.float64]:
        # A segment of confidence 1 that turns out wrong must not decide alone.
        sure = np.clip(p, 0.02, 0.98)
        nats: NDArray[np.float64] = -np.log(np.where(right, sure, 1 - sure))
        return nats

    return loss(confidence[rows]), loss(corrected)
