"""The sound of one segment, where somebody speaks in it: what every audio backend reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from vsa_core import voice
from vsa_core.backends import Clip
from vsa_core.errors import MediaError
from vsa_core.media import SAMPLE_RATE_HZ

MIN_SAMPLES = SAMPLE_RATE_HZ // 10
# Loudest 25 ms below this is no voice: 16-bit dither and idle converters stay under it.
SILENCE_DBFS = -65.0
# What loudness is measured on, in samples: 25 ms, each 10 ms.
FRAME, HOP = 400, 160


@dataclass(frozen=True, slots=True)
class Voice:
    """What is heard in one segment.

    Attributes:
        samples: (n,) float32 mono at 16 kHz, n at least `MIN_SAMPLES`.
        speech: (ceil(n / 512),) float32, how likely each 32 ms is speech.
    """

    samples: NDArray[np.float32]
    speech: NDArray[np.float32]


def listen(clip: Clip) -> Voice | None:
    """The segment's sound.

    None when the video has no sound, less than 0.1 s of it lies in the segment, all of it is
    quieter than `SILENCE_DBFS`, or no 32 ms of it are more likely speech than not.

    Raises:
        MediaError: the file cannot be opened any more, or its sound holds NaN or infinity.
        BackendError: the voice activity weights are missing or altered.
    """
    if clip.media is None or not clip.media.has_audio:
        return None
    samples = clip.media.audio_between(clip.start_ms, clip.end_ms)
    if len(samples) < MIN_SAMPLES:
        return None
    loudest = float(frame_power(samples).max())
    if not np.isfinite(loudest):
        raise MediaError(
            f"{str(clip.media.path)!r} has sound that is no number between {clip.start_ms} "
            f"and {clip.end_ms} ms: export it again with integer samples"
        )
    if loudest < 10 ** (SILENCE_DBFS / 10):
        return None
    speech = voice.speech_probability(samples)
    return Voice(samples, speech) if speech.max() >= voice.OPEN_AT else None


def frame_power(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) samples → (T,) mean square of each frame."""
    frames = sliding_window_view(samples, FRAME)[::HOP]
    return np.einsum("ij,ij->i", frames, frames) / np.float32(FRAME)
