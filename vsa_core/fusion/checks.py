"""Warnings people can act on: each a function of a few statistics, one line or None."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Effect sizes below these are no reason to act, however sure they are; above them chance is ruled
# out at about one in a thousand.
LEAST_CONSENSUS = 30
LEAST_CONSENSUS_SHARE = 0.05
ONE_SIDED = 0.9
NOISE_TOLD = 0.005
CONTRADICTS = -0.03
PRIOR_MOVED = 0.1
EMBEDDING_MOVED = 0.1
_Z = 3.1
_DRIFT = 4.0
# Segments of a video resemble each other: so many are worth about one of their own.
_SEGMENTS_PER_FACT = 4.0


@dataclass(frozen=True, slots=True)
class Moments:
    """What is remembered of embeddings, d dimensions.

    Attributes:
        mean: (d,) of the segments.
        scale: (d,) standard deviation of the segments.
        between: (d,) standard deviation of the videos' means.
        videos: how many videos; one says nothing about `between`, which is then 0.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    between: NDArray[np.float64]
    videos: int


def moments(vectors: NDArray[np.floating], video: NDArray[np.generic]) -> Moments:
    """Mean and spread of embeddings (n, d) of videos (n,), n > 0."""
    x = vectors.astype(np.float64)
    names, index = np.unique(video, return_inverse=True)
    sums = np.zeros((len(names), x.shape[1]))
    np.add.at(sums, index, x)
    # Spread is the same about any origin, and exact only near the mean.
    origin = x.mean(axis=0)
    sizes = np.bincount(index)
    found = moments_of_sums(sizes, sums - sizes[:, None] * origin, ((x - origin) ** 2).sum(axis=0))
    return Moments(found.mean + origin, found.scale, found.between, found.videos)


def moments_of_sums(
    sizes: NDArray[np.integer], sums: NDArray[np.number], squares: NDArray[np.number]
) -> Moments:
    """The same from each video's number of segments (videos,) and sum (videos, d).

    Videos without a segment are left out; there must be one with. For shares of classes, `sums`
    counts each class and `squares` is its total.

    Args:
        sizes, sums: by video.
        squares: (d,) sum of the squares over all segments.
    """
    there = sizes > 0
    total = sizes.sum()
    mean = sums[there].sum(axis=0) / total
    scale = np.sqrt(np.maximum(squares / total - mean**2, 0))
    means = sums[there] / sizes[there, None]
    between = means.std(axis=0, ddof=1) if len(means) > 1 else np.zeros(len(mean))
    return Moments(mean, scale, between, len(means))


def consensus(counts: NDArray[np.integer], segments: int, classes: Sequence[str]) -> str | None:
    """Too few agreeing segments to learn from, or nearly all of one class.

    Args:
        counts: (K,) agreeing segments by class.
        segments: how many there are in all that two views or more vote on.
        classes: (K,) names.
    """
    total = int(counts.sum())
    if total < LEAST_CONSENSUS or total < LEAST_CONSENSUS_SHARE * segments:
        return (
            f"views agree on {total} of {segments} segments, too few to learn from: "
            "add videos, or take strategy late-product"
        )
    top = int(counts.argmax())
    if counts[top] > ONE_SIDED * total:
        return (
            f"{counts[top] / total:.0%} of the {total} segments views agree on are "
            f"{classes[top]}: review some of the others, or rare classes are not learned"
        )
    return None


def noise(view: str, told: float, segments: int) -> str | None:
    """A view whose embedding says nothing about what the others see.

    Args:
        view: its name.
        told: share of what the others know that it foretells on held-out segments, 0 to 1.
        segments: that this was measured on.
    """
    if told >= NOISE_TOLD:
        return None
    return (
        f"the {view} embedding foretells nothing of what the others say on {segments} segments: "
        "it is no better than noise; check its backend, or leave it out"
    )


def contradictions(votes: NDArray[np.integer], names: Sequence[str]) -> list[str]:
    """Views that agree with the others less than chance has it.

    Chance is what their shares of the classes would give if nothing tied them; a view that is wrong
    about everything is below it, a view that guesses is at it. Of two views nobody can say which
    one is wrong, so both are named in one line.

    Args:
        votes: (n, V) index of each view's vote; -1 where it has none.
        names: (V,) of the views.
    """
    v = votes.shape[1]
    gap, sd = np.zeros((v, v)), np.full((v, v), np.inf)
    for a in range(v):
        for b in range(a):
            both = (votes[:, a] >= 0) & (votes[:, b] >= 0)
            if both.any():
                gap[a, b], sd[a, b] = _beyond_chance(votes[both, a], votes[both, b])
                gap[b, a], sd[b, a] = gap[a, b], sd[a, b]
    below = (gap < CONTRADICTS) & (gap < -_Z * sd)
    if v == 2:
        if below[0, 1]:
            return [
                f"{names[0]} and {names[1]} agree {-gap[0, 1]:.2f} less often than chance: one "
                "of them contradicts the truth; check the order of their classes"
            ]
        return []
    # Of three and more, one that is below chance with most of the others stands out.
    return [
        f"{names[a]} agrees with {listed([names[b] for b in range(v) if below[a, b]])} less "
        "often than chance: check the order of its classes, or leave it out"
        for a in range(v)
        if below[a].sum() > (v - 1) / 2
    ]


def prior_drift(before: Moments, now: Moments, classes: Sequence[str]) -> str | None:
    """Shares of the classes that moved from one run to another.

    Segments of a video are alike, so the shift is compared to what videos differ by (a t-test
    over videos, Bonferroni over classes); with a single video on both sides nobody can tell.

    Args:
        before, now: `moments` of the labels as indicators (n, K), which makes `mean` the shares.
        classes: (K,) names.
    """
    shift = now.mean - before.mean
    if float(np.abs(shift).sum() / 2) < PRIOR_MOVED:
        return None
    from scipy.special import stdtrit  # takes longer to import than most questions to answer

    free = before.videos + now.videos - 2
    if free < 1:
        return None
    within = before.between**2 * (before.videos - 1) + now.between**2 * (now.videos - 1)
    sd = np.sqrt(within / free * (1 / before.videos + 1 / now.videos))
    limit = float(stdtrit(free, 1 - 0.001 / (2 * len(classes))))
    top = int(np.abs(shift).argmax())
    if abs(shift[top]) < limit * sd[top]:
        return None
    return (
        f"{classes[top]} went from {before.mean[top]:.0%} to {now.mean[top]:.0%} of the labels "
        "since the last run: look at some, and train anew if the videos are of another kind"
    )


def embedding_drift(view: str, before: Moments, now: Moments) -> str | None:
    """Embeddings that lie elsewhere than those the model was trained on.

    The mean shift is compared to what videos differ by among themselves, so that a handful of new
    videos is no drift; and to the spread of segments, so that a sure but small one is none either.

    Args:
        view: its name.
        before: of the segments the model was trained on.
        now: of those it is to label.
    """
    if before.mean.shape != now.mean.shape:
        return (
            f"{view} embeddings have {len(now.mean)} dimensions, the model knows "
            f"{len(before.mean)}: train anew"
        )
    shift2 = (now.mean - before.mean) ** 2
    moved = float((shift2 / np.maximum(before.scale, 1e-9) ** 2).mean())
    # What the spread of segments alone would leave between videos bounds it from below.
    per_video = np.maximum(before.between, 0.05 * before.scale) ** 2
    chance = float((per_video / np.maximum(before.scale, 1e-9) ** 2).mean())
    chance *= 1 / max(before.videos, 1) + 1 / max(now.videos, 1)
    if moved < EMBEDDING_MOVED or moved < _DRIFT * chance:
        return None
    return (
        f"{view} embeddings lie {np.sqrt(moved):.1f} standard deviations from those the model was "
        "trained on: train anew, or check that the backend is the same"
    )


def _beyond_chance(a: NDArray[np.integer], b: NDArray[np.integer]) -> tuple[float, float]:
    """Agreement less what the shares of the votes give by chance, and its standard error."""
    k = int(max(a.max(), b.max())) + 1
    chance = float(np.bincount(a, minlength=k) @ np.bincount(b, minlength=k)) / len(a) ** 2
    sd = np.sqrt(chance * (1 - chance) / len(a) * _SEGMENTS_PER_FACT)
    return float((a == b).mean()) - chance, float(max(sd, 1e-9))


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
