"""Group segments of short videos that look alike: by speaker, room, camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsa_core.agree import has_vote
from vsa_core.fusion.inputs import gather
from vsa_core.fusion.views import Views
from vsa_core.fusion.weighing import association

Floats = NDArray[np.float64]

# A video of fewer segments does not show what its segments share.
SHORT = 20
# Principal components of each view's embedding that segments are compared by.
_COMPONENTS = 8
# Numbers of groups to choose from, and how many segments a group has at least, on average.
_COUNTS = (4, 8, 16, 32, 64)
_LEAST = 30
# Of groupings in which votes go together nearly as much, the finest: groups that are too coarse
# leave in what was to be taken out, which costs more.
_NEARLY = 0.98
# Votes that go together less than this share of what they do without groups: these are classes.
_CLASSES = 0.9
# Segments that components and centres are found from.
_SAMPLE = 20_000
_STEPS = 30
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Groups:
    """Which segments share more than their class.

    Attributes:
        number: (n,) of the segment's group: its video, or a group of segments of short videos.
        found: (G,) bool, whether it is such a group.
    """

    number: NDArray[np.integer]
    found: NDArray[np.bool_]


def group(views: Views, seed: int = 0) -> Groups:
    """The groups of n segments, of those of short videos by what their embeddings look like.

    Clips of a few speakers or rooms are confounded as much as long videos are, only that nobody
    says which belong together. They are clustered by the leading principal components of all
    views' embeddings (k-means); how finely is told by the votes, which go together best (see
    `association`) within groups that hold the confound and not the class. Where they go together
    far less than without groups, or there are fewer than 120 such segments, each video remains
    its own group.
    """
    own = Groups(views.video, np.zeros(len(views.videos), np.bool_))
    if not len(views):
        return own
    rows = np.flatnonzero(np.bincount(views.video)[views.video] < SHORT)
    voted = [p for p in views.probs.values() if (has_vote(p).sum(axis=1) > 1).any()]
    counts = [k for k in _COUNTS if k * _LEAST <= len(rows)]
    if not voted or not counts or not views.embedded[rows].any():
        return own
    points = _components(views, rows, seed)
    rng = np.random.default_rng([seed, len(rows)])
    long = np.delete(views.video, rows)
    tried = []
    for k in counts:
        number = np.empty(len(views), np.intp)
        number[rows] = _clusters(points, k, rng)
        number[np.delete(np.arange(len(views)), rows)] = k + np.unique(long, return_inverse=True)[1]
        found = np.arange(int(number.max()) + 1) < k
        tried.append((association(voted[0], number), Groups(number, found)))
    most = max(z for z, _ in tried)
    if most < _CLASSES * association(voted[0], views.video):
        return own
    return next(found for z, found in reversed(tried) if z >= _NEARLY * most)


def mostly_of(groups: Groups, video: NDArray[np.integer]) -> NDArray[np.intp]:
    """The group (videos,) that most segments of each video are of."""
    cells, count = np.unique(np.stack([video, groups.number]), axis=1, return_counts=True)
    mostly = np.zeros(int(video.max()) + 1, np.intp)
    fewest_first = np.argsort(count, kind="stable")
    mostly[cells[0, fewest_first]] = cells[1, fewest_first]
    return mostly


def _components(views: Views, rows: NDArray[np.intp], seed: int) -> NDArray[np.float32]:
    """Leading principal components (r, c) of some segments; NaN where there is no embedding."""
    place = np.full(len(views), -1)
    place[rows] = np.arange(len(rows))
    columns = []
    for v, embedding in enumerate(views.embeddings):
        some = rows[views.embedded[rows, v]]
        if not len(some):
            continue
        if len(some) > _SAMPLE:
            rng = np.random.default_rng([seed, v])
            some = np.sort(rng.choice(some, _SAMPLE, replace=False))
        x = gather(views, v, some).astype(np.float64)
        mean, scale = x.mean(axis=0), x.std(axis=0)
        scale[scale <= 1e-6 * (np.abs(mean) + 1e-6)] = np.inf
        z = (x - mean) / scale
        axes = np.linalg.eigh(z.T @ z)[1][:, ::-1][:, :_COMPONENTS]
        out = np.full((len(rows), axes.shape[1]), np.nan, np.float32)
        for block, vectors in embedding.blocks():
            here = place[block] >= 0
            out[place[block][here]] = ((vectors[here] - mean) / scale) @ axes
        columns.append(out)
    return np.concatenate(columns, axis=1)


def _clusters(points: NDArray[np.float32], k: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """The cluster (m,) of points (m, c) by k-means; what is NaN of a point does not count."""
    some = np.arange(len(points))
    if len(some) > _SAMPLE:
        some = np.sort(rng.choice(some, _SAMPLE, replace=False))
    x, known = _filled(points[some])
    whole = known.sum(axis=1) == known.sum(axis=1).max()
    centres = x[rng.choice(np.flatnonzero(whole), 1)]
    left = _distances(x, known, centres)[:, 0] * whole
    while len(centres) < k and left.sum() > 0:  # greedy k-means++
        drawn = x[rng.choice(len(x), 5, p=left / left.sum())]
        apart = np.minimum(left[:, None], _distances(x, known, drawn))
        best = int(apart.sum(axis=0).argmin())
        centres, left = np.vstack([centres, drawn[best]]), apart[:, best]
    for _ in range(_STEPS):
        member = np.eye(len(centres))[_distances(x, known, centres).argmin(axis=1)]
        size = member.T @ known
        centres = np.where(size > 0, member.T @ x / np.maximum(size, 1), centres)
    parts = (points[start : start + _BLOCK] for start in range(0, len(points), _BLOCK))
    return np.concatenate([_distances(*_filled(p), centres).argmin(axis=1) for p in parts])


def _filled(points: NDArray[np.float32]) -> tuple[Floats, Floats]:
    known = np.isfinite(points)
    return np.where(known, points, 0).astype(np.float64), known.astype(np.float64)


def _distances(x: Floats, known: Floats, centres: Floats) -> Floats:
    """(m, k) squared distances, over what is known of each point."""
    square = (x**2).sum(axis=1)[:, None] + known @ (centres**2).T
    out: Floats = np.maximum(square - 2 * x @ centres.T, 0)
    return out
