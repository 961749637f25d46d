"""Made segments for the student, their truth as its targets, and blocks in any order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsa_core.config import Fusion
from vsa_core.fusion.student import Student
from vsa_core.fusion.views import Embedding, Held, Views, views_from_arrays

QUICK = Fusion(width=16, max_epochs=30, patience=6, learning_rate=1e-2, batch_size=128)
NAMES = ("a", "b", "c")


@dataclass
class Made:
    """Segments whose class three views show: by embedding and votes, by either alone."""

    views: Views
    truth: NDArray[np.intp]
    folds: NDArray[np.intp]

    @property
    def soft(self) -> NDArray[np.float32]:
        """The truth as soft labels."""
        return np.where(np.eye(3)[self.truth] > 0, 0.9, 0.05).astype(np.float32)


def made(
    n: int = 600, videos: int = 10, folds: int = 5, absent: float = 0.2, seed: int = 0
) -> Made:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, n)
    video = np.sort(np.arange(n) % videos)
    text = 2 * np.eye(3, 12)[truth] + rng.normal(size=(n, 12))
    sound = 2 * np.eye(3, 5)[truth] + rng.normal(size=(n, 5))
    voted = np.where(rng.random((n, 3)) < 0.7, truth[:, None], rng.integers(0, 3, (n, 3)))
    said = np.exp(3 * np.eye(3)[voted] + rng.normal(size=(n, 3, 3)))
    said /= said.sum(axis=2, keepdims=True)
    said[:, 1] = np.nan  # sound does not vote
    gone = rng.random((n, 3)) < absent
    text[gone[:, 0]] = np.nan
    sound[gone[:, 1]] = np.nan
    said[gone] = np.nan
    views = views_from_arrays(
        np.array([f"v{i:03d}" for i in video]),
        said,
        [text, sound, None],
        names=("text", "sound", "face"),
        classes=NAMES,
    )
    return Made(views, truth, views.video.astype(np.intp) % folds)


def accuracy(student: Student, these: Made) -> float:
    probs, _ = student.infer(these.views, these.folds)
    heard = np.isfinite(probs["label"]).all(axis=1)
    return float((probs["label"].argmax(axis=1) == these.truth)[heard].mean())


@dataclass(frozen=True)
class Shuffled:
    """The same embeddings in blocks of another size, the rows in any order."""

    held: Held
    seed: int

    @property
    def width(self) -> int:
        return self.held.width

    def blocks(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        order = np.random.default_rng(self.seed).permutation(len(self.held.rows))
        for part in np.array_split(order, 7 + self.seed):
            yield self.held.rows[part], self.held.vectors[part]


def shuffled(views: Views) -> Views:
    others: list[Embedding] = [
        Shuffled(e, seed) if e.width else e for seed, e in enumerate(views.embeddings)
    ]
    return dataclasses.replace(views, embeddings=tuple(others))
