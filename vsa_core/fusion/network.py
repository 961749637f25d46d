"""The attention fusion network: several members side by side, one per cross-fitting fold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

# Standardised inputs beyond this are broken measurements, not information.
_MAX_SD = 10.0
# Rows in work at once during inference: a hundred MB at most whatever the embeddings' width.
_BLOCK = 1024


class Output(NamedTuple):
    """What F members say of B segments.

    Attributes:
        sentiment: (F, B, 3) logits.
        emotion: (F, B, 7) logits.
        attention: (F, B, V), summing to 1 over the views present, exactly 0 for the others; all 0
            where no view is present.
    """

    sentiment: Tensor
    emotion: Tensor
    attention: Tensor


class FusionNetwork(nn.Module):
    """F independent fusion networks in one: an encoder per view, attention over those present.

    The members share no weight; every parameter has them as its first axis, so that all folds
    train in one pass instead of F.

    Args:
        dims: embedding width of each of the V views.
        width: hidden width.
        members: F.
        classes: sentiments and emotions to tell apart.
        dropout: share of hidden units dropped in training.
        view_dropout: share of views dropped in training, never all of a segment's.

    Source: attention over modalities as in TF-MVSA; modality dropout as in ModDrop (Neverova et
    al. 2016).
    """

    def __init__(
        self,
        dims: Sequence[int],
        width: int,
        members: int,
        classes: tuple[int, int],
        dropout: float = 0.0,
        view_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.members = members
        self.dropout = dropout
        self.view_dropout = view_dropout
        self.encoders = nn.ModuleList(_Encoder(members, dim, width) for dim in dims)
        self.scores = nn.ModuleList(_Linear(members, width, 1) for _ in dims)
        self.sentiment = _Linear(members, width, classes[0])
        self.emotion = _Linear(members, width, classes[1])

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights of all linear layers, as torch's own layers would."""
        for module in self.modules():
            if isinstance(module, _Linear):
                module.initialise(generator)

    def forward(
        self,
        embeddings: Sequence[Tensor],
        present: Tensor,
        generator: torch.Generator | None = None,
    ) -> Output:
        """Logits and attention.

        Args:
            embeddings: per view (F, B, d) or, the same for all members, (B, d); what stands where
                a view is absent is never read.
            present: (F, B, V) or (B, V) bool.
            generator: what dropout draws from; None (inference) drops nothing.
        """
        if present.dim() == 2:
            present = present.expand(self.members, -1, -1)
        hidden, scores = [], []
        for view, (encode, score) in enumerate(zip(self.encoders, self.scores, strict=True)):
            seen = present[..., view, None]
            h = encode(torch.where(seen, embeddings[view], 0))  # (F, B, width)
            hidden.append(_drop(h, self.dropout, generator))
            scores.append(score(h))  # (F, B, 1)
        if generator is not None:
            present = self._drop_views(present, generator)
        attention = _masked_softmax(torch.cat(scores, dim=-1), present)
        fused = (attention[..., None] * torch.stack(hidden, dim=-2)).sum(dim=-2)  # (F, B, width)
        return Output(self.sentiment(fused), self.emotion(fused), attention)

    def _drop_views(self, present: Tensor, generator: torch.Generator) -> Tensor:
        kept = present & (torch.rand(present.shape, generator=generator) >= self.view_dropout)
        return torch.where(kept.any(dim=-1, keepdim=True), kept, present)

    @torch.inference_mode()
    def infer(
        self, embeddings: Sequence[NDArray[np.float32]], present: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """`forward` without dropout for any number of segments, arrays in and out."""
        blocks = [
            self(
                [torch.from_numpy(x[start : start + _BLOCK]) for x in embeddings],
                torch.from_numpy(present[start : start + _BLOCK]),
            )
            for start in range(0, max(len(present), 1), _BLOCK)
        ]
        sentiment, emotion, attention = (
            torch.cat(parts, dim=1).numpy() for parts in zip(*blocks, strict=True)
        )
        return sentiment, emotion, attention

    def standardise(self, view: int, member: int, mean: Tensor, scale: Tensor) -> None:
        """Set what a member subtracts from a view's embedding (d,) and divides it by."""
        encoder = self.encoders[view]
        assert isinstance(encoder, _Encoder)
        encoder.mean[member, 0] = mean
        encoder.scale[member, 0] = scale


class _Linear(nn.Module):
    """F linear maps side by side: (F, B, d) or (B, d) → (F, B, out)."""

    def __init__(self, members: int, dim: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(members, dim, out))
        self.bias = nn.Parameter(torch.zeros(members, 1, out))

    def initialise(self, generator: torch.Generator) -> None:
        bound = 1 / math.sqrt(self.weight.shape[1])
        with torch.no_grad():
            self.weight.uniform_(-bound, bound, generator=generator)
            self.bias.uniform_(-bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class _Encoder(nn.Module):
    """Standardise → linear → LayerNorm → GELU."""

    mean: Tensor
    scale: Tensor

    def __init__(self, members: int, dim: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(members, 1, dim))
        self.register_buffer("scale", torch.ones(members, 1, dim))
        self.linear = _Linear(members, dim, width)
        self.gain = nn.Parameter(torch.ones(members, 1, width))
        self.shift = nn.Parameter(torch.zeros(members, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        x = ((x - self.mean) / self.scale).clamp(-_MAX_SD, _MAX_SD)
        h = self.linear(x)
        return F.gelu(F.layer_norm(h, h.shape[-1:]) * self.gain + self.shift)


def _drop(h: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    if generator is None or share == 0:
        return h
    return h * (torch.rand(h.shape, generator=generator) >= share) / (1 - share)


def _masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis where the mask is True, 0 elsewhere; all 0 without any True."""
    floor = torch.finfo(scores.dtype).min
    return scores.masked_fill(~mask, floor).softmax(dim=-1) * mask
