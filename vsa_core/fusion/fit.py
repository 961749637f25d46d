"""Fit the network's members, one per fold, in a single pass; the only place that trains."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from vsa_core import config
from vsa_core.fusion.data import Consensus, Views, standardisation
from vsa_core.fusion.network import FusionNetwork, Output
from vsa_core.labels import EMOTIONS, SENTIMENTS, Modality

# The emotion head shares the encoders and helps them; the sentiment decides labels.
_EMOTION_SHARE = 0.5
# Share of a member's training segments, in whole videos, held out for early stopping.
_INNER_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained network of F members and what they say of the c consensus segments.

    Attributes:
        weights: the safetensors file.
        modalities, dims: the views it takes, and how wide they are.
        epochs: (F,) the epoch whose weights were kept, from 1.
        sentiment, emotion: (c, 3) and (c, 7) logits of the member that never saw the video.
    """

    weights: bytes
    modalities: tuple[Modality, ...]
    dims: tuple[int, ...]
    epochs: list[int]
    sentiment: NDArray[np.float32]
    emotion: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Task:
    """The consensus segments as tensors: inputs, targets, and (F, c) weights of both losses."""

    embeddings: list[Tensor]
    present: Tensor
    sentiment: Tensor
    emotion: Tensor
    sentiment_weight: Tensor
    emotion_weight: Tensor


def fit(
    views: Views,
    consensus: Consensus,
    settings: config.Fusion,
    report: Callable[[float], None],
) -> Fitted:
    """Train one member per fold, without that fold's videos and stopped early on others.

    Args:
        views: the run's segments.
        consensus: those that agree, with at least two folds.
        settings: sizes, rates and the seed.
        report: told the share of the work done, 0 to 1.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    used = np.flatnonzero(views.present[consensus.rows].any(axis=0))
    present = views.present[consensus.rows][:, used]
    embeddings = [views.embeddings[view][consensus.rows] for view in used]
    dims = tuple(x.shape[1] for x in embeddings)
    members = int(consensus.folds.max()) + 1
    network = FusionNetwork(
        dims,
        settings.width,
        members,
        (len(SENTIMENTS), len(EMOTIONS)),
        settings.dropout,
        settings.modality_dropout,
    )
    network.initialise(generator)
    _standardise(network, views, consensus, used)
    splits = [
        split(consensus, views.video_ids[consensus.rows], member, settings.seed)
        for member in range(members)
    ]
    task = _Task(
        [torch.from_numpy(x) for x in embeddings],
        torch.from_numpy(present),
        torch.from_numpy(consensus.sentiment),
        torch.from_numpy(consensus.emotion),
        *_loss_weights(consensus, [train for train, _ in splits], settings.min_per_class),
    )
    epochs = _descend(network, task, splits, settings, generator, report)
    sentiment, emotion, _ = network.infer(embeddings, present)
    own = consensus.folds, np.arange(len(consensus))
    return Fitted(
        save(network.state_dict()),
        tuple(views.modalities[view] for view in used),
        dims,
        epochs,
        sentiment[own],
        emotion[own],
    )


def split(
    consensus: Consensus, video_ids: NDArray[np.str_], member: int, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The consensus rows a member trains on, and those of other videos that tell it to stop.

    Neither holds a video of the member's own fold. Where that leaves a single video, its last
    fifth takes the place of other videos.

    Args:
        consensus: c rows.
        video_ids: (c,) their videos.
        member: whose rows.
        seed: which videos tell it to stop.
    """
    others = np.flatnonzero(consensus.folds != member)
    of_other = video_ids[others]
    videos = np.unique(of_other)
    wanted = math.ceil(_INNER_SHARE * len(others))
    if len(videos) == 1:
        return others[:-wanted], others[-wanted:]
    inner = np.zeros(len(others), np.bool_)
    for i in np.random.default_rng([seed, member]).permutation(len(videos))[1:]:
        inner |= of_other == videos[i]
        if inner.sum() >= wanted:
            break
    return others[~inner], others[inner]


def _standardise(
    network: FusionNetwork, views: Views, consensus: Consensus, used: NDArray[np.intp]
) -> None:
    """Give each member the mean and scale of all segments but those of its own fold's videos."""
    fold = np.array([consensus.fold_of.get(v, -1) for v in views.video_ids.tolist()])
    for member in range(network.members):
        for i, view in enumerate(used):
            seen = views.present[:, view] & (fold != member)
            mean, scale = standardisation(views.embeddings[view][seen])
            network.standardise(i, member, torch.from_numpy(mean), torch.from_numpy(scale))


def _loss_weights(
    consensus: Consensus, trained_on: list[NDArray[np.intp]], min_per_class: int
) -> tuple[Tensor, Tensor]:
    """(F, c) weights of the sentiment and the emotion loss; 0 where there is no emotion."""
    sentiment, emotion = [], []
    for rows in trained_on:
        named = rows[consensus.has_emotion[rows]]
        by_sentiment = _balanced(consensus.sentiment[rows], len(SENTIMENTS), min_per_class)
        by_emotion = _balanced(consensus.emotion[named], len(EMOTIONS), min_per_class)
        sentiment.append(by_sentiment[consensus.sentiment])
        emotion.append(by_emotion[consensus.emotion] * consensus.has_emotion)
    return (
        torch.from_numpy(np.stack(sentiment).astype(np.float32)),
        torch.from_numpy(np.stack(emotion).astype(np.float32)),
    )


def _balanced(labels: NDArray[np.intp], classes: int, least: int) -> NDArray[np.float64]:
    """A weight per class that makes all count the same, 1 where they are equally frequent.

    A class counts as at least `least` segments: one or two must not outweigh all others.
    """
    counts = np.bincount(labels, minlength=classes)
    weights: NDArray[np.float64] = len(labels) / np.maximum(counts, max(least, 1)) / classes
    return weights


def _descend(
    network: FusionNetwork,
    task: _Task,
    splits: list[tuple[NDArray[np.intp], NDArray[np.intp]]],
    settings: config.Fusion,
    generator: torch.Generator,
    report: Callable[[float], None],
) -> list[int]:
    """Train all members to their best held-out loss; returns each one's best epoch, from 1."""
    members = len(splits)
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    longest = max(len(train) for train, _ in splits)
    steps = math.ceil(longest / settings.batch_size)
    batch = math.ceil(longest / steps)
    inner, inner_mask = _padded([rows for _, rows in splits])
    best = {name: value.clone() for name, value in network.state_dict().items()}
    best_loss = torch.full((members,), math.inf)
    best_epoch = torch.zeros(members, dtype=torch.long)
    for epoch in range(1, settings.max_epochs + 1):
        order = torch.stack([_shuffled(rows, steps * batch, generator) for rows, _ in splits])
        for at in order.split(batch, dim=1):
            loss = _losses(network, task, at, generator).mean(dim=1).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            losses = (_losses(network, task, inner, None) * inner_mask).sum(dim=1)
            held_out = losses / inner_mask.sum(dim=1)
            # A member whose patience is over keeps its best while the others go on.
            better = (epoch - best_epoch <= settings.patience) & (held_out < best_loss)
            for name, value in network.state_dict().items():
                best[name][better] = value[better]
            best_loss[better] = held_out[better]
            best_epoch[better] = epoch
        report(epoch / settings.max_epochs)
        if not (epoch - best_epoch < settings.patience).any():
            break
    network.load_state_dict(best)
    return [int(epoch) for epoch in best_epoch]


def _losses(
    network: FusionNetwork, task: _Task, at: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Weighted loss (F, B) of each member on its own consensus rows `at` (F, B)."""
    member = torch.arange(len(at))[:, None]
    out: Output = network([x[at] for x in task.embeddings], task.present[at], generator)
    sentiment = F.cross_entropy(out.sentiment.mT, task.sentiment[at], reduction="none")
    emotion = F.cross_entropy(out.emotion.mT, task.emotion[at], reduction="none")
    weighted: Tensor = (
        task.sentiment_weight[member, at] * sentiment
        + _EMOTION_SHARE * task.emotion_weight[member, at] * emotion
    )
    return weighted


def _shuffled(rows: NDArray[np.intp], length: int, generator: torch.Generator) -> Tensor:
    """The rows in random order, the first ones again up to the length the longest fold needs."""
    order = torch.randperm(len(rows), generator=generator)
    return torch.from_numpy(rows)[order[torch.arange(length) % len(rows)]]


def _padded(rows: list[NDArray[np.intp]]) -> tuple[Tensor, Tensor]:
    """Index lists of several lengths as one (F, L) array, and which entries (F, L) are real."""
    longest = max(len(r) for r in rows)
    index = np.stack([np.resize(r, longest) for r in rows])
    real = np.stack([np.arange(longest) < len(r) for r in rows])
    return torch.from_numpy(index), torch.from_numpy(real).float()
