"""The attention fusion network: any number of views and targets, several members side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Output(NamedTuple):
    """What F members say of B segments.

    Attributes:
        logits: per target (F, B, K).
        attention: (F, B, V), summing to 1 over the views present, exactly 0 for the others; all 0
            where no view is present.
    """

    logits: tuple[Tensor, ...]
    attention: Tensor


class AttentionNetwork(nn.Module):
    """F independent fusion networks in one: an encoder per view, attention over those present.

    A view's encoder (linear → LayerNorm → GELU) gives a hidden vector, from which come the view's
    score and, through heads that all views share, its say on each target. The logits are the mean
    of what the views say, weighted by the softmax of the scores over the views present; as the
    heads are linear this is the same as the heads' reading of the weighted mean of hidden vectors.
    A view's say depends on no other view, so views can be read one after the other.

    The members share no weight; every parameter has them as its first axis.

    Args:
        dims: input width of each of the V views.
        width: hidden width.
        members: F.
        classes: K of each target.
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
        classes: Sequence[int],
        dropout: float = 0.0,
        view_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dims = tuple(dims)
        self.width = width
        self.members = members
        self.classes = tuple(classes)
        self.dropout = dropout
        self.view_dropout = view_dropout
        self.encoders = nn.ModuleList(_Encoder(members, dim, width) for dim in dims)
        self.heads = _Linear(members, width, sum(classes))

    def initialise(self, generators: Sequence[torch.Generator]) -> None:
        """Draw each member's weights from its own generator, as torch's own layers would."""
        for module in self.modules():
            if isinstance(module, _Linear):
                module.initialise(generators)

    def forward(
        self,
        inputs: Sequence[Tensor],
        present: Tensor,
        generators: Sequence[torch.Generator] | None = None,
    ) -> Output:
        """Logits and attention.

        Args:
            inputs: per view (F, B, d), finite; what stands where a view is absent does not matter.
            present: (F, B, V) bool.
            generators: what each member's dropout draws from; None (inference) drops nothing.
        """
        says = [self.say(view, x, generators) for view, x in enumerate(inputs)]
        if generators is not None:
            present = self._drop_views(present, generators)
        return self.combine(torch.stack(says, dim=-2), present)

    def say(
        self, view: int, x: Tensor, generators: Sequence[torch.Generator] | None = None
    ) -> Tensor:
        """One view's score and logits of all targets, (F, B, 1 + ΣK), from its (F, B, d)."""
        encoder = self.encoders[view]
        assert isinstance(encoder, _Encoder)
        h = encoder(x)
        if generators is not None and self.dropout > 0:
            kept = _uniform(h.shape, generators) >= self.dropout
            h = h * kept / (1 - self.dropout)
        return torch.cat([encoder.score(h), self.heads(h)], dim=-1)

    def combine(self, says: Tensor, present: Tensor) -> Output:
        """What views say (F, B, V, 1 + ΣK) together, where `present` (F, B, V)."""
        attention = _masked_softmax(says[..., 0], present)
        logits = (attention[..., None] * says[..., 1:]).sum(dim=-2)
        return Output(logits.split(self.classes, dim=-1), attention)

    def member(self, index: int) -> AttentionNetwork:
        """One member as a network of its own."""
        alone = AttentionNetwork(self.dims, self.width, 1, self.classes)
        alone.load_state_dict({k: v[index : index + 1] for k, v in self.state_dict().items()})
        return alone

    def _drop_views(self, present: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        kept = present & (_uniform(present.shape, generators) >= self.view_dropout)
        return torch.where(kept.any(dim=-1, keepdim=True), kept, present)


class _Linear(nn.Module):
    """F linear maps side by side: (F, B, d) → (F, B, out)."""

    def __init__(self, members: int, dim: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(members, dim, out))
        self.bias = nn.Parameter(torch.zeros(members, 1, out))

    def initialise(self, generators: Sequence[torch.Generator]) -> None:
        bound = 1 / math.sqrt(max(self.weight.shape[1], 1))
        with torch.no_grad():
            for member, generator in enumerate(generators):
                self.weight[member].uniform_(-bound, bound, generator=generator)
                self.bias[member].uniform_(-bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class _Encoder(nn.Module):
    """Linear → LayerNorm → GELU, and the score of what comes out."""

    def __init__(self, members: int, dim: int, width: int) -> None:
        super().__init__()
        self.linear = _Linear(members, dim, width)
        self.gain = nn.Parameter(torch.ones(members, 1, width))
        self.shift = nn.Parameter(torch.zeros(members, 1, width))
        self.score = _Linear(members, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x)
        return F.gelu(F.layer_norm(h, h.shape[-1:]) * self.gain + self.shift)


def _uniform(shape: torch.Size, generators: Sequence[torch.Generator]) -> Tensor:
    """Uniform numbers (F, ...), each member's from its own generator."""
    drawn = torch.empty(shape)
    for member, generator in enumerate(generators):
        torch.rand(shape[1:], generator=generator, out=drawn[member])
    return drawn


def _masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis where the mask is True, 0 elsewhere; all 0 without any True."""
    floor = torch.finfo(scores.dtype).min
    return scores.masked_fill(~mask, floor).softmax(dim=-1) * mask
