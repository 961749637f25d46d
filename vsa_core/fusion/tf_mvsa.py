"""TF-MVSA as published: a network trained on what the views agree on labels the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vsa_core import config
from vsa_core.agree import Votes, agreement, has_vote
from vsa_core.fusion import late
from vsa_core.fusion.inputs import EMBEDDING
from vsa_core.fusion.views import Views
from vsa_core.labels import Agreement

if TYPE_CHECKING:
    from vsa_core.fusion.student import Student


@dataclass(frozen=True, slots=True)
class TfMvsa:
    """What TF-MVSA says of n segments.

    Attributes:
        probs: per target (n, K). Where confident votes agree the mean of the agreeing views'
            probabilities, where a single view votes what that view says, where no view votes NaN;
            elsewhere what the network says, which never saw the segment's video. Where the
            network has nothing to read, or there is none, the mean of the voting views.
        attention: (n, V) of the first target: the network's where it decides, else equal shares
            of the views whose mean was taken; 0 for a present view that was not used, NaN for an
            absent one and where nothing was used.
        student: the network; None where there is too little consensus.
        note: why there is no network, one line; None where there is one.
    """

    probs: dict[str, NDArray[np.floating]]
    attention: NDArray[np.floating]
    student: Student | None
    note: str | None


def tf_mvsa(
    views: Views,
    folds: NDArray[np.integer],
    settings: config.Fusion,
    min_confidence: float,
    progress: Callable[[float], None] | None = None,
) -> TfMvsa:
    """Train on the consensus and label all segments.

    Args:
        views: n segments; the first target decides labels.
        folds: (n,) from 0, a video wholly in one.
        settings: of the network, and how little consensus is too little.
        min_confidence: a vote on the first target whose highest probability is below this
            abstains. On other targets every vote counts: a floor made for few classes would leave
            little over many.
        progress: told the share of the work done, 0 to 1.

    Source: TF-MVSA: hard consensus labels, class-balanced, and attention over embeddings. Its
        published code also feeds a map of the label to the network; this does not.
    """
    first = next(iter(views.probs))
    votes = _votes(views, min_confidence)
    note = _too_little(views, votes[first], folds, settings)
    student = None if note else _train(views, votes, folds, settings, progress)
    probs, attention = label_as_tf_mvsa(views, folds, student, min_confidence)
    return TfMvsa(probs, attention, student, note)


def consensus_targets(
    votes: Votes, min_per_class: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What n segments' views agree on, and how much each agreement counts.

    A class counts as much as any other, but as at least `min_per_class` segments: one or two must
    not outweigh all others.

    Returns:
        One-hot labels (n, K), NaN where the views do not agree, and weights (n,).
    """
    agree = votes.agreed.sum(axis=1) > 0
    counts = votes.agreed.sum(axis=0)
    classes = max(int((counts > 0).sum()), 1)
    of_class = counts.sum() / np.maximum(counts, max(min_per_class, 1)) / classes
    labels = np.where(agree[:, None], votes.agreed, np.nan).astype(np.float32)
    return labels, np.where(agree, of_class[votes.agreed.argmax(axis=1)], 0).astype(np.float32)


def _train(
    views: Views,
    votes: dict[str, Votes],
    folds: NDArray[np.integer],
    settings: config.Fusion,
    progress: Callable[[float], None] | None,
) -> Student:
    from vsa_core.fusion.learn import train_student  # torch: not needed with too little consensus

    targets, weights = {}, {}
    for target, cast in votes.items():
        labels, weight = consensus_targets(cast, settings.min_per_class)
        if target == next(iter(votes)) or cast.agreed.any(axis=1).sum() >= settings.min_consensus:
            targets[target], weights[target] = labels, weight
    return train_student(
        views, targets, folds, settings, weights=weights, read=(EMBEDDING,), progress=progress
    )


def label_as_tf_mvsa(
    views: Views,
    member: NDArray[np.integer],
    student: Student | None,
    min_confidence: float,
) -> tuple[dict[str, NDArray[np.floating]], NDArray[np.floating]]:
    """What `TfMvsa` says of segments, with a network that is trained already.

    Args:
        views: n segments; the first target decides labels.
        member: (n,) which member judges each; −1 for the mean of all.
        student: the network; None for none.
        min_confidence: as in `tf_mvsa`.
    """
    votes = _votes(views, min_confidence)
    said: dict[str, NDArray[np.float32]] = {}
    shares = np.full(views.present.shape, np.nan)
    if student is not None:
        said, shares = student.infer(views, member)
    probs = {}
    for target, of_views in views.probs.items():
        cast = votes[target]
        agreeing = (cast.ballots & cast.agreed[:, None]).any(axis=2)  # (n, V)
        agree = cast.states == Agreement.AGREE.value
        counted = np.where(agree[:, None], agreeing, has_vote(of_views))
        used = np.where(counted[..., None], of_views, np.nan)
        mean = late.mean(used)
        undecided = np.isin(cast.states, [Agreement.DISAGREE.value, Agreement.UNCERTAIN.value])
        network = said.get(target, np.full_like(mean, np.nan))
        by_network = undecided & np.isfinite(network).all(axis=1)
        probs[target] = np.where(by_network[:, None], network, mean)
        if target == next(iter(votes)):
            shares = np.where(by_network[:, None], shares, late.shares(used, views.present))
    return probs, shares


def _votes(views: Views, min_confidence: float) -> dict[str, Votes]:
    first = next(iter(views.probs))
    return {
        target: agreement(said, min_confidence if target == first else 0.0)
        for target, said in views.probs.items()
    }


def _too_little(
    views: Views, votes: Votes, folds: NDArray[np.integer], settings: config.Fusion
) -> str | None:
    """Why there is not enough agreement to train on; None when there is."""
    agree = votes.agreed.sum(axis=1) > 0
    readable = agree & (views.embedded.sum(axis=1) > 0)
    if agree.sum() < settings.min_consensus:
        return (
            f"{agree.sum()} of {len(views)} segments agree, a network needs "
            f"{settings.min_consensus} (fusion.min_consensus)"
        )
    if readable.sum() < settings.min_consensus:
        return f"{readable.sum()} of {agree.sum()} agreeing segments have an embedding"
    if len(np.unique(folds[readable])) < 2:
        return (
            f"all {readable.sum()} agreeing segments are of one video or fold, none can be held out"
        )
    counts = votes.agreed[readable].sum(axis=0)
    if (counts >= max(settings.min_per_class, 1)).sum() < 2:
        names = next(iter(views.classes.values()))
        found = ", ".join(f"{c} {s}" for s, c in zip(names, counts, strict=True))
        return (
            f"fewer than two classes are agreed on {settings.min_per_class} times "
            f"(fusion.min_per_class): {found}"
        )
    for fold in np.unique(folds):
        outside = votes.agreed[readable & (folds != fold)].sum(axis=0)
        if (outside > 0).sum() < 2:
            return "with some videos held out, the agreeing segments hold a single class"
    return None
