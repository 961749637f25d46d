"""The descent: members trained side by side, each stopped at its best held-out loss."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vsa_core import config
from vsa_core.fusion.attention import AttentionNetwork

# A check costs about as much as training on so many segments may.
_CHECK_EVERY = 8192
# Steps per epoch that small sets keep, and the most segments a step of a large one takes.
_STEPS, _BATCH_MOST = 32, 512
# Numbers a batch holds from which on two threads are worth their cost.
_TWO_THREADS = 100_000


@dataclass(frozen=True, slots=True)
class Task:
    """The m sampled segments as tensors: inputs, which are usable, targets and their weights."""

    inputs: list[Tensor]
    usable: Tensor
    targets: list[Tensor]
    weights: list[Tensor]


class Split(NamedTuple):
    """Sampled segments a member trains on, and those of other videos that tell it to stop."""

    train: NDArray[np.intp]
    inner: NDArray[np.intp]


def train_members(
    task: Task,
    splits: list[Split],
    classes: Mapping[str, Sequence[str]],
    settings: config.Fusion,
    progress: Callable[[float], None] | None,
) -> tuple[AttentionNetwork, list[int], list[float]]:
    """Train the members in one group, or in two side by side where there is much to compute.

    Which members train together depends on the data alone. Returns what `_descend` does, of all.
    """
    members = range(len(splits))
    busy = sum(x.shape[1] for x in task.inputs) * _batch(splits, settings)[0] * len(splits)
    groups = [members[0::2], members[1::2]] if busy >= _TWO_THREADS else [members]
    shares = [0.0] * len(groups)
    stop = threading.Event()

    def work(g: int) -> tuple[AttentionNetwork, list[int], list[float]]:
        torch.set_num_threads(1)

        def tell(share: float) -> bool:
            shares[g] = share
            return stop.is_set()

        return _descend(task, splits, groups[g], classes, settings, tell)

    with ThreadPoolExecutor(len(groups)) as pool:
        running = [pool.submit(work, g) for g in range(len(groups))]
        try:
            while wait(running, timeout=0.2).not_done:
                if progress is not None:
                    progress(sum(shares) / len(shares))
        finally:
            stop.set()
    done = [future.result() for future in running]
    whole = _network(task, classes, len(splits), settings)
    state = whole.state_dict()
    checks, losses = [0] * len(splits), [0.0] * len(splits)
    for group, (network, kept, loss) in zip(groups, done, strict=True):
        for name, value in network.state_dict().items():
            state[name][list(group)] = value
        for i, member in enumerate(group):
            checks[member], losses[member] = kept[i], loss[i]
    if progress is not None:
        progress(1.0)
    return whole, checks, losses


def _network(
    task: Task, classes: Mapping[str, Sequence[str]], members: int, settings: config.Fusion
) -> AttentionNetwork:
    return AttentionNetwork(
        [x.shape[1] for x in task.inputs],
        settings.width,
        members,
        [len(names) for names in classes.values()],
        settings.dropout,
        settings.modality_dropout,
    )


def _batch(splits: Sequence[Split], settings: config.Fusion) -> tuple[int, int]:
    """Segments a step, and steps an epoch: the same for all members."""
    longest = max(len(split.train) for split in splits)
    most = max(settings.batch_size, min(longest // _STEPS, _BATCH_MOST))
    steps = math.ceil(longest / most)
    return math.ceil(longest / steps), steps


def _descend(
    task: Task,
    splits: Sequence[Split],
    group: Sequence[int],
    classes: Mapping[str, Sequence[str]],
    settings: config.Fusion,
    tell: Callable[[float], bool],
) -> tuple[AttentionNetwork, list[int], list[float]]:
    """Train some members to their best held-out loss.

    Returns the network, and each one's best check, from 1, with the loss it had.
    """
    own = [splits[m] for m in group]
    # Each draws from a generator of its own, so it does not matter who is trained beside it.
    generators = [torch.Generator().manual_seed(settings.seed * 1000 + m) for m in group]
    network = _network(task, classes, len(group), settings)
    network.initialise(generators)
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    batch, steps = _batch(splits, settings)
    inner, real = _padded([split.inner for split in own])
    best = {name: value.clone() for name, value in network.state_dict().items()}
    best_loss = torch.full((len(group),), math.inf)
    best_check = torch.zeros(len(group), dtype=torch.long)
    every = min(steps, max(_CHECK_EVERY // batch, 1))
    checks = settings.max_epochs * steps // every
    batches = _batches(own, batch, steps, generators)
    for check in range(1, checks + 1):
        for _ in range(every):
            loss = _losses(network, task, next(batches), generators).mean(dim=1).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            held_out = (_losses(network, task, inner, None) * real).sum(dim=1) / real.sum(dim=1)
            # A member whose patience is over keeps its best while the others go on.
            better = (check - best_check <= settings.patience) & (held_out < best_loss)
            for name, value in network.state_dict().items():
                best[name][better] = value[better]
            best_loss[better] = held_out[better]
            best_check[better] = check
        if tell(check / checks) or not (check - best_check < settings.patience).any():
            break
    network.load_state_dict(best)
    return network, best_check.tolist(), best_loss.tolist()


def _losses(
    network: AttentionNetwork,
    task: Task,
    at: Tensor,
    generators: Sequence[torch.Generator] | None,
) -> Tensor:
    """Weighted loss (F, B) of each member on its own segments `at` (F, B)."""

    def pick(x: Tensor) -> Tensor:
        return x.index_select(0, at.flatten()).unflatten(0, at.shape)

    out = network([pick(x) for x in task.inputs], pick(task.usable), generators)
    total = torch.zeros(at.shape)
    for logits, soft, weight in zip(out.logits, task.targets, task.weights, strict=True):
        entropy = -(pick(soft) * F.log_softmax(logits, dim=-1)).sum(dim=-1)
        total = total + pick(weight) * entropy
    return total


def _batches(
    splits: Sequence[Split], batch: int, steps: int, generators: Sequence[torch.Generator]
) -> Iterator[Tensor]:
    """Indices (F, batch) without end; each epoch in a new order, short sets more than once."""
    while True:
        order = torch.stack(
            [_shuffled(s.train, steps * batch, g) for s, g in zip(splits, generators, strict=True)]
        )
        yield from order.split(batch, dim=1)


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
