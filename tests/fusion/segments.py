"""Made segments of any shape, with what nobody but the test knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsa_core.fusion.views import Views, views_from_arrays

Array = NDArray[np.floating]


@dataclass
class Segments:
    """n segments of V views and K classes, to be spoiled by a test.

    Votes are right with the same probability whatever the embedding; embeddings show the class.
    """

    truth: NDArray[np.intp]
    probs: Array
    embeddings: list[Array | None]
    videos: NDArray[np.str_]

    @property
    def views(self) -> Views:
        v, k = self.probs.shape[1:]
        return views_from_arrays(
            self.videos,
            self.probs,
            self.embeddings,
            names=tuple(f"view{i}" for i in range(v)),
            classes=tuple(f"class{i}" for i in range(k)),
        )


def segments(
    n: int = 600,
    views: int = 2,
    classes: int = 3,
    videos: int = 10,
    width: int | Sequence[int] = 8,
    accuracy: float = 0.6,
    noise: float = 1.0,
    prior: Sequence[float] | None = None,
    seed: int = 0,
) -> Segments:
    """The same seed gives the same segments."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(classes, n, p=prior)
    probs = np.empty((n, views, classes))
    embeddings: list[Array | None] = []
    for v in range(views):
        said = np.where(rng.random(n) < accuracy, truth, rng.integers(0, classes, n))
        z = 0.3 * rng.normal(size=(n, classes))
        z[np.arange(n), said] += 1.5
        probs[:, v] = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        d = width if isinstance(width, int) else width[v]
        means = 2 * rng.normal(size=(classes, d)) / np.sqrt(d)
        embeddings.append(means[truth] + noise * rng.normal(size=(n, d)))
    names = np.array([f"v{i:04d}" for i in np.sort(np.arange(n) % videos)], np.str_)
    return Segments(truth, probs, embeddings, names)
