"""Two systems on the same rows: McNemar's test, and differences with their intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsa_core.assess.figures import Figure, with_interval
from vsa_core.evaluate import confusion_by_video, f1_of

# Below so many rows on which only one is right the distribution of chi² is too coarse.
_FEW = 25


@dataclass(frozen=True, slots=True)
class McNemar:
    """Whether two systems are right equally often.

    Attributes:
        only_first: rows on which only the first is right.
        only_second: rows on which only the second is.
        method: `exact` (binomial, with fewer than 25 such rows) or `chi2` (with the correction
            for continuity).
        statistic: chi²; None where exact.
        p: two-sided. It takes rows for independent, which those of one video are not.
    """

    only_first: int
    only_second: int
    method: str
    statistic: float | None
    p: float


@dataclass(frozen=True, slots=True)
class Paired:
    """Two systems on the same rows; differences are the first less the second.

    Attributes:
        n: rows.
        accuracy: share right of all n, of both; not to decide is not right.
        weighted_f1: F1 weighted by how often a class occurs in all n, of both.
        accuracy_difference: with its paired interval over whole videos.
        weighted_f1_difference: likewise.
        mcnemar: the test on who is right.
    """

    n: int
    accuracy: tuple[float, float]
    weighted_f1: tuple[float, float]
    accuracy_difference: Figure
    weighted_f1_difference: Figure
    mcnemar: McNemar


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems on one target.

    Attributes:
        all: on every row with a truth.
        both_decided: on the rows that both decided; None where there are none, and the same as
            `all` where there is no other.
    """

    all: Paired
    both_decided: Paired | None


def compare(
    truth: NDArray[np.integer],
    first: NDArray[np.integer],
    second: NDArray[np.integer],
    groups: NDArray[np.integer],
    classes: int,
) -> Comparison:
    """Two systems against the same truth.

    Args:
        truth: (n,) index of the class, n > 0.
        first, second: (n,) index of the class decided; -1 abstains.
        groups: (n,) number of the row's video.
        classes: K.
    """

    def paired(rows: NDArray[np.bool_]) -> Paired:
        return _paired(truth[rows], first[rows], second[rows], groups[rows], classes)

    both = (first >= 0) & (second >= 0)
    every = paired(np.ones(len(truth), np.bool_))
    if both.all():
        return Comparison(every, every)
    return Comparison(every, paired(both) if both.any() else None)


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """McNemar's test of n rows.

    Args:
        first, second: (n,) whether each system is right.

    Source: McNemar 1947; Edwards 1948 for the correction.
    """
    from scipy.stats import binomtest, chi2

    a, b = int((first & ~second).sum()), int((second & ~first).sum())
    if a + b < _FEW:
        p = float(binomtest(a, a + b).pvalue) if a + b else 1.0
        return McNemar(a, b, "exact", None, p)
    statistic = max(abs(a - b) - 1, 0) ** 2 / (a + b)
    return McNemar(a, b, "chi2", statistic, float(chi2.sf(statistic, 1)))


def _paired(
    truth: NDArray[np.integer],
    first: NDArray[np.integer],
    second: NDArray[np.integer],
    groups: NDArray[np.integer],
    classes: int,
) -> Paired:
    _, video = np.unique(groups, return_inverse=True)
    video = video.astype(np.int64)
    # (G, 2, K, K + 1): a video is drawn with what both said of it.
    counts = np.stack(
        [confusion_by_video(truth, said, video, classes) for said in (first, second)], axis=1
    )
    total = counts.sum(axis=0)

    def difference(figure: Callable[[NDArray[np.number]], float]) -> Figure:
        return with_interval(counts, lambda s: figure(s[0]) - figure(s[1]), bounds=(-1.0, 1.0))

    return Paired(
        len(truth),
        (_share_right(total[0]), _share_right(total[1])),
        (_weighted_f1(total[0]), _weighted_f1(total[1])),
        difference(_share_right),
        difference(_weighted_f1),
        mcnemar(first == truth, second == truth),
    )


def _share_right(confusion: NDArray[np.number]) -> float:
    return float(np.trace(confusion) / confusion.sum())


def _weighted_f1(confusion: NDArray[np.number]) -> float:
    return f1_of(confusion, weighted=True)
