"""Fusion without training: the mean, the product and the majority of what views say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vsa_core.agree import cast_ballots, has_vote

# The least a view's probability counts as in a product, so that one view's zero is no veto.
LEAST_PROB = 1e-4


def mean(probs: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean (n, K) of the voting views' probabilities (n, V, K); NaN where no view votes."""
    voting = has_vote(probs)
    total = np.where(voting[..., None], probs, 0).sum(axis=1, dtype=np.float64)
    return _shares(total)


def product(probs: NDArray[np.floating]) -> NDArray[np.float64]:
    """Product of the voting views' probabilities (n, V, K), summing to 1; NaN without any."""
    voting = has_vote(probs)
    logs = log_probs(probs).sum(axis=1)
    pooled = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.where(voting.any(axis=1, keepdims=True), _shares(pooled), np.nan)


def vote(probs: NDArray[np.floating]) -> NDArray[np.float64]:
    """Share (n, K) of the views' votes (n, V, K) for each class; NaN where none is cast."""
    return _shares(cast_ballots(probs, 0.0).sum(axis=1, dtype=np.float64))


def log_probs(probs: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log of probabilities (..., K), floored at `LEAST_PROB`; 0 where a row is no vote."""
    said = np.where(has_vote(probs)[..., None], probs, 1.0)
    logs: NDArray[np.float64] = np.log(np.maximum(said.astype(np.float64), LEAST_PROB))
    return logs


def shares(probs: NDArray[np.floating], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Equal weights (n, V) of the views that vote (n, V, K).

    A present view that does not vote has 0, an absent one NaN; all NaN where none votes.
    """
    voting = has_vote(probs)
    count = voting.sum(axis=1, keepdims=True)
    return np.where(present & (count > 0), voting / np.maximum(count, 1), np.nan)


def _shares(mass: NDArray[np.float64]) -> NDArray[np.float64]:
    total = mass.sum(axis=1, keepdims=True)
    return np.where(total > 0, mass / np.where(total > 0, total, 1), np.nan)
