"""The student: an attention network that labels segments, whatever it was trained on."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save

from vsa_core.errors import StoreError, UsageError
from vsa_core.fusion import one_thread
from vsa_core.fusion.attention import AttentionNetwork
from vsa_core.fusion.inputs import ViewInput
from vsa_core.fusion.views import Views

# What views say of segments is held for so many bytes' worth of segments at a time; with more
# segments the embeddings are read once more for each such part.
_HELD_BYTES = 256 * 2**20
# Rows in work at once: a hidden layer of 64 takes 2 MB.
_BLOCK = 8192
_KEY = "student"


@dataclass(frozen=True, slots=True)
class Student:
    """A trained network of F members, one per fold of videos that it never saw.

    Attributes:
        network: in inference only.
        inputs: what it reads of each of its V' views.
        classes: per target the names of its K classes.
        facts: JSON-able facts of the training, see `learn.train_student`.
    """

    network: AttentionNetwork
    inputs: tuple[ViewInput, ...]
    classes: Mapping[str, tuple[str, ...]]
    facts: Mapping[str, Any]

    def infer(
        self, views: Views, member: NDArray[np.integer]
    ) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]:
        """Probabilities and attention; takes `one_thread` itself.

        Args:
            views: n segments of V views. A view the student does not know is not read; one it
                knows that is not there counts as absent.
            member: (n,) which member judges each; -1 for the mean of all members.

        Returns:
            Per target (n, K), NaN where no view has anything to read; and attention (n, V), which
            sums to 1 over the views present, 0 for one that is not read, NaN where a view is
            absent and where nothing was read at all.

        Raises:
            UsageError: the views are of another width than it was trained on, or lack votes.
        """
        for view in self.inputs:
            view.check(views)
        usable = np.column_stack([view.usable(views) for view in self.inputs])
        heard = usable.sum(axis=1) > 0
        shares = np.zeros((len(views), len(views.names)), np.float32)
        columns = [views.names.index(i.name) if i.name in views.names else -1 for i in self.inputs]
        probs = {
            t: np.full((len(views), len(k)), np.nan, np.float32) for t, k in self.classes.items()
        }
        with one_thread(), torch.inference_mode():
            alone = [self.network.member(m) for m in range(self.network.members)]
            for rows, judges in self._parts(member, heard):
                says = self._says(views, alone, rows, judges)
                for start in range(0, len(rows), _BLOCK):
                    part = slice(start, start + _BLOCK)
                    at = rows[part]
                    seen = torch.from_numpy(usable[at]).expand(len(judges), -1, -1)
                    out = self.network.combine(torch.from_numpy(says[:, part]), seen)
                    for target, logits in zip(self.classes, out.logits, strict=True):
                        probs[target][at] = logits.softmax(dim=-1).mean(dim=0).numpy()
                    weight = out.attention.mean(dim=0).numpy()
                    for read, column in enumerate(columns):
                        if column >= 0:
                            shares[at, column] = weight[:, read]
        shares[~views.present | ~heard[:, None]] = np.nan
        return probs, shares

    def _parts(
        self, member: NDArray[np.integer], heard: NDArray[np.bool_]
    ) -> Iterator[tuple[NDArray[np.intp], list[NDArray[np.integer]]]]:
        """Rows (r,) to judge together, and the members (r,) who do, J for each row."""
        says = 4 * len(self.inputs) * (1 + sum(self.network.classes))
        for own in (True, False):
            judges = 1 if own else self.network.members
            rows = np.flatnonzero(((member >= 0) == own) & heard)
            length = max(_HELD_BYTES // (says * judges), _BLOCK)
            for start in range(0, len(rows), length):
                part = rows[start : start + length]
                yield part, [member[part] if own else np.full(len(part), m) for m in range(judges)]

    def _says(
        self,
        views: Views,
        alone: list[AttentionNetwork],
        rows: NDArray[np.intp],
        judges: list[NDArray[np.integer]],
    ) -> NDArray[np.float32]:
        """What each view says of some rows to their judges, (J, r, V', 1 + ΣK)."""
        slot = np.full(len(views), -1, np.int32)
        slot[rows] = np.arange(len(rows), dtype=np.int32)
        outputs = 1 + sum(self.network.classes)
        says = np.zeros((len(judges), len(rows), len(self.inputs), outputs), np.float32)
        for view, read in enumerate(self.inputs):
            for block, columns in read.blocks(views):
                at = slot[block]
                for j, judge in enumerate(judges):
                    # Where `at` is -1 the last row's judge is looked up, and left out by `at`.
                    by = np.where(at >= 0, judge[at], -1)
                    for m in np.unique(by[by >= 0]):
                        mine = by == m
                        x = torch.from_numpy(columns[mine])[None]
                        says[j, at[mine], view] = alone[m].say(view, x)[0].numpy()
        return says

    def to_bytes(self) -> bytes:
        """The safetensors file of it; the same student gives the same bytes."""
        tensors = dict(self.network.state_dict())
        about = []
        for view, read in enumerate(self.inputs):
            tensors[f"mean.{view}"] = torch.from_numpy(read.mean)
            tensors[f"scale.{view}"] = torch.from_numpy(read.scale)
            known = asdict(read)
            about.append({key: known[key] for key in ("name", "width", "votes")})
        head = {
            "views": about,
            "classes": {target: list(names) for target, names in self.classes.items()},
            "width": self.network.width,
            "members": self.network.members,
            "facts": self.facts,
        }
        return save(tensors, {_KEY: json.dumps(head, ensure_ascii=True, allow_nan=False)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Student:
        """The student that `to_bytes` wrote.

        Raises:
            StoreError: the bytes are not such a file.
        """
        try:
            tensors = load(data)
            (length,) = struct.unpack("<Q", data[:8])
            head = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_KEY])
            inputs = tuple(
                ViewInput(
                    about["name"],
                    about["width"],
                    tuple(about["votes"]),
                    tensors.pop(f"mean.{view}").numpy(),
                    tensors.pop(f"scale.{view}").numpy(),
                )
                for view, about in enumerate(head["views"])
            )
            classes = {target: tuple(names) for target, names in head["classes"].items()}
            network = AttentionNetwork(
                [len(view.mean) for view in inputs],
                head["width"],
                head["members"],
                [len(names) for names in classes.values()],
            )
            network.load_state_dict(tensors)
        except (
            SafetensorError,
            struct.error,
            ValueError,
            KeyError,
            TypeError,
            RuntimeError,
        ) as error:
            raise StoreError(
                f"not a model of the attention network ({error}): train it again"
            ) from error
        return cls(network, inputs, classes, head["facts"])


def skill(said: NDArray[np.floating], taught: NDArray[np.floating]) -> float:
    """How much of what it was taught a student has learned, 0 to 1.

    `1 − (H(taught, said) − H(taught)) / (H(mean taught) − H(taught))`, with cross-entropies H: 0
    for a student that knows no more than how frequent classes are, 1 for one that says just what
    it was taught. In the product of teacher and student it is the student's exponent, so that one
    that could learn little from a small set says little.

    Args:
        said: (n, K) probabilities by members that did not see the segment's video.
        taught: (n, K) soft labels. A row of NaN, here or there, is not counted.
    """
    counted = np.isfinite(said).all(axis=1) & np.isfinite(taught).all(axis=1)
    if not counted.any():
        return 0.0
    target = taught[counted].astype(np.float64)
    own = _cross_entropy(target, target)
    missed = _cross_entropy(target, said[counted].astype(np.float64)) - own
    to_learn = _cross_entropy(target, target.mean(axis=0, keepdims=True)) - own
    return float(np.clip(1 - missed / to_learn, 0, 1)) if to_learn > 1e-9 else 0.0


def _cross_entropy(target: NDArray[np.float64], probs: NDArray[np.float64]) -> float:
    return float(-(target * np.log(np.maximum(probs, 1e-12))).sum(axis=1).mean())


def check_folds(folds: NDArray[np.integer], trained: NDArray[np.bool_]) -> int:
    """The number of folds, where each leaves at least two trained segments (n,) outside.

    Raises:
        UsageError: it does not.
    """
    count = int(folds.max(initial=-1)) + 1
    for fold in range(max(count, 1)):
        if (trained & (folds != fold)).sum() < 2:
            raise UsageError(
                f"without the videos of fold {fold + 1} of {count} there is nothing to train a "
                "network on: give segments of more videos"
            )
    return count
