"""Evidence whose truth and true worth are known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def made_evidence(
    n: int = 3000,
    classes: int = 3,
    strengths: tuple[float, ...] = (1.2, 0.8),
    claims: tuple[float, ...] = (3.0, 2.0),
    prior: NDArray[np.floating] | None = None,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Evidence (n, V, K) of views independent given the class, and the classes (n,).

    A view sees its class' direction with signal-to-noise `strengths[m]` and reports the exact
    log-likelihood times `claims[m]`, so that the slope that calibrates it is one over its claim.
    """
    rng = np.random.default_rng([seed, 7])
    y = rng.choice(classes, n, p=prior)
    evidence = np.zeros((n, len(strengths), classes))
    for m, (strength, claim) in enumerate(zip(strengths, claims, strict=True)):
        x = strength * np.eye(classes)[y] + rng.normal(size=(n, classes))
        evidence[:, m] = claim * strength * x
    return evidence, y
