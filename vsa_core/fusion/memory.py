"""What a model remembers of the segments it was made from, to notice when others differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from vsa_core.agree import has_unique_top
from vsa_core.errors import UsageError
from vsa_core.fusion.checks import Moments, embedding_drift, moments_of_sums, prior_drift
from vsa_core.fusion.strategies import Opinion
from vsa_core.fusion.views import Embedding, Views

MEMORY_FILE = "memory.safetensors"
# Moments of embeddings are of so many videos at most: each takes room for a vector.
_VIDEOS = 2000
_FIELDS = ("mean", "scale", "between")


@dataclass(frozen=True, slots=True)
class Memory:
    """Moments of labels and embeddings.

    Attributes:
        classes: per target the names of its classes.
        shares: per target the moments of its labels as indicators (K,); none without a label.
        embeddings: per view those of its embeddings (d,); none without one.
    """

    classes: Mapping[str, tuple[str, ...]]
    shares: Mapping[str, Moments]
    embeddings: Mapping[str, Moments]

    def to_bytes(self) -> bytes:
        """A safetensors file with the classes as metadata."""
        tensors: dict[str, NDArray[Any]] = {"format": np.array([1], np.int32)}
        for kind, held in (("shares", self.shares), ("embeddings", self.embeddings)):
            for name, found in held.items():
                for field in _FIELDS:
                    tensors[f"{kind}/{name}/{field}"] = getattr(found, field)
                tensors[f"{kind}/{name}/videos"] = np.array([found.videos])
        facts = {target: list(names) for target, names in self.classes.items()}
        return save(tensors, {"classes": json.dumps(facts)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Memory:
        """What `to_bytes` gave.

        Raises:
            UsageError: it is something else.
        """
        held: dict[str, dict[str, Moments]] = {"shares": {}, "embeddings": {}}
        try:
            size = int.from_bytes(data[:8], "little")
            classes = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["classes"])
            tensors = load(data)
            for key in [key for key in tensors if key.endswith("/videos")]:
                kind, name = key.removesuffix("/videos").split("/", 1)
                mean, scale, between = (tensors[f"{kind}/{name}/{field}"] for field in _FIELDS)
                held[kind][name] = Moments(mean, scale, between, int(tensors[key][0]))
        except Exception as error:  # safetensors, json and numpy each have their own
            raise UsageError(f"not what a model remembers ({error})") from error
        named = {target: tuple(names) for target, names in classes.items()}
        return cls(named, held["shares"], held["embeddings"])


def remember(views: Views, opinion: Opinion, *, seed: int = 0) -> Memory:
    """What is to be remembered of segments and their labels.

    Args:
        views: the segments.
        opinion: what was said of them.
        seed: which videos' embeddings are remembered where there are very many.
    """
    videos = len(views.videos)
    shares = {}
    for target, probs in opinion.probs.items():
        rows = np.flatnonzero(has_unique_top(probs))
        if len(rows):
            k = probs.shape[1]
            cell = views.video[rows].astype(np.int64) * k + probs[rows].argmax(axis=1)
            counts = np.bincount(cell, minlength=videos * k).reshape(videos, k)
            shares[target] = moments_of_sums(counts.sum(axis=1), counts, counts.sum(axis=0))
    few = np.random.default_rng(seed).permutation(videos)[:_VIDEOS]
    place = np.full(videos, -1)
    place[few] = np.arange(len(few))
    embeddings = {}
    for name, embedding in zip(views.names, views.embeddings, strict=True):
        found = _moments_of(embedding, place[views.video], len(few)) if embedding.width else None
        if found is not None:
            embeddings[name] = found
    return Memory(dict(views.classes), shares, embeddings)


def drifted(before: Memory, now: Memory) -> list[str]:
    """Where segments differ from those a model was made from, a line each.

    What only one of the two remembers is passed over, as are shares of classes with other names.
    """
    lines = [
        prior_drift(before.shares[target], shares, now.classes[target])
        for target, shares in now.shares.items()
        if target in before.shares and before.classes[target] == now.classes[target]
    ]
    lines += [
        embedding_drift(view, before.embeddings[view], found)
        for view, found in now.embeddings.items()
        if view in before.embeddings
    ]
    return [line for line in lines if line is not None]


def _moments_of(embedding: Embedding, place: NDArray[np.intp], videos: int) -> Moments | None:
    """Moments of the embeddings of videos with a place (n,) from 0; None where there is none."""
    sums, squares = np.zeros((videos, embedding.width)), np.zeros(embedding.width)
    sizes = np.zeros(videos, np.int64)
    origin: NDArray[np.float64] | None = None
    for rows, vectors in embedding.blocks():
        at = place[rows]
        if not (at >= 0).any():
            continue
        x = vectors[at >= 0].astype(np.float64)
        # Spread is the same about any origin, and exact only near the mean.
        origin = x.mean(axis=0) if origin is None else origin
        x -= origin
        np.add.at(sums, at[at >= 0], x)
        squares += (x**2).sum(axis=0)
        sizes += np.bincount(at[at >= 0], minlength=videos)
    if origin is None:
        return None
    found = moments_of_sums(sizes, sums, squares)
    return Moments(found.mean + origin, found.scale, found.between, found.videos)
