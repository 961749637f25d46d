"""Frames and 16 kHz mono audio of a video file, streamed with PyAV; a video is never held whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsa_core.errors import MediaError

SAMPLE_RATE_HZ = 16_000
# Frames beyond this are a decompression bomb, not a video of somebody talking (8K is 33 MP).
MAX_FRAME_PX = 64_000_000


@dataclass(frozen=True, slots=True)
class Frame:
    """One upright video frame.

    Attributes:
        time_ms: presentation time from the start of the video.
        rgb: (height, width, 3) uint8, rotated as the container says; scaled so that the longer
            side is at most what was asked for.
        full_px: width and height before that scaling, upright.
    """

    time_ms: int
    rgb: NDArray[np.uint8]
    full_px: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Media:
    """What `probe` found out about a file, and the way to its frames and sound.

    Attributes:
        path: the file.
        duration_ms: the longest stream's length.
        width, height: upright size in px; None without video.
        fps: average frame rate; None without video.
        has_video, has_audio: a decodable stream with at least one frame.
    """

    path: Path
    duration_ms: int
    width: int | None
    height: int | None
    fps: float | None
    has_video: bool
    has_audio: bool

    def frames(self, per_s: float, max_side_px: int | None = None) -> Iterator[Frame]:
        """`frames` of this file; empty without video."""
        return frames(self.path, per_s, max_side_px) if self.has_video else iter(())

    def audio(self, block_s: float = 10.0) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """`audio` of this file; empty without audio."""
        return audio(self.path, block_s) if self.has_audio else iter(())

    def audio_between(self, start_ms: int, end_ms: int) -> NDArray[np.float32]:
        """`audio_between` of this file; empty without audio."""
        if not self.has_audio:
            return np.zeros(0, np.float32)
        return audio_between(self.path, start_ms, end_ms)
