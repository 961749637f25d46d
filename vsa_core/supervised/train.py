"""Training a supervised model: seeded, resumed bit for bit, ended early, written down as it goes

The order of rows comes from (seed, epoch) and each row's augmentation from (seed, epoch, row), so
that a checkpoint needs to keep only where it is and the state of torch's generators.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vsa_core.config import fingerprint
from vsa_core.errors import ConfigError, StoreError, VsaError
from vsa_core.evaluate import confusion_by_video, f1_of
from vsa_core.progress import advance, begin
from vsa_core.supervised.batch import Batch
from vsa_core.supervised.dataset import UtteranceDataset, class_counts, collate
from vsa_core.supervised.features import FeatureCache
from vsa_core.supervised.journal import Journal
from vsa_core.supervised.model import MultimodalNet, MultitaskLoss
from vsa_core.supervised.rates import Rates, trained_parts
from vsa_core.supervised.recipe import Recipe
from vsa_core.supervised.utterances import TARGETS, Utterance
from vsa_core.whole_files import put_whole, whole_file

_CHECKPOINT = "checkpoint.pt"
_BEST = "best.safetensors"
_FORMAT = 1
# Rows among which those of like length come into one batch, in batches.
_BUCKET = 20


@dataclass(frozen=True, slots=True)
class Opinions:
    """What a network says of n utterances.

    Attributes:
        probs: by target (n, K) float32, rows that sum to 1.
        loss: mean loss of those with labels; NaN where none has any.
    """

    probs: Mapping[str, NDArray[np.float32]]
    loss: float

    def weighted_f1(self, utterances: Sequence[Utterance], target: str) -> float:
        """Weighted F1 over the utterances whose class is known; NaN where none is."""
        truth = np.array([u.labels.get(target, -1) for u in utterances])
        known = truth >= 0
        if not known.any():
            return float("nan")
        said = self.probs[target][known].argmax(axis=1)
        one = np.zeros(int(known.sum()), np.int64)
        counts = confusion_by_video(truth[known], said, one, len(TARGETS[target]))
        return f1_of(counts[0], weighted=True)


@dataclass(frozen=True, slots=True)
class Trained:
    """What training came to.

    Attributes:
        net: with the weights of the best epoch, in evaluation mode, on the CPU.
        epoch: the best one, from 0.
        epochs: how many were gone through.
        history: a record for each epoch, as in `history.jsonl`.
    """

    net: MultimodalNet
    epoch: int
    epochs: int
    history: list[dict[str, Any]]


class Training:
    """One training, in a folder of its own.

    Args:
        folder: holds `checkpoint.pt`, `best.safetensors`, `history.jsonl` and `tensorboard/`.
        net: begins here; its weights are those of the checkpoint where there is one.
        recipe: how.
        train, dev: what is learned from, and what says when to stop.
        cache: of their pictures and sounds; None for text alone.
        device: `cpu` or `cuda`.
        workers: processes that read utterances; 0 reads in this one.
        journal: what hears of each epoch besides `history.jsonl`.

    Raises:
        ConfigError: nothing to learn from, or the folder holds the training of something else.
        StoreError: the checkpoint cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        net: MultimodalNet,
        recipe: Recipe,
        train: Sequence[Utterance],
        dev: Sequence[Utterance],
        cache: FeatureCache | None,
        *,
        device: str = "cpu",
        workers: int = 0,
        journal: Journal | None = None,
    ) -> None:
        self._folder, self._recipe, self._device = folder, recipe, device
        self._train = UtteranceDataset(train, recipe, cache, train=True)
        self._dev = UtteranceDataset(dev, recipe, cache, train=False)
        self._workers = workers
        self._journal = journal
        for name, rows in (("learn from", train), ("stop by", dev)):
            if not any(t in u.labels for u in rows for t in recipe.targets):
                raise ConfigError(f"no utterance to {name} has a {' or '.join(recipe.targets)}")
        self._net = net.to(device)
        self._lengths = self._train.token_lengths()
        weights = _class_weights(recipe, train)
        self._loss = MultitaskLoss(recipe.loss, weights).to(device)
        self._rates = Rates(recipe, self._net, self._loss, self._steps_an_epoch())
        self._precision = _precision(recipe, device)
        self._scaler = torch.amp.GradScaler(device, enabled=self._precision == torch.float16)
        said = recipe.model_dump(mode="json"), _told(train), _told(dev), _weights(net)
        self._of = fingerprint(_FORMAT, *said)
        self._epoch, self._batch = 0, 0
        self._sums = {"loss": 0.0, "rows": 0.0}
        self._best: dict[str, Any] = {"figure": None, "epoch": -1}
        self._history: list[dict[str, Any]] = []
        self._saved = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".*.tmp"):  # of a training that was killed as it wrote
            left.unlink()
        self._restore()

    def run(self) -> Trained:
        """Train to the end, from where a checkpoint left off.

        Raises:
            VsaError: the loss is no number any more.
            Interrupted: as `progress.advance`; a checkpoint was written.
        """
        schedule = self._recipe.schedule
        begin("Training", schedule.epochs - self._epoch)
        while self._epoch < schedule.epochs and not self._waited_enough():
            try:
                self._go_through()
            except BaseException:
                if not self._in_step:
                    self._save()
                raise
            self._close_epoch()
        from safetensors.torch import load_file

        best = load_file(self._folder / _BEST)
        net = self._net.to("cpu")
        net.load_state_dict(best)
        return Trained(net.eval(), self._best["epoch"], self._epoch, self._history)

    # --- one epoch ------------------------------------------------------------------------

    _in_step = False

    def _go_through(self) -> None:
        """The rest of an epoch's batches."""
        schedule, net = self._recipe.schedule, self._net
        if not self._batch:  # else a checkpoint has set torch's generators
            torch.manual_seed(_seed(self._recipe.seed, "epoch", self._epoch))
        trained_parts(net, self._recipe, self._epoch)
        self._train.set_epoch(self._epoch)
        order = self._order(self._epoch)
        rest = order[self._batch :]
        total = len(order)
        batches = batches_of(self._train, rest, self._device, self._workers)
        for at, batch in enumerate(batches, self._batch):
            self._in_step = True
            # What a group of accumulated batches is divided by: the last one may be smaller.
            group = at // schedule.accumulate * schedule.accumulate
            share = min(schedule.accumulate, total - group)
            with self._autocast():
                logits = net(batch)
            loss = self._loss(logits, batch)
            value = float(loss.detach())
            if not np.isfinite(value):
                raise VsaError(
                    f"the loss is {value} in epoch {self._epoch + 1}, batch {at + 1}: lower "
                    "schedule.learning_rate, or use precision float32"
                )
            loss = loss + self._recipe.loss.l1 * self._rates.l1()
            self._scaler.scale(loss / share).backward()
            self._sums["loss"] += value * len(batch)
            self._sums["rows"] += len(batch)
            if (at + 1) % schedule.accumulate == 0 or at + 1 == total:
                self._step()
                self._batch = at + 1
                self._in_step = False
                advance("Training", share / total)
                if time.monotonic() - self._saved > 60 * schedule.checkpoint_minutes:
                    self._save()

    def _step(self) -> None:
        optimizer = self._rates.optimizer
        self._rates.set()
        self._scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(self._rates.parameters, self._recipe.schedule.clip_norm)
        scale = self._scaler.get_scale()
        self._scaler.step(optimizer)
        self._scaler.update()
        # A step whose gradients float16 cannot hold is left out, and the scale is lowered; the
        # first few are. They are no part of the warm-up.
        if self._scaler.get_scale() >= scale:
            self._rates.count()
        optimizer.zero_grad(set_to_none=True)

    def _close_epoch(self) -> None:
        """Look at the development set, keep the weights if they are the best, write it all down."""
        found = opinions(
            self._net, self._dev, self._loss, self._recipe, self._device, self._workers
        )
        figures = {t: found.weighted_f1(self._dev.utterances, t) for t in self._recipe.targets}
        figure = self._figure(figures, found.loss)
        better = self._best["figure"] is None or figure > self._best["figure"]
        record = {
            "epoch": self._epoch,
            "train_loss": self._sums["loss"] / max(self._sums["rows"], 1),
            "dev_loss": found.loss,
            **{f"dev_{target}_weighted_f1": value for target, value in figures.items()},
            "learning_rate": self._rates.current,
            "best": better,
        }
        if better:
            from safetensors.torch import save

            put_whole(self._folder / _BEST, save(_tensors(self._net)))
            self._best = {"figure": figure, "epoch": self._epoch}
        self._rates.heard(better)
        self._history.append(record)
        self._epoch, self._batch = self._epoch + 1, 0
        self._sums = {"loss": 0.0, "rows": 0.0}
        lines = "".join(json.dumps(one) + "\n" for one in self._history)
        put_whole(self._folder / "history.jsonl", lines.encode())
        self._save()
        if self._journal is not None:
            self._journal.epoch(record)

    def _figure(self, figures: Mapping[str, float], loss: float) -> float:
        """What is to grow."""
        monitor = self._recipe.schedule.monitor
        known = [value for value in figures.values() if np.isfinite(value)]
        if monitor == "loss" or not known:
            return -loss
        return figures[monitor] if monitor in figures else float(np.mean(known))

    def _waited_enough(self) -> bool:
        waited = self._epoch - 1 - self._best["epoch"]
        return self._epoch > 0 and waited >= self._recipe.schedule.patience

    # --- order and batches ----------------------------------------------------------------

    def _order(self, epoch: int) -> list[list[int]]:
        """Rows of an epoch's batches: shuffled, then those of like length together."""
        draw = random.Random(_seed(self._recipe.seed, "order", epoch))
        rows = list(range(len(self._train)))
        draw.shuffle(rows)
        size = self._recipe.schedule.batch_size
        batches = []
        for first in range(0, len(rows), size * _BUCKET):
            some = sorted(rows[first : first + size * _BUCKET], key=self._lengths.__getitem__)
            batches += [some[at : at + size] for at in range(0, len(some), size)]
        draw.shuffle(batches)
        return batches

    def _steps_an_epoch(self) -> int:
        schedule = self._recipe.schedule
        return max(1, -(-len(self._order(0)) // schedule.accumulate))

    def _autocast(self) -> AbstractContextManager[Any]:
        if self._precision == torch.float32:
            return nullcontext()
        return torch.autocast(self._device, self._precision)

    # --- checkpoints ----------------------------------------------------------------------

    def _save(self) -> None:
        """Write down where it is; whole or not at all."""
        state = {
            "of": self._of,
            "epoch": self._epoch,
            "batch": self._batch,
            "sums": self._sums,
            "best": self._best,
            "history": self._history,
            "net": self._net.state_dict(),
            "loss": self._loss.state_dict(),
            "rates": self._rates.state(),
            "scaler": self._scaler.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if self._device == "cuda" else [],
        }
        with whole_file(self._folder / _CHECKPOINT) as file:
            torch.save(state, file)
        self._saved = time.monotonic()

    def _restore(self) -> None:
        path = self._folder / _CHECKPOINT
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location=self._device, weights_only=True)
            of = state["of"]
        except Exception as error:  # whatever a damaged file makes torch raise
            line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise StoreError(
                f"checkpoint {path} cannot be read ({line}): remove it to train anew"
            ) from error
        if of != self._of:
            raise ConfigError(
                f"{self._folder} holds the training of another recipe, of other utterances or "
                "from other weights: name "
                "another folder, or remove it"
            )
        self._net.load_state_dict(state["net"])
        self._loss.load_state_dict(state["loss"])
        self._rates.restore(state["rates"])
        self._scaler.load_state_dict(state["scaler"])
        self._epoch, self._batch = state["epoch"], state["batch"]
        self._sums, self._best, self._history = state["sums"], state["best"], state["history"]
        torch.set_rng_state(state["random"].cpu())
        if self._device == "cuda" and state["random_cuda"]:
            torch.cuda.set_rng_state_all([one.cpu() for one in state["random_cuda"]])


def opinions(
    net: MultimodalNet,
    data: UtteranceDataset,
    loss: MultitaskLoss | None,
    recipe: Recipe,
    device: str = "cpu",
    workers: int = 0,
) -> Opinions:
    """What a network says of a data set, in its order, without augmentation.

    Args:
        net: on the device.
        data: not one for training.
        loss: for the mean loss; None leaves it NaN.
        recipe: of the network.
        device: `cpu` or `cuda`.
        workers: processes that read utterances.
    """
    net.eval()
    probs = {t: np.zeros((len(data), len(TARGETS[t])), np.float32) for t in recipe.targets}
    total = rows = 0.0
    lengths = data.token_lengths()
    order = sorted(range(len(data)), key=lengths.__getitem__)
    size = recipe.schedule.batch_size
    cut = [order[at : at + size] for at in range(0, len(order), size)]
    with torch.inference_mode():
        for batch in batches_of(data, cut, device, workers):
            logits = net(batch)
            if loss is not None:
                total += float(loss(logits, batch)) * len(batch)
                rows += len(batch)
            at = batch.rows.numpy()
            for target, said in logits.items():
                probs[target][at] = said.float().softmax(dim=1).cpu().numpy()
    return Opinions(probs, total / rows if rows else float("nan"))


def batches_of(
    data: UtteranceDataset, order: Sequence[list[int]], device: str, workers: int
) -> Iterator[Batch]:
    """Batches of some rows, on the device; read ahead by processes where there are any."""
    loader = torch.utils.data.DataLoader(
        data,
        batch_sampler=order,
        collate_fn=collate,
        num_workers=workers,
        # Not forked: threads of decoders and of torch do not outlive a fork.
        multiprocessing_context="spawn" if workers else None,
        # Of its own, so that to make one takes nothing from torch's.
        generator=torch.Generator().manual_seed(0),
        pin_memory=device == "cuda",
    )
    for batch in loader:
        yield batch.to(device)


def _class_weights(recipe: Recipe, rows: Sequence[Utterance]) -> dict[str, Tensor]:
    """By target (K,), the inverse frequency to the power the recipe says, mean 1 over the rows."""
    found = {}
    for target in recipe.targets:
        counts = class_counts(rows, target).astype(np.float64)
        weights = np.where(counts > 0, np.maximum(counts, 1), counts.sum()) ** -(
            recipe.loss.class_weights
        )
        weights /= max((weights * counts).sum() / max(counts.sum(), 1), 1e-12)
        found[target] = torch.tensor(weights, dtype=torch.float32)
    return found


def _precision(recipe: Recipe, device: str) -> torch.dtype:
    name = recipe.schedule.precision
    if name == "auto":
        name = "float16" if device == "cuda" else "float32"
    if name == "float16" and device == "cpu":
        raise ConfigError("schedule.precision float16 is for cuda: give float32 or bfloat16")
    found: torch.dtype = getattr(torch, name)
    return found


def _told(utterances: Sequence[Utterance]) -> str:
    """A hash of what is learned from."""
    digest = hashlib.sha256()
    for one in utterances:
        said = [one.id, one.text, one.speaker, one.before, sorted(one.labels.items()), one.weight]
        digest.update(json.dumps([*said, one.media is not None, one.start_ms, one.end_ms]).encode())
    return digest.hexdigest()


def _weights(net: nn.Module) -> str:
    """A hash of what a network begins from."""
    digest = hashlib.sha256()
    for name, x in net.state_dict().items():
        digest.update(name.encode())
        digest.update(x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _seed(*parts: Any) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")


def _tensors(net: nn.Module) -> dict[str, Tensor]:
    return {name: x.detach().cpu().contiguous() for name, x in net.state_dict().items()}
