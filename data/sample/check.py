"""Does the made channel hold what it claims: are its faces found, and read as they were meant?"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vsa_core.backends.face_detect import Haar
from vsa_core.backends.face_mini_xception import face_crops
from vsa_core.backends.mini_xception import load_network
from vsa_core.labels import SENTIMENTS, sentiment_from_emotion
from vsa_core.media import frames

FRAMES_PER_S = 2
CASCADE = "haarcascade_frontalface_default.xml"


@dataclass(frozen=True, slots=True)
class Reading:
    """What was seen in one clip's sampled frames.

    Attributes:
        expected: frames inside a line whose speaker's face is in view.
        found: those in which the cascade found a face.
        right: those in which the network's likeliest sentiment is the one the face shows.
        false_alarms: frames inside a line without a face in which the cascade found one.
    """

    clip: str
    expected: int
    found: int
    right: int
    false_alarms: int


def truth(folder: Path) -> dict[str, list[dict[str, str]]]:
    """The rows of truth.csv by clip."""
    by_clip: dict[str, list[dict[str, str]]] = {}
    with (folder / "truth.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            by_clip.setdefault(row["video"], []).append(row)
    return by_clip


def read_clip(path: Path, rows: Sequence[dict[str, str]]) -> Reading:
    """Look for the main face (the largest) in a clip, two frames a second, and read it as the
    face backend does, in a square a little larger than the cascade's."""
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + CASCADE)
    crops, shown, expected, false_alarms = [], [], 0, 0
    for frame in frames(path, FRAMES_PER_S):
        row = next(
            (r for r in rows if int(r["start_ms"]) <= frame.time_ms <= int(r["end_ms"])), None
        )
        if row is None:
            continue
        box = _main_box(frame.rgb, cascade)
        if not row["face_sentiment"]:
            false_alarms += box is not None
            continue
        expected += 1
        if box is not None:
            crops.append(face_crops(frame.rgb, box[None], Haar.crop_scale)[0])
            shown.append(row["face_sentiment"])
    right = 0
    if crops:
        network, _ = load_network()
        probs, _ = network.classify(np.stack(crops))
        likeliest = sentiment_from_emotion(probs).argmax(1)
        right = sum(SENTIMENTS[i] == s for i, s in zip(likeliest, shown, strict=True))
    return Reading(path.stem, expected, len(crops), right, false_alarms)


def _main_box(rgb: NDArray[np.uint8], cascade: cv2.CascadeClassifier) -> NDArray[np.int32] | None:
    """The largest face, (4,) x, y, width, height in px; None where the cascade finds none."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    smallest = round(0.15 * grey.shape[0])
    boxes = cascade.detectMultiScale(grey, 1.1, 5, minSize=(smallest, smallest))
    return np.asarray(max(boxes, key=lambda box: box[2] * box[3])) if len(boxes) else None


def table(readings: Sequence[Reading]) -> str:
    """The readings and their total as lines of text."""
    total = Reading("all clips", *(
        sum(getattr(r, name) for r in readings)
        for name in ("expected", "found", "right", "false_alarms")
    ))  # fmt: skip
    lines = [f"{'clip':<24}{'frames':>8}{'found':>8}{'as meant':>10}{'false alarms':>14}"]
    for r in (*readings, total):
        found = f"{r.found / r.expected:.0%}" if r.expected else "-"
        right = f"{r.right / r.found:.0%}" if r.found else "-"
        lines.append(f"{r.clip:<24}{r.expected:>8}{found:>8}{right:>10}{r.false_alarms:>14}")
    return "\n".join(lines)
