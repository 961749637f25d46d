"""Teach each view's expert what the other views believe, and hear what it says of new videos."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vsa_core.fusion.experts import Expert, ViewSums, scores, without_offsets
from vsa_core.fusion.groups import Groups
from vsa_core.fusion.information import Floats, log_softmax, softmax
from vsa_core.fusion.views import Views

_SLOPES = np.linspace(0, 1.2, 13)


def all_sums(
    views: Views, folds: NDArray[np.integer], count: int, groups: Groups | None = None
) -> list[ViewSums | None]:
    """Per view what its expert needs; None where it can have none."""
    sums: list[ViewSums | None] = []
    together = views.present.sum(axis=1) > 1
    for v, embedding in enumerate(views.embeddings):
        trained = views.embedded[:, v] & together
        spread = len(np.unique(folds[trained])) > 1
        able = embedding.width > 0 and count > 1 and spread
        of = (views.video, None) if groups is None else (groups.number, groups.found)
        sums.append(ViewSums(embedding, trained, folds, count, *of) if able else None)
    return sums


def believed_of_others(
    evidence: Floats, prior: Floats, view: int, own: float
) -> NDArray[np.float32]:
    """What (n, K) the other views believe, with a share of the view's own evidence."""
    others = evidence.sum(axis=0) - (1 - own) * evidence[view]
    return softmax(others + prior).astype(np.float32)


def scored(
    views: Views, experts: Sequence[Expert | None], member: NDArray[np.integer], k: int
) -> list[NDArray[np.float32]]:
    """Per view what its expert says (n, K) before offsets; (0, K) for a view without one."""
    nothing = np.zeros((0, k), np.float32)
    return [
        scores(views.embeddings[v], expert, member, len(views)) if expert is not None else nothing
        for v, expert in enumerate(experts)
    ]


def hear(
    views: Views,
    experts: Sequence[Expert | None],
    said: Sequence[NDArray[np.float32]],
    member: NDArray[np.integer],
    evidence: Floats,
    prior: Floats,
    own: float,
) -> Floats:
    """The experts' evidence (V, n, K) without the videos' offsets."""
    heard = np.zeros_like(evidence)
    for v, expert in enumerate(experts):
        if expert is not None:
            heard[v] = without_offsets(
                said[v],
                believed_of_others(evidence, prior, v, own),
                expert,
                member,
                views.embedded[:, v],
                views.video,
            )
    return heard


class Teacher:
    """Teaches the views' experts what the other views believe."""

    def __init__(
        self,
        views: Views,
        folds: NDArray[np.integer],
        sums: Sequence[ViewSums | None],
        classes: int,
        known: tuple[NDArray[np.intp], NDArray[np.intp]] | None,
    ) -> None:
        self._views, self._folds, self._sums, self._known = views, folds, sums, known
        self._classes = classes
        self.able = any(view is not None for view in sums)

    def teach(
        self, evidence: Floats, prior: Floats, own: float
    ) -> tuple[tuple[Expert | None, ...], Floats]:
        """The experts and what they say (V, n, K), each of videos it never saw."""
        k = self._classes
        experts: list[Expert | None] = []
        for v, view in enumerate(self._sums):
            if view is None:
                experts.append(None)
                continue
            believed = believed_of_others(evidence, prior, v, own)
            if self._known is not None:
                believed[self._known[0]] = np.eye(k)[self._known[1]]
            experts.append(view.fit(believed))
        said = scored(self._views, experts, self._folds, k)
        heard = hear(self._views, experts, said, self._folds, evidence, prior, own)
        return tuple(experts), heard

    def slopes(self, evidence: Floats, prior: Floats, heard: Floats, own: float) -> Floats:
        """(V,) how much of each expert best predicts what it was taught; 0 for a view of noise."""
        slopes = np.zeros(len(heard))
        for v, view in enumerate(self._sums):
            if view is None:
                continue
            rows = view.trained
            believed = believed_of_others(evidence, prior, v, own)[rows].astype(np.float64)
            base = np.log(believed.mean(axis=0) + 1e-9)
            losses = [
                -(believed * log_softmax(slope * heard[v][rows] + base)).sum(axis=1).mean()
                for slope in _SLOPES
            ]
            slopes[v] = _SLOPES[int(np.argmin(losses))]
        return slopes
