"""Confidences that mean what they say: tempered to an estimate, or corrected by reviews."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsa_core.errors import UsageError

# How far off confidences may be, on the logit scale, believed at once and weighed by the reviews:
# a little (agreement saw nearly everything), somewhat, or a lot (views that collude).
_OFFSETS = (0.15, 0.4, 1.2)
_SLOPE_SD = 0.3
_AGREE_SD = 0.3
_FLOOR = 1e-3
_EDGES = 60.0  # a log-temperature beyond ± log of this changes nothing


@dataclass(frozen=True, slots=True)
class Recalibration:
    """A correction of confidences learned from reviews: a mixture of shrunken logistic curves.

    Attributes:
        weights: (C,) how probable each of the mixture's curves is.
        curves: (C, D) slope beyond 1 of the logit, offset, and, for D = 3, what agreement adds.
        covariances: (C, D, D) of the curves' parameters.
        agreeing: mean of the agreement that is subtracted; nan where D = 2.
        reviewed: how many reviews it was learned from.
    """

    weights: NDArray[np.float64]
    curves: NDArray[np.float64]
    covariances: NDArray[np.float64]
    agreeing: float
    reviewed: int

    def confidence(
        self, confidence: NDArray[np.floating], agree: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """Corrected confidences (n,); NaN stays NaN.

        Args:
            confidence: (n,) as those it was learned from.
            agree: (n,) as those it was learned from; needed if they were given then.
        """
        x, z = self.inputs(confidence, agree)
        out = np.zeros(len(x))
        for weight, curve in zip(self.weights, self.curves, strict=True):
            out += weight * _sigmoid(x + z @ curve)
        return out

    def inputs(
        self, confidence: NDArray[np.floating], agree: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Logits (n,) and the (n, D) that the curves weigh."""
        wants = self.curves.shape[1] == 3
        if wants and agree is None:
            raise UsageError("this recalibration was learned with agreement: pass it here too")
        return _inputs(confidence, agree if wants else None, self.agreeing)


def temperature_for(probs: NDArray[np.floating], accuracy: float) -> float:
    """The temperature at which the mean confidence equals an accuracy.

    Args:
        probs: (n, K); NaN rows are left out.
        accuracy: in [0, 1]; below 1/K it counts as 1/K, whose temperature is the highest, 60.

    Returns:
        what log-probabilities are to be divided by; 1 where no row can be used.
    """
    kept = np.isfinite(probs).all(axis=1)
    if not kept.any():
        return 1.0
    logs = np.log(np.maximum(probs[kept].astype(np.float64), 1e-12))
    low, high = -np.log(_EDGES), np.log(_EDGES)
    for _ in range(40):
        middle = (low + high) / 2
        if _softmax(logs / np.exp(middle)).max(axis=1).mean() > accuracy:
            low = middle
        else:
            high = middle
    return float(np.exp((low + high) / 2))


def temper(probs: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Probabilities (n, K) at a temperature; above 1 is less sure, labels stay, NaN stays."""
    return _softmax(np.log(np.maximum(probs.astype(np.float64), 1e-12)) / temperature)


def with_confidence(
    probs: NDArray[np.floating], confidence: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Probabilities (n, K) with the same label and order, and the confidence asked for.

    A lower confidence mixes a row with the uniform one, a higher one with certainty.

    Args:
        probs: (n, K); NaN rows stay NaN.
        confidence: (n,) of the highest class; below 1/K it counts as 1/K and a thousandth.
    """
    k = probs.shape[1]
    p = probs.astype(np.float64)
    top = p.max(axis=1, keepdims=True)
    wanted = np.clip(confidence[:, None], 1 / k + _FLOOR, 1.0)
    share = (wanted - 1 / k) / np.maximum(top - 1 / k, 1e-12)
    lower = share * p + (1 - share) / k
    first = p.argmax(axis=1)[:, None] == np.arange(k)
    extra = (wanted - top) / np.maximum(1 - top, 1e-12)
    higher = (1 - extra) * p + extra * first
    return np.where(wanted <= top, lower, higher)


def recalibrate(
    confidence: NDArray[np.floating],
    rows: NDArray[np.intp],
    right: NDArray[np.bool_],
    agree: NDArray[np.bool_] | None = None,
) -> Recalibration:
    """The correction of confidences that reviews ask for.

    A logistic curve over the logit of the confidence (and agreement), pulled towards the
    identity: without a review it changes nothing. How strong the pull is, the reviews decide: three
    strengths are weighed by their marginal likelihood.

    Args:
        confidence: (n,) of every segment's label, best calibrated without labels already; of the
            reviewed ones from a fit that did not see their review.
        rows: (r,) which were reviewed.
        right: (r,) whether the label was.
        agree: (n,) whether the votes agree; None leaves it out.

    Raises:
        UsageError: as many outcomes as rows are needed, rows that exist, and each only once.

    Source: Platt 1999, with the prior of a hierarchical model and Laplace's approximation.
    """
    _check(confidence, rows, right)
    agreeing = float(agree.mean()) if agree is not None else float("nan")
    x, z = _inputs(confidence, agree, agreeing)
    seen = rows[np.isfinite(confidence[rows])]
    y = right[np.isfinite(confidence[rows])].astype(np.float64)
    x, z = x[seen], z[seen]
    curves, covariances, evidence = [], [], []
    for offset in _OFFSETS:
        sd = np.array([_SLOPE_SD, offset, _AGREE_SD])[: z.shape[1]]
        curve, hessian, fit = _fit(x, z, y, sd)
        curves.append(curve)
        covariances.append(np.linalg.inv(hessian))
        evidence.append(fit - 0.5 * np.linalg.slogdet(hessian)[1] - np.log(sd).sum())
    weights = np.exp(np.array(evidence) - max(evidence))
    return Recalibration(
        weights / weights.sum(), np.array(curves), np.array(covariances), agreeing, len(seen)
    )


def _fit(
    x: NDArray[np.float64],
    z: NDArray[np.float64],
    y: NDArray[np.float64],
    sd: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """The most probable curve, the Hessian there, and its log-posterior."""
    curve = np.zeros(z.shape[1])
    precision = np.diag(1 / sd**2)

    def value(c: NDArray[np.float64]) -> float:
        logits = x + z @ c
        return float((y * logits - np.logaddexp(0, logits)).sum() - 0.5 * c @ precision @ c)

    for _ in range(50):
        p = _sigmoid(x + z @ curve)
        hessian = (z * (p * (1 - p))[:, None]).T @ z + precision
        step = np.linalg.solve(hessian, z.T @ (y - p) - precision @ curve)
        size = 1.0
        while value(curve + size * step) < value(curve) and size > 1e-6:
            size /= 2
        curve = curve + size * step
        if np.abs(step).max() < 1e-8:
            break
    p = _sigmoid(x + z @ curve)
    return curve, (z * (p * (1 - p))[:, None]).T @ z + precision, value(curve)


def _inputs(
    confidence: NDArray[np.floating], agree: NDArray[np.bool_] | None, agreeing: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    c = np.clip(confidence.astype(np.float64), 0.02, 0.98)
    x = np.log(c / (1 - c))
    columns = [x, np.ones(len(x))]
    if agree is not None:
        columns.append(agree - agreeing)
    return x, np.stack(columns, axis=1)


def _check(
    confidence: NDArray[np.floating], rows: NDArray[np.intp], right: NDArray[np.bool_]
) -> None:
    if len(rows) != len(right):
        raise UsageError(f"{len(rows)} reviewed rows, {len(right)} outcomes: give one for each")
    if len(rows) and not (rows.min() >= 0 and rows.max() < len(confidence)):
        raise UsageError(f"a reviewed row is none of the {len(confidence)} segments")
    if len(np.unique(rows)) != len(rows):
        raise UsageError("a segment is reviewed twice: keep its last review")


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    p: NDArray[np.float64] = 0.5 * (1 + np.tanh(x / 2))
    return p


def _softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    probs: NDArray[np.float64] = e / e.sum(axis=1, keepdims=True)
    return probs
