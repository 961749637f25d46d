"""The multimodal network: encoders, a fusion that knows what is missing, and two heads

Source: the MELD tutorial's late fusion (three 128-d vectors joined, 384 → 256, two heads);
cross-modal attention follows Tsai et al. 2019, Multimodal Transformer for Unaligned Multimodal
Language Sequences; loss weights learned from uncertainty follow Kendall, Gal and Cipolla 2018.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vsa_core.labels import SENTIMENT_GIVEN_EMOTION, Emotion
from vsa_core.supervised.batch import Batch
from vsa_core.supervised.encoders import Encoded, masked_mean
from vsa_core.supervised.recipe import Fusion, Loss, Recipe
from vsa_core.supervised.utterances import TARGETS

_INPUTS = {
    "text": ("text_tokens", "text_mask", "text_own"),
    "video": ("video_frames", "video_mask"),
}
_MOST_PLACES = 1024  # learned positions of a joined sequence, by modality


class MultimodalNet(nn.Module):
    """Utterances to logits.

    Args:
        recipe: what it is.
        encoders: by modality, as `make_encoders` gives them.

    Attributes:
        modalities: names, in the order of all that is by modality.
        every_row: encode also rows that lack a modality, instead of leaving them out, so that the
            same operations run whatever is there; what they come to is hidden all the same.
    """

    def __init__(self, recipe: Recipe, encoders: nn.ModuleDict) -> None:
        super().__init__()
        self.modalities = recipe.encoders.modalities
        self.every_row = False
        self.encoders = encoders
        width = recipe.encoders.width
        self.missing = nn.ParameterDict(
            {name: nn.Parameter(0.02 * torch.randn(width)) for name in self.modalities}
        )
        self.fusion = _fusion(recipe.fusion, len(self.modalities), width)
        self.drop = nn.Dropout(recipe.fusion.dropout)
        self.heads = nn.ModuleDict(
            {t: nn.Linear(recipe.fusion.width, len(TARGETS[t])) for t in recipe.targets}
        )
        self._hidden_share = recipe.fusion.modality_dropout
        self._width = width

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Logits (B, K) by target."""
        joined = self.drop(self.embed(batch))
        return {name: head(joined) for name, head in self.heads.items()}

    def embed(self, batch: Batch) -> Tensor:
        """(B, fusion width): what the heads see of each utterance."""
        present = self._seen(torch.stack([batch.present[n] for n in self.modalities], dim=1))
        encoded = [self._encoded(n, batch, present[:, at]) for at, n in enumerate(self.modalities)]
        return self.fusion(encoded, present)

    def _seen(self, present: Tensor) -> Tensor:
        """(B, M) bool; in training some of what is there is hidden, but never all of a row."""
        if not self.training or self._hidden_share == 0 or len(self.modalities) == 1:
            return present
        hidden = torch.rand(present.shape, device=present.device) < self._hidden_share
        left = present & ~hidden
        return torch.where(left.any(dim=1, keepdim=True), left, present)

    def _encoded(self, name: str, batch: Batch, there: Tensor) -> Encoded:
        """What an encoder makes of the rows that have its modality; what stands for the others."""
        inputs = [batch.inputs[key] for key in _inputs_of(name, batch.inputs)]
        if self.every_row or bool(there.all()):
            found = self.encoders[name](*inputs)
            sequence, mask, summary = found.sequence, found.mask, found.summary
        else:
            rows = there.nonzero().squeeze(1)
            count = len(there)
            if not len(rows):
                sequence = self.missing[name].new_zeros(count, 1, self._width)
                mask = there.new_zeros(count, 1)
                summary = sequence[:, 0]
            else:
                found = self.encoders[name](*(x.index_select(0, rows) for x in inputs))
                sequence, mask, summary = (
                    x.new_zeros(count, *x.shape[1:]).index_copy(0, rows, x)
                    for x in (found.sequence, found.mask, found.summary)
                )
        summary = torch.where(there.unsqueeze(1), summary, self.missing[name].to(summary.dtype))
        return Encoded(sequence, mask & there.unsqueeze(1), summary)


class MultitaskLoss(nn.Module):
    """Cross-entropies of both heads, weighted, and how far they contradict one another.

    Args:
        settings: of the recipe.
        class_weights: by target (K,), mean 1 over the training rows.
    """

    _implied: Tensor
    _one_sided: Tensor

    def __init__(self, settings: Loss, class_weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.settings = settings
        self.targets = tuple(class_weights)
        for target, weights in class_weights.items():
            self.register_buffer(f"_{target}", weights)
        self.log_variance = nn.ParameterDict(
            {t: nn.Parameter(torch.zeros(())) for t in self.targets}
            if settings.learned_weights
            else {}
        )
        implied = torch.tensor(SENTIMENT_GIVEN_EMOTION.tolist())
        emotions = list(Emotion)
        self.register_buffer("_implied", implied)
        one_sided = torch.ones(len(emotions))
        one_sided[emotions.index(Emotion.SURPRISE)] = 0
        self.register_buffer("_one_sided", one_sided)

    def forward(self, logits: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The loss of B utterances, a scalar; rows without a label of a target count 0 in it."""
        total = next(iter(logits.values())).new_zeros((), dtype=torch.float32)
        for target in self.targets:
            part = self._cross_entropy(target, logits[target].float(), batch)
            weight: float = getattr(self.settings, target)
            if target in self.log_variance:
                uncertain = self.log_variance[target]
                total = total + weight * (part * (-uncertain).exp() + uncertain / 2)
            else:
                total = total + weight * part
        if self.settings.consistency > 0 and len(self.targets) == 2:
            total = total + self.settings.consistency * self.contradiction(logits)
        return total

    def contradiction(self, logits: Mapping[str, Tensor]) -> Tensor:
        """Mean squared distance of the sentiment from what the emotions but surprise imply.

        What surprise holds is left out of both sides: it goes with any sentiment.
        """
        emotion = logits["emotion"].float().softmax(dim=1)
        sentiment = logits["sentiment"].float().softmax(dim=1)
        told = emotion * self._one_sided
        share = told.sum(dim=1, keepdim=True)
        implied = told @ self._implied
        return ((implied - share * sentiment) ** 2).sum(dim=1).mean()

    def _cross_entropy(self, target: str, logits: Tensor, batch: Batch) -> Tensor:
        labels = batch.labels[target]
        known = labels >= 0
        each = F.cross_entropy(
            logits,
            labels.clamp(min=0),
            weight=getattr(self, f"_{target}"),
            label_smoothing=self.settings.label_smoothing,
            reduction="none",
        )
        weight = batch.weight * known
        return (each * weight).sum() / weight.sum().clamp(min=1e-6)


# --- fusions ------------------------------------------------------------------------------


class _Late(nn.Module):
    """Summaries side by side, then one layer."""

    def __init__(self, settings: Fusion, modalities: int, width: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            nn.LayerNorm(modalities * width),
            nn.Dropout(settings.dropout),
            nn.Linear(modalities * width, settings.width),
            nn.GELU(),
        )

    def forward(self, encoded: list[Encoded], present: Tensor) -> Tensor:  # noqa: ARG002
        return self.layer(torch.cat([one.summary for one in encoded], dim=1))


class _Early(nn.Module):
    """All sequences in one, with a place of its own that comes to stand for the whole."""

    def __init__(self, settings: Fusion, modalities: int, width: int) -> None:
        super().__init__()
        self.whole = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.kinds = nn.Parameter(0.02 * torch.randn(modalities, width))
        self.places = nn.Parameter(0.02 * torch.randn(_MOST_PLACES, width))
        layer = nn.TransformerEncoderLayer(
            width,
            settings.heads,
            4 * width,
            settings.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, settings.layers, enable_nested_tensor=False)
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, settings.width), nn.GELU())

    def forward(self, encoded: list[Encoded], present: Tensor) -> Tensor:
        count = present.shape[0]  # `len` would fix it when exported
        parts = [self.whole.expand(count, 1, -1)]
        masks = [present.new_ones(count, 1)]
        for at, one in enumerate(encoded):
            # The summary too: of a missing modality it says that it is missing.
            states = torch.cat([one.summary.unsqueeze(1), one.sequence], dim=1)[:, :_MOST_PLACES]
            parts.append(states + self.kinds[at] + self.places[: states.shape[1]])
            masks.append(torch.cat([present.new_ones(count, 1), one.mask], 1)[:, :_MOST_PLACES])
        states = self.layers(torch.cat(parts, 1), src_key_padding_mask=~torch.cat(masks, 1))
        return self.out(states[:, 0])


class _CrossBlock(nn.Module):
    """One modality asks the others."""

    def __init__(self, settings: Fusion, width: int) -> None:
        super().__init__()
        self.norm_asking = nn.LayerNorm(width)
        self.norm_asked = nn.LayerNorm(width)
        self.heads, self.dropout = settings.heads, settings.dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.joined = nn.Linear(width, width)
        self.dense = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Dropout(settings.dropout),
            nn.Linear(4 * width, width),
        )

    def forward(self, asking: Tensor, asked: Tensor, mask: Tensor) -> Tensor:
        """(B, L, width), (B, L', width), (B, L') bool with a True in each row → (B, L, width)."""
        # Not torch's MultiheadAttention, which fixes the number of rows when it is exported.
        key, value = self.key_value(self.norm_asked(asked)).chunk(2, dim=2)
        query, key, value = (
            x.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for x in (self.query(self.norm_asking(asking)), key, value)
        )
        found = F.scaled_dot_product_attention(
            query, key, value, mask[:, None, None], self.dropout if self.training else 0.0
        )
        found = self.joined(found.transpose(1, 2).flatten(2))
        asking = asking + found
        return asking + self.dense(asking)


class _Attention(nn.Module):
    """Each modality's sequence asks the others'; what they come to is joined."""

    def __init__(self, settings: Fusion, modalities: int, width: int) -> None:
        super().__init__()
        self.places = nn.Parameter(0.02 * torch.randn(_MOST_PLACES, width))
        self.kinds = nn.Parameter(0.02 * torch.randn(modalities, width))
        self.blocks = nn.ModuleList(
            nn.ModuleList(_CrossBlock(settings, width) for _ in range(settings.layers))
            for _ in range(modalities)
        )
        self.out = nn.Sequential(
            nn.LayerNorm(modalities * width),
            nn.Dropout(settings.dropout),
            nn.Linear(modalities * width, settings.width),
            nn.GELU(),
        )

    def forward(self, encoded: list[Encoded], present: Tensor) -> Tensor:
        states, masks = [], []
        always = present.new_ones(present.shape[0], 1)
        for at, one in enumerate(encoded):
            held = torch.cat([one.summary.unsqueeze(1), one.sequence], dim=1)[:, :_MOST_PLACES]
            states.append(held + self.kinds[at] + self.places[: held.shape[1]])
            masks.append(torch.cat([always, one.mask], dim=1)[:, :_MOST_PLACES])
        come_to = []
        for at, blocks in enumerate(self.blocks):
            # Alone, a modality asks itself.
            others = [n for n in range(len(states)) if n != at] or [at]
            asked = torch.cat([states[n] for n in others], dim=1)
            mask = torch.cat([masks[n] for n in others], dim=1)
            asking = states[at]
            for block in blocks:  # type: ignore[attr-defined]
                asking = block(asking, asked, mask)
            come_to.append(masked_mean(asking, masks[at]))
        return self.out(torch.cat(come_to, dim=1))


class _Hybrid(nn.Module):
    """Late fusion and attention side by side, weighed for each utterance."""

    def __init__(self, settings: Fusion, modalities: int, width: int) -> None:
        super().__init__()
        self.late = _Late(settings, modalities, width)
        self.attention = _Attention(settings, modalities, width)
        self.gate = nn.Linear(2 * settings.width, settings.width)

    def forward(self, encoded: list[Encoded], present: Tensor) -> Tensor:
        late, attended = self.late(encoded, present), self.attention(encoded, present)
        gate = self.gate(torch.cat([late, attended], dim=1)).sigmoid()
        return gate * late + (1 - gate) * attended


def _fusion(settings: Fusion, modalities: int, width: int) -> nn.Module:
    kinds = {"late": _Late, "early": _Early, "attention": _Attention, "hybrid": _Hybrid}
    return kinds[settings.kind](settings, modalities, width)


def _inputs_of(name: str, inputs: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of an encoder's tensors, in the order it takes them."""
    if name == "audio":
        return ("audio_mel" if "audio_mel" in inputs else "audio_wave", "audio_mask")
    return _INPUTS[name]
