"""Figures of counts by truth and decision, class by class, and their intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsa_core.evaluate import interval_by_video

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and where it lies if videos like these were drawn anew.

    Attributes:
        value: in [0, 1], or [-1, 1] of a difference; None where nothing was decided.
        low, high: 95 % interval over whole videos; None with fewer than two, or not asked for.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How well one class is told.

    Attributes:
        name: the class.
        support: rows whose truth it is.
        decided: those of them with a decision.
        precision: share right of the rows that are said to be it; None where none is.
        recall: share found of those decided; None where none is decided.
        f1: their harmonic mean; None where neither is known.
    """

    name: str
    support: int
    decided: int
    precision: float | None
    recall: float | None
    f1: float | None


def accuracy_of(confusion: NDArray[np.number]) -> float:
    """Share right of those decided; NaN where none is.

    Args:
        confusion: (K, K + 1) counts by truth and decision; the last column is not decided.
    """
    decided = confusion[:, :-1].sum()
    return float(np.trace(confusion) / decided) if decided else float("nan")


def mean_of_classes(
    confusion: NDArray[np.number], what: str = "f1", *, weighted: bool = False
) -> float:
    """Mean of a figure of those decided over the classes; NaN where none is.

    Args:
        confusion: (K, K + 1) counts by truth and decision; the last column is not decided.
        what: f1, precision or recall; 0 where a class has none.
        weighted: by how often a class occurs among those decided, instead of over all classes
            that occur in the truth alike.
    """
    told = confusion[:, :-1]
    if not told.any():
        return float("nan")
    support, said = told.sum(axis=1), told.sum(axis=0)
    below = {"f1": (support + said) / 2, "precision": said, "recall": support}[what]
    figures = np.diag(told) / np.where(below > 0, below, 1)
    if weighted:
        return float((figures * support).sum() / support.sum())
    return float(figures[confusion.sum(axis=1) > 0].mean())


def class_scores(confusion: NDArray[np.integer], names: Sequence[str]) -> tuple[ClassScore, ...]:
    """Every class by itself.

    Args:
        confusion: (K, K + 1) counts by truth and decision; the last column is not decided.
        names: (K,) of the classes.
    """
    told = confusion[:, :-1]
    support, said, hits = told.sum(axis=1), told.sum(axis=0), np.diag(told)

    def share(of: int, all_of_them: int) -> float | None:
        return of / all_of_them if all_of_them else None

    return tuple(
        ClassScore(
            name,
            int(confusion[c].sum()),
            int(support[c]),
            share(int(hits[c]), int(said[c])),
            share(int(hits[c]), int(support[c])),
            share(2 * int(hits[c]), int(support[c] + said[c])),
        )
        for c, name in enumerate(names)
    )


def with_interval(
    sums: NDArray[np.number],
    statistic: Callable[[NDArray[np.number]], float],
    *,
    bounds: tuple[float, float],
    wanted: bool = True,
) -> Figure:
    """A figure of counts (G, ...) by video with its interval, which stays within its bounds."""
    value = known(statistic(sums.sum(axis=0)))
    found = interval_by_video(sums, statistic, level=LEVEL) if wanted else None
    if value is None or found is None:
        return Figure(value)
    return Figure(value, max(found[0], bounds[0]), min(found[1], bounds[1]))


def known(value: float) -> float | None:
    """The figure; None for NaN."""
    return float(value) if np.isfinite(value) else None
