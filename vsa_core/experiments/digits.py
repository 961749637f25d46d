"""Handwritten digits in two or three views: real data with ten classes that anybody can run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vsa_core import progress
from vsa_core.experiments.real import TARGET, Scores, Setting, score_setting
from vsa_core.experiments.real_page import outcome
from vsa_core.experiments.study import Outcome
from vsa_core.fusion.views import views_from_arrays

# Digits that the heads, which play the pretrained models, are fitted on: few and other ones.
_SOURCE = 60
_RIDGE_C = 0.05
# The data has no videos; folds need groups.
_GROUPS = 30
_VIEWS = {
    "left and right half": ("left", "right"),
    "left half, right half and spectrum": ("left", "right", "spectrum"),
}


def run(seeds: Sequence[int]) -> Outcome:
    """Score every strategy on the digits.

    Args:
        seeds: each draws which digits the heads are fitted on and the groups, and trains anew.

    Source: the optical digits of the UCI repository (Alpaydin and Kaynak 1998), 1,797 of 8 × 8
        pixels, as scikit-learn carries them.
    """
    from sklearn.datasets import load_digits

    pixels, truth = load_digits(return_X_y=True)
    images = pixels.reshape(-1, 8, 8)
    vectors = {
        "left": images[:, :, :4].reshape(len(images), -1),
        "right": images[:, :, 4:].reshape(len(images), -1),
        "spectrum": np.abs(np.fft.rfft2(images)).reshape(len(images), -1),
    }
    scores = Scores()
    progress.begin("experiment", len(seeds) * len(_VIEWS))
    for seed in seeds:
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(truth))
        source, rest = order[:_SOURCE], np.sort(order[_SOURCE:])
        group = rng.integers(0, _GROUPS, len(rest))
        said = {name: _head(x, truth, source)[rest] for name, x in vectors.items()}
        for setting, names in _VIEWS.items():
            views = views_from_arrays(
                np.array([f"group{g:02d}" for g in group]),
                np.stack([said[name] for name in names], axis=1),
                [vectors[name][rest] for name in names],
                names=names,
                classes=tuple("0123456789"),
                target=TARGET,
            )
            score_setting(scores, Setting(setting, views, truth[rest], 0.0), seed)
            progress.advance("experiment", 1)
    scores.facts.append(
        f"{len(truth) - _SOURCE} digits; the heads of the views were fitted on {_SOURCE} others. "
        "There are no videos: the groups that folds keep together are drawn at random."
    )
    return outcome("digits", scores)


def _head(
    x: NDArray[np.floating], truth: NDArray[np.intp], source: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Probabilities (n, 10) of a logistic regression fitted on some of the digits."""
    from sklearn.linear_model import LogisticRegression

    scale = x[source].std()
    with warnings.catch_warnings():  # sixty digits: where it stops does not matter
        warnings.simplefilter("ignore")
        head = LogisticRegression(C=_RIDGE_C * 25, max_iter=300)
        head.fit(x[source] / scale, truth[source])
    probs: NDArray[np.float64] = head.predict_proba(x / scale)
    return probs
