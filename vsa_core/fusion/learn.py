"""Train the student, a member per fold that never sees its videos; the only place that trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from vsa_core import config
from vsa_core.agree import has_vote
from vsa_core.fusion import one_thread
from vsa_core.fusion.descend import Split, Task, train_members
from vsa_core.fusion.inputs import EMBEDDING, VOTES, ViewInput, gather, make_input
from vsa_core.fusion.student import Student, check_folds
from vsa_core.fusion.views import Views

# The first target decides labels; the others share the encoders and help them.
_OTHER_SHARE = 0.5
# Share of a member's training segments, in whole videos, held out for early stopping.
_INNER_SHARE = 0.2
# Held-out segments looked at to decide when to stop: more would cost more than they tell.
_INNER_MOST = 4096
# Segments that mean and scale of the inputs are taken from.
_STANDARD_MOST = 10_000


def train_student(
    views: Views,
    targets: Mapping[str, NDArray[np.floating]],
    folds: NDArray[np.integer],
    settings: config.Fusion,
    *,
    weights: Mapping[str, NDArray[np.floating]] | None = None,
    read: Sequence[str] = (EMBEDDING, VOTES),
    progress: Callable[[float], None] | None = None,
) -> Student:
    """Train one member per fold, without that fold's videos and stopped early on others.

    The same segments, targets and settings give the same bytes on any number of threads, and
    however the embeddings are cut into blocks. Takes `one_thread` itself.

    Args:
        views: n segments.
        targets: per target (n, K) soft labels, each row summing to 1; a segment with a row of
            NaN is not trained on. The first target counts in full, the others half.
        folds: (n,) from 0, a video wholly in one.
        settings: sizes, rates and the seed.
        weights: per target (n,) how much each segment counts; None for 1.
        read: what the network reads of a view, of `inputs.EMBEDDING` and `inputs.VOTES`.
        progress: told the share of the work done, 0 to 1; may raise to stop it.

    Raises:
        UsageError: without some fold there is nothing to train on.

    The student's facts: `segments` that could be trained on and those `sampled` of them, what was
    `read`, and per member after how many `checks` it was best, with what `held_out_loss`.
    """
    known = {target: np.isfinite(soft).all(axis=1) for target, soft in targets.items()}
    trainable = (np.sum(list(known.values()), axis=0) > 0) & _readable(views, read)
    members = check_folds(folds, trainable)
    rng = np.random.default_rng([settings.seed, len(views)])
    sample = _sampled(trainable, settings.max_train, rng)
    standard = _sampled(_readable(views, read), _STANDARD_MOST, rng)
    inputs, columns = _read(views, read, sample, standard)
    rows = np.flatnonzero(sample)
    task = _task(columns, inputs, views, rows, known, targets, weights)
    splits = [split(views.video[rows], folds[rows], m, settings.seed) for m in range(members)]
    classes = {target: views.classes[target] for target in targets}
    with one_thread():
        network, checks, losses = train_members(task, splits, classes, settings, progress)
    facts = {
        "segments": int(trainable.sum()),
        "sampled": len(rows),
        "read": list(read),
        "checks": checks,
        "held_out_loss": losses,
    }
    return Student(network.eval(), tuple(inputs), classes, facts)


def _read(
    views: Views, read: Sequence[str], sample: NDArray[np.bool_], standard: NDArray[np.bool_]
) -> tuple[list[ViewInput], list[NDArray[np.float32]]]:
    """What is read of each view, and its columns (m, d + c) of the sampled segments.

    Args:
        views: n segments.
        read: of `EMBEDDING` and `VOTES`.
        sample: (n,) the m that are trained on.
        standard: (n,) those that mean and scale are taken from.
    """
    inputs, columns = [], []
    rows = np.flatnonzero(sample | standard)
    for v in range(len(views.names)):
        none = np.zeros((len(rows), 0), np.float32)
        raw = gather(views, v, rows) if EMBEDDING in read else none
        view = make_input(views, v, read, raw, rows, standard[rows])
        if view is not None:
            inputs.append(view)
            columns.append(_columns(view, views, raw[sample[rows]], rows[sample[rows]]))
    return inputs, columns


def _readable(views: Views, read: Sequence[str]) -> NDArray[np.bool_]:
    """(n,) where some view has something to read."""
    readable = np.zeros(len(views), np.bool_)
    if EMBEDDING in read:
        readable |= views.embedded.any(axis=1)
    if VOTES in read:
        for said in views.probs.values():
            readable |= has_vote(said).any(axis=1)
    return readable


def _sampled(among: NDArray[np.bool_], most: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """At most so many of the True, drawn uniformly."""
    drawn = np.zeros_like(among)
    at = np.flatnonzero(among)
    drawn[rng.choice(at, most, replace=False) if len(at) > most else at] = True
    return drawn


def _columns(
    view: ViewInput, views: Views, raw: NDArray[np.float32], rows: NDArray[np.intp]
) -> NDArray[np.float32]:
    """A view's standardised columns (m, d + c), 0 for a part that is not there."""
    columns = np.empty((len(rows), len(view.mean)), np.float32)
    columns[:, : view.width] = view.standardise(raw[:, : view.width])
    if view.width:
        columns[~views.embedded[rows, views.names.index(view.name)], : view.width] = 0
    columns[:, view.width :] = view.read_votes(views, rows)
    return columns


def _task(
    columns: list[NDArray[np.float32]],
    inputs: list[ViewInput],
    views: Views,
    rows: NDArray[np.intp],
    known: Mapping[str, NDArray[np.bool_]],
    targets: Mapping[str, NDArray[np.floating]],
    weights: Mapping[str, NDArray[np.floating]] | None,
) -> Task:
    soft, counts = [], []
    for position, (target, labels) in enumerate(targets.items()):
        count = np.ones(len(rows)) if weights is None else weights[target][rows]
        share = 1.0 if position == 0 else _OTHER_SHARE
        here = known[target][rows]
        soft.append(np.where(here[:, None], labels[rows], 0))
        counts.append(np.where(here, share * count, 0))
    return Task(
        [torch.from_numpy(x) for x in columns],
        torch.from_numpy(np.column_stack([view.usable(views)[rows] for view in inputs])),
        [torch.from_numpy(s.astype(np.float32)) for s in soft],
        [torch.from_numpy(c.astype(np.float32)) for c in counts],
    )


def split(video: NDArray[np.integer], folds: NDArray[np.integer], member: int, seed: int) -> Split:
    """What a member trains on and what tells it to stop; neither holds its own fold's videos.

    Where that leaves a single video, its last fifth takes the place of other videos.
    """
    others = np.flatnonzero(folds != member)
    of_other = video[others]
    videos, sizes = np.unique(of_other, return_counts=True)
    wanted = math.ceil(_INNER_SHARE * len(others))
    if len(videos) == 1:
        return Split(others[:-wanted], others[-wanted:])
    rng = np.random.default_rng([seed, member])
    order = rng.permutation(len(videos))[1:]
    taken = order[: np.searchsorted(np.cumsum(sizes[order]), wanted) + 1]
    inner = np.isin(of_other, videos[taken])
    held_out = others[inner]
    if len(held_out) > _INNER_MOST:
        held_out = np.sort(rng.choice(held_out, _INNER_MOST, replace=False))
    return Split(others[~inner], held_out)
