"""A batch of utterances as tensors, with a mask for everything that may be missing"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """B utterances, padded.

    A modality that no recipe asks for is not in `inputs`; one that an utterance lacks has
    `present` False and a mask that is False throughout, but for its first token.

    Attributes:
        inputs: by name of a tensor, those of an encoder beginning with its modality:
            `text_tokens` (B, L) int64 ids, `text_mask` (B, L) bool, `text_own` (B, L) bool: which
            tokens are the utterance's own;
            `video_frames` (B, T, 3, H, W) float32 RGB in [0, 1], `video_mask` (B, T) bool;
            `audio_mel` (B, M, F) float32 standardised log-mel frames, 10 ms each, or `audio_wave`
            (B, N) float32 at 16 kHz, mean 0 and variance 1, with `audio_mask` (B, M or N) bool.
        present: by modality (B,) bool.
        labels: by target (B,) int64; -1 where it is not known.
        weight: (B,) float32 of each utterance's loss.
        rows: (B,) int64 numbers in the data set.
    """

    inputs: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    labels: Mapping[str, Tensor]
    weight: Tensor
    rows: Tensor

    def to(self, device: str) -> Batch:
        """The same on a device."""
        return replace(
            self,
            inputs={name: x.to(device, non_blocking=True) for name, x in self.inputs.items()},
            present={name: x.to(device) for name, x in self.present.items()},
            labels={name: x.to(device) for name, x in self.labels.items()},
            weight=self.weight.to(device),
        )

    def __len__(self) -> int:
        return len(self.rows)
