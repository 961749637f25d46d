"""How far to trust each view, without a label: views calibrated against one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsa_core.errors import UsageError

# What a piece of evidence is believed to be worth before anything is seen: less than half of what
# it claims, give or take a factor of 1.5. Thousands of shared segments outvote this, thirty do not.
EXPECTED_SLOPE = 0.4
LOG_SLOPE_SD = 0.4
_SLOPES = (0.005, 8.0)
# The slopes are fitted on a sample of segments of at most this many numbers; 10,000 segments of
# three classes fix them to a few percent.
_FITTED_SIZE = 600_000
_FITTED_ROWS = (2_000, 10_000)
_PRIOR_STEPS = 10
# Classes are believed to be equally frequent as if so many segments had said so.
_PRIOR_SEGMENTS = 60.0
_LEAST = 1e-12


@dataclass(frozen=True, slots=True)
class Cocalibration:
    """What the views' agreement says each is worth; V views, J pieces of evidence each, K classes.

    Attributes:
        slopes: (V, J) what each piece's log-probabilities are multiplied by; near 0 is noise.
        bias: (V, K) what is added to each class, so that no view has a favourite.
        prior: (K,) estimated shares of the classes.
        shared: how many segments have two views or more; the slopes rest on them, and are but
            what was expected where there are none.
    """

    slopes: NDArray[np.float64]
    bias: NDArray[np.float64]
    prior: NDArray[np.float64]
    shared: int

    def views(self, evidence: NDArray[np.floating]) -> NDArray[np.float64]:
        """Calibrated probabilities (n, V, K) of each view on its own; NaN where absent."""
        pieces, present = _pieces(evidence)
        z = np.einsum("nvjk,vj->nvk", pieces, self.slopes) + self.bias
        return np.where(present[..., None], _softmax(z), np.nan)

    def probs(self, evidence: NDArray[np.floating]) -> NDArray[np.float64]:
        """Calibrated probabilities (n, K) of the views together; NaN rows where none is present."""
        apart = self.views(evidence)
        present: NDArray[np.bool_] = np.isfinite(apart[..., 0])
        log_prior = np.log(self.prior)
        logs = np.log(np.maximum(np.where(present[..., None], apart, 1), _LEAST))
        total = log_prior + np.where(present[..., None], logs - log_prior, 0).sum(axis=1)
        return np.where(present.any(axis=1, keepdims=True), _softmax(total), np.nan)

    def accuracy(self, evidence: NDArray[np.floating]) -> NDArray[np.float64]:
        """Estimated accuracy (V,) of each view's calibrated vote; NaN for one never present."""
        top = self.views(evidence).max(axis=2)
        seen: NDArray[np.bool_] = np.isfinite(top)
        total = np.where(seen, top, 0).sum(axis=0)
        return np.where(seen.any(axis=0), total / np.maximum(seen.sum(axis=0), 1), np.nan)


def cocalibrate(
    evidence: NDArray[np.floating],
    *,
    expected: float | NDArray[np.floating] = EXPECTED_SLOPE,
    seed: int = 0,
) -> Cocalibration:
    """Slopes and biases under which the views explain one another best.

    If views are independent given the class and `r_m` are calibrated probabilities of view m, the
    views' joint density over the product of their own is `sum_k prior_k prod_m r_mk / prior_k`.
    The slopes maximise its logarithm over the segments that share two views, with a weak prior on
    the log-slopes; the biases keep the mean of every `r_m` at the prior. A view that overstates its
    case is contradicted more often than it should be, and its slope falls. Blind to what all views
    get wrong together: mistakes they share count as evidence.

    Args:
        evidence: (n, V, K), or (n, V, J, K) for J pieces that get a slope each, such as the
            pretrained model's and the expert's: log-probabilities up to a constant per row,
            cross-fitted; NaN where a view is absent.
        expected: slope or (V, J) slopes before anything is seen, above 0.
        seed: of the sample the slopes are fitted on, where there are many segments.

    Raises:
        UsageError: the array has another shape, or no class.

    Source: the likelihood ratio of co-training's independence assumption (Blum and Mitchell 1998),
    as in the mutual-information criteria of Becker and Hinton 1992; for estimates from votes alone
    see Platanios et al. 2014.
    """
    from scipy.optimize import minimize

    pieces, present = _pieces(evidence)
    _, v, j, k = pieces.shape
    start = np.log(np.broadcast_to(np.asarray(expected, np.float64), (v, j))).ravel()
    shared = np.flatnonzero(present.sum(axis=1) >= 2)
    any_view = np.flatnonzero(present.any(axis=1))
    most = int(np.clip(_FITTED_SIZE // (v * j * k), *_FITTED_ROWS))
    fitted = shared if len(shared) else any_view
    if len(fitted) > most:
        fitted = np.sort(np.random.default_rng(seed).choice(fitted, most, replace=False))
    some, here = pieces[fitted], present[fitted]
    prior = np.full(k, 1 / k)
    bias = np.zeros((v, k))
    slopes = start
    if len(fitted):
        # The classes' shares settle once the slopes are about right.
        for _ in range(3):
            now = np.exp(slopes).reshape(v, j)
            for _ in range(_PRIOR_STEPS):
                prior = _prior_of(some, here, now, bias, prior)
                bias = _balanced(some, here, now, bias, prior)
            if not len(shared):
                break
            model = _Likelihood(some, here, prior, start, bias)
            limits = [(np.log(_SLOPES[0]), np.log(_SLOPES[1]))] * (v * j)
            found = minimize(model, slopes, jac=True, method="L-BFGS-B", bounds=limits,
                             options={"maxiter": 40})  # fmt: skip
            slopes = found.x
            bias = _balanced(some, here, np.exp(slopes).reshape(v, j), model.bias, prior)
    return Cocalibration(np.exp(slopes).reshape(v, j), bias, prior, len(shared))


class _Likelihood:
    """Minus the log-likelihood ratio of log-slopes, and its gradient."""

    def __init__(
        self,
        pieces: NDArray[np.float64],
        present: NDArray[np.bool_],
        prior: NDArray[np.float64],
        expected: NDArray[np.float64],
        bias: NDArray[np.float64],
    ) -> None:
        self.pieces, self.present, self.prior = pieces, present, prior
        self.expected = expected
        self.bias = bias

    def __call__(self, log_slopes: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        n, v, j, _ = self.pieces.shape
        slopes = np.exp(log_slopes).reshape(v, j)
        bias = _balanced(self.pieces, self.present, slopes, self.bias, self.prior)
        log_prior = np.log(self.prior)
        apart = []
        total = np.tile(log_prior, (n, 1))
        for m in range(v):
            r = _softmax(self.pieces[:, m].transpose(0, 2, 1) @ slopes[m] + bias[m])
            apart.append(r)
            total += self.present[:, m, None] * (np.log(np.maximum(r, _LEAST)) - log_prior)
        top = total.max(axis=1, keepdims=True)
        mass = np.exp(total - top)
        ratio = (top[:, 0] + np.log(mass.sum(axis=1))).sum()
        posterior = mass / mass.sum(axis=1, keepdims=True)
        away = log_slopes - self.expected
        gradient = away / LOG_SLOPE_SD**2
        for m in range(v):
            here = self.present[:, m]
            r, miss = apart[m][here], (posterior - apart[m])[here]
            # The bias moves with the slope so that the mean stays at the prior.
            spread = np.diag(r.sum(axis=0)) - r.T @ r
            solve = np.linalg.pinv(spread, hermitian=True)
            for p in range(j):
                z = self.pieces[here, m, p]
                moved = (r * (z - (r * z).sum(axis=1, keepdims=True))).sum(axis=0)
                slope = (miss * z).sum() - miss.sum(axis=0) @ (solve @ moved)
                gradient[m * j + p] -= slope * slopes[m, p]
        return float(-ratio + 0.5 * (away**2).sum() / LOG_SLOPE_SD**2), gradient


def _prior_of(
    pieces: NDArray[np.float64],
    present: NDArray[np.bool_],
    slopes: NDArray[np.float64],
    bias: NDArray[np.float64],
    prior: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Shares (K,) of the classes in the posterior, never 0."""
    z = np.einsum("nvjk,vj->nvk", pieces, slopes) + bias
    logs = np.log(np.maximum(_softmax(z), _LEAST)) - np.log(prior)
    total = np.log(prior) + np.where(present[..., None], logs, 0).sum(axis=1)
    mass = _softmax(total).sum(axis=0) + _PRIOR_SEGMENTS / len(prior)
    return mass / mass.sum()


def _balanced(
    pieces: NDArray[np.float64],
    present: NDArray[np.bool_],
    slopes: NDArray[np.float64],
    bias: NDArray[np.float64],
    prior: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Biases (V, K) that bring the mean of each view's probabilities to the prior."""
    out = bias.copy()
    for m in range(len(out)):
        here = present[:, m]
        if not here.any():
            out[m] = np.log(prior)
            continue
        z = pieces[here, m].transpose(0, 2, 1) @ slopes[m]
        for _ in range(50):
            r = _softmax(z + out[m])
            mean = r.mean(axis=0)
            # Newton's step where it is short enough to be believed, else one of scaling, which
            # always helps and is slow near the end.
            spread = np.diag(mean) - r.T @ r / len(r)
            step = np.linalg.pinv(spread, hermitian=True) @ (prior - mean)
            if np.abs(step).max() > 0.5:
                step = np.log(prior) - np.log(np.maximum(mean, _LEAST))
            out[m] += step - step.mean()
            if np.abs(step).max() < 1e-6:
                break
    return out


def _pieces(
    evidence: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Evidence (n, V, J, K), centred, 0 where absent, and presence (n, V)."""
    if evidence.ndim == 3:
        evidence = evidence[:, :, None, :]
    if evidence.ndim != 4 or 0 in evidence.shape[1:]:
        raise UsageError(
            f"evidence has shape {evidence.shape}: give (segments, views, classes), "
            "or a piece more before the classes"
        )
    present = np.isfinite(evidence).all(axis=(2, 3))
    kept = np.where(present[:, :, None, None], evidence, 0).astype(np.float64)
    return kept - kept.mean(axis=3, keepdims=True), present


def _softmax(z: NDArray[np.floating]) -> NDArray[np.float64]:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    probs: NDArray[np.float64] = e / e.sum(axis=-1, keepdims=True)
    return probs
