"""Linear experts: what a view's embedding says, learned from what the other views say.

Everything a linear discriminant needs of n embeddings are sums, taken in passes over blocks: the
embeddings themselves are never held. Sums over blocks are added in one order whatever the number
of threads.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vsa_core.fusion.views import Embedding

Floats = NDArray[np.float64]
Block = tuple[NDArray[np.intp], NDArray[np.float32]]
_T = TypeVar("_T")

# A video's offset counts like this many segments of no offset.
SHRINK_VIDEO = 3.0
# A video with fewer segments has an offset of 0: too little to tell.
MIN_VIDEO = 10
# Strength of the ridge, in segments (the width is added), relative to the mean variance.
_RIDGE = 50.0
# Standardised values beyond this are broken measurements, not information.
_MAX_SD = 10.0
# Vectors worked on at once: standardised, they stay in a core's cache.
_CACHED = 256


@dataclass(frozen=True, slots=True)
class Expert:
    """One view's linear discriminants, one per fold, each fitted without that fold's videos.

    A segment's evidence is `(z − offset of its video) · W + c`, z its standardised embedding. The
    offset, what a video's segments share beyond their classes, is only ever needed through W:
    `Σ_i (z_i W − t_i · M W) / (segments + SHRINK_VIDEO)` with t the classes believed in.

    Attributes:
        mean, scale: (d,) what the embedding is standardised with.
        weights: (F, d, K) the W.
        bias: (F, K) the c.
        means: (F, K, K) `M W`, the class means seen through the weights.
    """

    mean: Floats
    scale: Floats
    weights: Floats
    bias: Floats
    means: Floats

    def standardised(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors (b, d) with mean 0 and variance 1, broken ones cut off."""
        return _standardised(x, self.mean, self.scale)


def _standardised(x: NDArray[np.float32], mean: Floats, scale: Floats) -> NDArray[np.float32]:
    z = x - mean.astype(np.float32)
    z *= (1 / scale).astype(np.float32)
    return np.clip(z, -_MAX_SD, _MAX_SD, out=z)


def _pieces(length: int) -> list[slice]:
    return [slice(start, start + _CACHED) for start in range(0, length, _CACHED)]


class ViewSums:
    """The sums of one view that do not depend on what is believed of the classes.

    Attributes:
        trained: rows of the segments learned from.

    Args:
        embedding: of the view.
        trained: (n,) segments to learn from: the view is embedded, another says something.
        fold: (n,) of each segment.
        folds: F.
        video: (n,) number of the segment's video, or of the group it is in.
        found: which of these are groups, None for none. Their offsets are taken off the class
            means alone, since nobody knows them when segments are judged.
    """

    def __init__(
        self,
        embedding: Embedding,
        trained: NDArray[np.bool_],
        fold: NDArray[np.integer],
        folds: int,
        video: NDArray[np.integer],
        found: NDArray[np.bool_] | None = None,
    ) -> None:
        self._embedding = embedding
        self.trained = np.flatnonzero(trained)
        self._trained, self._fold, self._folds, self._video = trained, fold, folds, video
        d = embedding.width
        videos = int(video.max()) + 1 if len(video) else 0
        self._size = np.bincount(video, trained, videos)
        with_offset = np.flatnonzero(self._size >= MIN_VIDEO)
        self._place = np.full(videos, -1)
        self._place[with_offset] = np.arange(len(with_offset))
        self._size = self._size[with_offset]
        self._shrunk = 1 / (self._size + SHRINK_VIDEO)
        # Σ (x − b)(x − b)ᵀ = Σ x xᵀ − Σ weight · S Sᵀ for b = shrunk · S
        self._weight = (2 - self._size * self._shrunk) * self._shrunk
        if found is not None:
            self._weight[found[with_offset]] = 0
        self._fold_of_video = np.zeros(len(with_offset), np.intp)
        placed = self._place[video] >= 0
        self._fold_of_video[self._place[video[placed]]] = fold[placed]
        self._mean, self._scale = self._standard(d)
        self._sums(d, len(with_offset))

    def _standard(self, d: int) -> tuple[Floats, Floats]:
        total, square, count = np.zeros(d), np.zeros(d), 0
        for s, q, c in over_blocks(self._embedding, self._moments):
            total, square, count = total + s, square + q, count + c
        mean = total / max(count, 1)
        variance = square / max(count, 1) - mean**2
        flat = variance <= 1e-10 * (mean**2 + 1e-12)
        return mean, np.where(flat, 1.0, np.sqrt(np.maximum(variance, 1e-300)))

    def _moments(self, block: Block) -> tuple[Floats, Floats, int]:
        rows, x = block
        total, square = np.zeros(x.shape[1]), np.zeros(x.shape[1])
        kept = np.flatnonzero(self._trained[rows])
        for start in range(0, len(kept), _CACHED):
            wide = x[kept[start : start + _CACHED]].astype(np.float64)
            total += wide.sum(axis=0)
            square += np.einsum("nd,nd->d", wide, wide)
        return total, square, len(kept)

    def _sums(self, d: int, placed: int) -> None:
        self._gram = np.zeros((self._folds, d, d))
        self._video_sum = np.zeros((placed, d), np.float32)
        self._rows = np.bincount(self._fold[self._trained], minlength=self._folds).astype(float)
        for grams, videos in over_blocks(self._embedding, self._second_moments):
            for fold, gram in grams:
                self._gram[fold] += gram
            for place, sums in videos:
                self._video_sum[place] += sums
        for fold in range(self._folds):
            here = self._fold_of_video == fold
            s = self._video_sum[here].astype(np.float64)
            self._gram[fold] -= (s * self._weight[here, None]).T @ s

    def _second_moments(
        self, block: Block
    ) -> tuple[list[tuple[int, Floats]], list[tuple[np.intp, NDArray[np.float32]]]]:
        rows, x = block
        kept = np.flatnonzero(self._trained[rows])
        # Fold by fold and video by video, so that sums are of neighbours.
        place, fold = self._place[self._video[rows[kept]]], self._fold[rows[kept]]
        order = np.lexsort((place, fold))
        kept, place, fold = kept[order], place[order], fold[order]
        z = _standardised(x[kept], self._mean, self._scale)
        bounds = np.searchsorted(fold, np.arange(self._folds + 1))
        grams = [
            (f, (z[start:stop].T @ z[start:stop]).astype(np.float64))
            for f, (start, stop) in enumerate(pairwise(bounds.tolist()))
            if stop > start
        ]
        starts = np.flatnonzero(np.diff(place, prepend=-2))
        videos = [
            (place[start], z[start:stop].sum(axis=0))
            for start, stop in pairwise([*starts, len(z)])
            if place[start] >= 0
        ]
        return grams, videos

    def fit(self, believed: NDArray[np.floating]) -> Expert:
        """The experts that follow from what is believed of the classes.

        Args:
            believed: (n, K) rows summing to 1; only those learned from are read.
        """
        k, d = believed.shape[1], self._embedding.width
        cross = np.zeros((self._folds, k, d))
        for parts in over_blocks(self._embedding, lambda block: self._cross(block, believed)):
            cross += parts
        mass = np.zeros((self._folds, k))
        in_video = np.zeros((len(self._size), k))
        rows = self.trained
        for c in range(k):
            t = believed[rows, c]
            mass[:, c] = np.bincount(self._fold[rows], t, self._folds)
            place = self._place[self._video[rows]]
            in_video[:, c] = np.bincount(place[place >= 0], t[place >= 0], len(self._size))
        by_fold: list[tuple[Floats, ...]] = []
        for fold in range(self._folds):
            here = self._fold_of_video == fold
            s, n = self._video_sum[here].astype(np.float64), in_video[here]
            once, lasting = n * self._shrunk[here, None], n * self._weight[here, None]
            by_fold.append((once.T @ s, once.T @ n, lasting.T @ s, lasting.T @ n))
        sums = [np.stack(part) for part in zip(*by_fold, strict=True)]
        found = [self._solve(fold, cross, mass, *sums) for fold in range(self._folds)]
        fitted = (np.stack(part) for part in zip(*found, strict=True))
        return Expert(self._mean, self._scale, *fitted)

    def _cross(self, block: Block, believed: NDArray[np.floating]) -> Floats:
        rows, x = block
        t = np.where(self._trained[rows, None], believed[rows], 0)
        # The classes of each fold side by side: one product for all folds.
        mine = self._fold[rows, None] == np.arange(self._folds)
        spread = (mine[:, :, None] * t[:, None]).reshape(len(rows), -1).astype(np.float32)
        out = np.zeros((spread.shape[1], x.shape[1]))
        for part in _pieces(len(rows)):
            out += spread[part].T @ _standardised(x[part], self._mean, self._scale)
        return out.reshape(self._folds, -1, x.shape[1])

    def _solve(
        self,
        fold: int,
        cross: Floats,
        mass: Floats,
        linear: Floats,
        square: Floats,
        lean: Floats,
        pairs: Floats,
    ) -> tuple[Floats, Floats, Floats]:
        """Weights (d, K), bias (K,) and `M W` (K, K) without one fold."""

        def others(x: Floats) -> Floats:
            # Not all less one: what a fold holds must not reach its expert, not even by rounding.
            return x[np.arange(len(x)) != fold].sum(axis=0) if len(x) > 1 else x[0]

        n, d = max(float(others(self._rows)), 1.0), self._embedding.width
        counts = others(mass)
        ridge = 1e-6 * n  # a class nobody believes in has the mean of nothing
        means = np.linalg.solve(
            np.diag(counts + ridge) - others(square), others(cross) - others(linear)
        )
        # Σ t (x − b − m)(x − b − m)ᵀ over segments and classes, b = shrunk (S − N M); what the
        # equations of the means say of `cross` is put in, so that rounding errors cancel.
        mixed = (others(lean) - others(linear)).T @ means
        within = others(self._gram) + mixed + mixed.T
        within += means.T @ (2 * others(square) - others(pairs) - np.diag(counts)) @ means
        within /= n
        within[np.diag_indices(d)] += (_RIDGE + d) / n * max(np.trace(within) / d, 1e-6)
        weights: Floats = np.linalg.solve(within, means.T)
        seen: Floats = means @ weights
        return weights, -0.5 * np.diag(seen), seen


def scores(
    embedding: Embedding, expert: Expert, member: NDArray[np.integer], n: int
) -> NDArray[np.float32]:
    """Evidence (n, K) before offsets; 0 where the view has no embedding.

    Args:
        embedding: of the view.
        expert: F discriminants.
        member: (n,) which of them judges a segment; −1 for the mean of all.
        n: segments.
    """
    folds, _, k = expert.weights.shape
    weights = np.concatenate([*expert.weights, expert.weights.mean(axis=0)], axis=1)
    bias = np.concatenate([*expert.bias, expert.bias.mean(axis=0)]).astype(np.float32)
    weights = weights.astype(np.float32)
    out = np.zeros((n, k), np.float32)

    def score(block: Block) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        rows, x = block
        said = np.concatenate([expert.standardised(x[p]) @ weights for p in _pieces(len(x))])
        said = (said + bias).reshape(len(x), -1, k)
        which = np.where(member[rows] >= 0, member[rows], folds)
        return rows, said[np.arange(len(x)), which]

    for rows, said in over_blocks(embedding, score):
        out[rows] = said
    return out


def without_offsets(
    scored: NDArray[np.float32],
    believed: NDArray[np.floating],
    expert: Expert,
    member: NDArray[np.integer],
    embedded: NDArray[np.bool_],
    video: NDArray[np.integer],
) -> Floats:
    """Evidence (n, K) of `scores` less what each video's segments share beyond their classes.

    Mean 0 over the classes; 0 where the view has no embedding.

    Args:
        scored: (n, K) from `scores`.
        believed: (n, K) what is believed of the classes.
        expert: the discriminants.
        member: (n,) which of them judged.
        embedded: (n,) where the view has an embedding.
        video: (n,) numbers from 0.
    """
    videos = int(video.max()) + 1 if len(video) else 0
    rows = np.flatnonzero(embedded)
    size = np.bincount(video[rows], minlength=videos)
    means = np.concatenate([expert.means, expert.means.mean(axis=0)[None]])
    bias = np.concatenate([expert.bias, expert.bias.mean(axis=0)[None]])
    at = np.zeros(videos, np.intp)
    at[video] = member
    held = np.stack(
        [np.bincount(video[rows], believed[rows, c], videos) for c in range(believed.shape[1])], 1
    )
    shared = np.stack(
        [np.bincount(video[rows], scored[rows, c], videos) for c in range(scored.shape[1])], 1
    )
    # Not in place: of no segment at all `bincount` counts in whole numbers.
    shared = shared - size[:, None] * bias[at]
    shared -= np.einsum("vk,vkc->vc", held, means[at])
    shared *= ((size >= MIN_VIDEO) / (size + SHRINK_VIDEO))[:, None]
    evidence = scored - shared[video]
    evidence -= evidence.mean(axis=1, keepdims=True)
    evidence[~embedded] = 0
    return evidence


def over_blocks(embedding: Embedding, work: Callable[[Block], _T]) -> Iterator[_T]:
    """`work` on every block, in their order, on all cores; linear algebra on one thread each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with one_blas_thread(), ThreadPoolExecutor(cores) as pool:
        ahead: deque[Future[_T]] = deque()
        for block in embedding.blocks():
            ahead.append(pool.submit(work, block))
            if len(ahead) > (cores or 1):
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Linear algebra on one thread: sums have one order, and small matrices take far less time."""
    import scipy.linalg  # noqa: F401 - only a library that is loaded can be limited
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield
