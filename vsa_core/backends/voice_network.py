"""A speech classifier's network taken apart at its head, so that what the head reads comes out too.

wav2vec 2.0, HuBERT and WavLM share their anatomy in transformers: convolutions make a frame each
20 ms of the wave, a transformer hidden states of the frames; the head projects them (those of the
last layer, or a learned sum over all layers), takes the mean over time, and classifies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vsa_core.backends.checkpoints import Checkpoint, Network
from vsa_core.media import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]

# Sound that goes through the network at once, padding included, s; a single wave may be longer. On
# a CPU waves go one at a time: together they take as long, and longer the more padding there is.
_AT_ONCE_S = {"cpu": 0.0, "cuda": 120.0}


class VoiceNetwork(Network):
    """A classifier's network, loaded, shared and freed as any `Network` is.

    Args:
        checkpoint: of a wav2vec 2.0, HuBERT or WavLM classifier.
        device, precision: as `precision_of` takes them.
    """

    def __init__(self, checkpoint: Checkpoint, device: str, precision: str) -> None:
        super().__init__(checkpoint, "AutoModelForAudioClassification", device, precision)
        config = checkpoint.config
        # With a group norm the first convolution takes the mean over all time: padding would be
        # heard. Those networks were trained without a mask, and hear equal lengths only.
        self._masked = config.get("feat_extract_norm", "group") == "layer"
        self._weighted = bool(config.get("use_weighted_layer_sum", False))

    def hear(self, waves: Sequence[Floats]) -> tuple[Floats, Floats]:
        """Class probabilities (W, K) and what the head reads (W, D), each wave on its own.

        Args:
            waves: W times (n,) float32 at 16 kHz, as the checkpoint's front end gives them.

        Raises:
            BackendError: at the first use, as `Network.run`.
        """
        lengths = [len(wave) for wave in waves]
        found = [
            (rows, *self._heard([waves[row] for row in rows])) for rows in self._batches(lengths)
        ]
        order = np.argsort([row for rows, _, _ in found for row in rows])
        probs, read = (np.concatenate([one[part] for one in found])[order] for part in (1, 2))
        return probs, read

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Rows, shortest first, in batches of at most `_AT_ONCE_S` with their padding."""
        most = _AT_ONCE_S[self.device] * SAMPLE_RATE_HZ
        batch: list[int] = []
        for row in sorted(range(len(lengths)), key=lengths.__getitem__):
            mixed = not self._masked and batch and lengths[batch[0]] != lengths[row]
            if batch and (mixed or (len(batch) + 1) * lengths[row] > most):
                yield batch
                batch = []
            batch.append(row)
        yield batch

    def _heard(self, waves: Sequence[Floats]) -> tuple[Floats, Floats]:
        import torch

        model: Any = self.module()
        lengths = torch.tensor([len(wave) for wave in waves], device=self.device)
        x = torch.zeros(len(waves), int(lengths.max()))
        for row, wave in enumerate(waves):
            x[row, : len(wave)] = torch.from_numpy(wave)
        mask = None
        if int(lengths.min()) < x.shape[1]:
            mask = (torch.arange(x.shape[1], device=self.device) < lengths[:, None]).long()
        with torch.inference_mode():
            states = model.base_model(
                x.to(self.device, model.dtype),
                attention_mask=mask,
                output_hidden_states=self._weighted,
            )
            if self._weighted:
                shares = model.layer_weights.softmax(dim=0)
                hidden = sum(
                    w * h.float() for w, h in zip(shares, states.hidden_states, strict=True)
                )
            else:
                hidden = states.last_hidden_state.float()  # (W, T, D)
            frames = _frames(lengths, model.config)[:, None]
            kept = torch.arange(hidden.shape[1], device=self.device) < frames  # (W, T)
            read = (hidden * kept[..., None]).sum(dim=1) / frames
            # The projector is linear: that of the mean is the mean of the projected frames.
            logits = model.classifier(model.projector(read.to(model.dtype)))
            probs = logits.float().softmax(dim=-1)
        return probs.cpu().numpy(), read.cpu().numpy()


def _frames(samples: torch.Tensor, config: Any) -> torch.Tensor:
    """How many frames the convolutions make of so many samples."""
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        samples = (samples - kernel) // stride + 1
    return samples
