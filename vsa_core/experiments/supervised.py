"""What true labels would give: a logistic regression on all that the views say, cross-fitted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vsa_core.fusion.late import log_probs
from vsa_core.fusion.views import Views

RIDGES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
_FOLDS = 5


def supervised(
    views: Views,
    truth: NDArray[np.intp],
    ridges: Sequence[float] = RIDGES,
    *,
    vectors: bool = True,
) -> NDArray[np.float64]:
    """Probabilities (n, K) of each segment from the true labels of other videos' segments.

    Reads the views' log-probabilities and, with `vectors`, their embeddings and which are there.

    Args:
        views: n segments with one target, of at least two videos.
        truth: (n,) index of the class.
        ridges: inverse strengths of the ridge (scikit-learn's C); of several the one that does
            best inside each training part, again by whole videos.
        vectors: whether embeddings are read.
    """
    from sklearn.model_selection import GroupKFold

    [(target, classes)] = views.classes.items()
    x = _features(views, target, vectors=vectors)
    folds = GroupKFold(min(_FOLDS, len(np.unique(views.video))))
    out = np.zeros((len(truth), len(classes)))
    for train, test in folds.split(x, groups=views.video):
        ridge = ridges[0]
        if len(ridges) > 1:
            inner = GroupKFold(min(_FOLDS, len(np.unique(views.video[train]))))
            parts = list(inner.split(train, groups=views.video[train]))
            losses = [
                sum(_loss(x, truth, len(classes), c, train[a], train[b]) for a, b in parts)
                for c in ridges
            ]
            ridge = ridges[int(np.argmin(losses))]
        out[test] = _fitted(x, truth, len(classes), ridge, train, test)
    return out


def _fitted(
    x: NDArray[np.float64],
    truth: NDArray[np.intp],
    classes: int,
    ridge: float,
    on: NDArray[np.intp],
    to: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Probabilities of the rows `to` of a model fitted on the rows `on`."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=ridge, max_iter=500).fit(x[on], truth[on])
    probs = np.full((len(to), classes), 1e-6)  # a class that `on` lacks is not ruled out
    probs[:, model.classes_] = model.predict_proba(x[to])
    fitted: NDArray[np.float64] = probs / probs.sum(axis=1, keepdims=True)
    return fitted


def _loss(
    x: NDArray[np.float64],
    truth: NDArray[np.intp],
    classes: int,
    ridge: float,
    on: NDArray[np.intp],
    to: NDArray[np.intp],
) -> float:
    """Cross-entropy, summed over the rows `to`, of a model fitted on the rows `on`."""
    probs = _fitted(x, truth, classes, ridge, on, to)
    return float(-np.log(probs[np.arange(len(to)), truth[to]] + 1e-12).sum())


def _features(views: Views, target: str, *, vectors: bool) -> NDArray[np.float64]:
    """Standardised columns (n, f); what is absent counts as average."""
    parts = list(np.moveaxis(log_probs(views.probs[target]), 1, 0))
    if vectors:
        for embedding in views.embeddings:
            x = np.zeros((len(views), embedding.width))
            for rows, block in embedding.blocks():
                x[rows] = block
            parts.append(x)
        parts.append(views.present.astype(np.float64))
    x = np.hstack(parts)
    columns: NDArray[np.float64] = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-9)
    return columns
