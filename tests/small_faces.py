"""What the face tests make for themselves: DeepFace checkpoints, and videos of two people."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray


def deepface_emotion(path: Path, seed: int = 0) -> Path:
    """DeepFace's `facial_expression_model_weights.pth` with seeded numbers, 6 MB."""
    import torch
    from deepface.models.demography.pytorch.Emotion import EmotionModel

    state = _seeded(EmotionModel, seed)
    state["fc_3.weight"] *= 4  # so that it is as sure of itself as a trained one
    torch.save(state, path)
    return path


def deepface_facenet512(path: Path, seed: int = 0) -> Path:
    """DeepFace's `facenet512_weights.pth` with seeded numbers, 90 MB."""
    import torch
    from deepface.models.facial_recognition.pytorch.Facenet import InceptionResNetV1

    torch.save(_seeded(lambda: InceptionResNetV1(dimension=512), seed), path)
    return path


def _seeded(build: Callable[[], Any], seed: int) -> dict[str, Any]:
    """A network's state with numbers that keep the signal's size from layer to layer.

    Torch's own first numbers let it fade, until all faces look the same and denormal numbers take
    the time of a hundred others.
    """
    import torch

    with torch.device("meta"):
        state: dict[str, Any] = build().state_dict()
    generator = torch.Generator().manual_seed(seed)
    for name, value in state.items():
        if value.ndim > 1:
            fan_in = value[0].numel()
            state[name] = torch.randn(value.shape, generator=generator) * (2 / fan_in) ** 0.5
        else:
            ones = name.endswith(("bn.weight", "running_var"))
            state[name] = torch.full(value.shape, float(ones)).to(value.dtype)
    return state


def frames_of(path: Path, fps: float, start_s: float = 0.0) -> list[NDArray[np.uint8]]:
    """RGB frames of a clip at a steady rate, the last one shown at each moment."""
    shown: list[NDArray[np.uint8]] = []
    last: NDArray[np.uint8] | None = None
    with av.open(str(path)) as container:
        zero = None
        for frame in container.decode(video=0):
            zero = frame.time if zero is None else zero
            while last is not None and start_s + len(shown) / fps < frame.time - zero - 1e-6:
                shown.append(last)
            last = frame.to_ndarray(format="rgb24")
    return shown


def sound_of(path: Path) -> NDArray[np.float32]:
    """A clip's sound, 16 kHz mono."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=16_000)
    with av.open(str(path)) as container:
        pieces = [
            out.to_ndarray()[0]
            for frame in chain(container.decode(audio=0), [None])
            for out in resampler.resample(frame)
        ]
    return np.concatenate(pieces)


def two_faces(
    path: Path,
    left: list[NDArray[np.uint8]],
    right: list[NDArray[np.uint8]],
    sound: NDArray[np.float32] | None,
    fps: int = 24,
    side_px: int = 320,
    scales: tuple[float, float] = (1.0, 1.0),
) -> Path:
    """Two videos side by side as one H.264 file, as long as the shorter one.

    Args:
        path: where, `.mp4`.
        left, right: frames, each fitted into a square of its own.
        sound: 16 kHz mono; None for a file without sound.
        fps: of all.
        side_px: of each square.
        scales: how large each video is in its square, 1 for as large as it fits.
    """
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"crf": "20"})
        video.width, video.height, video.pix_fmt = 2 * side_px, side_px, "yuv420p"
        audio = None
        if sound is not None:
            audio = container.add_stream("aac", rate=16_000, layout="mono")
        count = 0
        for pair in zip(left, right, strict=False):
            halves = [_in_square(rgb, side_px, s) for rgb, s in zip(pair, scales, strict=True)]
            frame = av.VideoFrame.from_ndarray(np.hstack(halves), format="rgb24")
            frame.pts, frame.time_base = count, Fraction(1, fps)
            container.mux(video.encode(frame))
            count += 1
        container.mux(video.encode(None))
        if audio is not None and sound is not None:
            held = sound[: round(count / fps * 16_000)]
            for start in range(0, len(held), 1024):
                piece = av.AudioFrame.from_ndarray(
                    held[None, start : start + 1024], format="fltp", layout="mono"
                )
                piece.sample_rate, piece.pts = 16_000, start
                piece.time_base = Fraction(1, 16_000)
                container.mux(audio.encode(piece))
            container.mux(audio.encode(None))
    return path


def forever(frames: list[NDArray[np.uint8]], count: int) -> list[NDArray[np.uint8]]:
    """Frames played to and fro until there are so many."""
    there_and_back = frames + frames[-2:0:-1]
    return list(islice(cycle(there_and_back), count))


def _in_square(rgb: NDArray[np.uint8], side_px: int, scale: float) -> NDArray[np.uint8]:
    factor = scale * side_px / max(rgb.shape[:2])
    size = (max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    square = np.full((side_px, side_px, 3), 60, np.uint8)
    top, left = (side_px - size[1]) // 2, (side_px - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = small
    return square
