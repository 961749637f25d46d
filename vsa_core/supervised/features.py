"""Frames and sound of utterances, decoded once and kept, so that epochs decode nothing"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsa_core.errors import MediaError, StoreError
from vsa_core.media import SAMPLE_RATE_HZ, Media, probe
from vsa_core.progress import Steps
from vsa_core.supervised.recipe import Audio, Video
from vsa_core.supervised.utterances import Utterance
from vsa_core.whole_files import put_whole

# What torchvision's weights of R3D-18 were trained on, whatever the aspect of the video.
HEIGHT_PX, WIDTH_PX = 128, 171
# Of each frame that a model reads two are kept, so that training can move in time.
DENSITY = 2
_QUALITY = 95
_LAYOUT = 2  # raised when the same media would give other features
# Decoders scale to this first, which is quicker than a resize of the whole picture.
_DECODED_SIDE_PX = 2 * WIDTH_PX
_SHORTEST = SAMPLE_RATE_HZ // 40  # 25 ms: one window of a spectrogram
_LOUDEST = 32_767


@dataclass(frozen=True, slots=True)
class Features:
    """What is seen and heard of one utterance.

    Attributes:
        frames: JPEGs of RGB pictures of 128 × 171 px, at regular intervals over the whole of it;
            None where there is no picture, or none is wanted.
        sound: (samples,) int16 mono at 16 kHz, the middle of a long one; None where there is none,
            or none is wanted.
        note: why a wanted one is None; None where nothing is missing.
    """

    frames: tuple[bytes, ...] | None = None
    sound: NDArray[np.int16] | None = None
    note: str | None = None


class FeatureCache:
    """Features of utterances in a folder, one safetensors file each.

    A file says how large and how new the media file was that it was made from: it is made anew
    once that has changed, and still serves when the media file is gone. A file that is damaged is
    made anew. Several processes may fill one folder.

    Args:
        folder: made when the first file is written.
        video: of the recipe; None wants no frames.
        audio: of the recipe; None wants no sound.
    """

    def __init__(self, folder: Path, video: Video | None, audio: Audio | None) -> None:
        self.folder = folder
        self._frames = DENSITY * video.frames if video else None
        self._max_s = audio.max_s if audio else None

    def get(self, utterance: Utterance) -> Features:
        """The features of an utterance, from the folder where they are there.

        Media that is missing or broken is no error: what it lacks is None, and `note` says why.

        Raises:
            StoreError: they cannot be written.
        """
        if utterance.media is None:
            return Features(note="it has no clip")
        path = self._path(utterance)
        stamp = _stamp(utterance.media)
        kept = _read(path, stamp)
        if kept is not None:
            return kept
        if stamp is None:
            return Features(note=f"{utterance.media} cannot be read")
        try:
            made = self._made(utterance, probe(utterance.media))
        except MediaError as error:  # not kept: permissions can change, and it is quick to tell
            return Features(note=str(error))
        _write(path, made, stamp)
        return made

    def fill(self, utterances: Sequence[Utterance], workers: int, steps: Steps) -> dict[str, str]:
        """Make what is not there yet.

        Args:
            utterances: whose.
            workers: threads that decode.
            steps: reaches 1 at the end.

        Returns:
            By id what is missing of an utterance, and why; those that lack nothing are left out.

        Raises:
            StoreError: they cannot be written.
        """
        with ThreadPoolExecutor(max(1, workers)) as pool:
            jobs = {pool.submit(self._noted, utterance): utterance.id for utterance in utterances}
            notes: dict[str, str | None] = {}
            try:
                for done, job in enumerate(as_completed(jobs), 1):
                    notes[jobs[job]] = job.result()
                    steps.reach(done / len(jobs))
            finally:
                pool.shutdown(cancel_futures=True)
        steps.reach(1.0)
        return {u.id: note for u in utterances if (note := notes[u.id]) is not None}

    def _noted(self, utterance: Utterance) -> str | None:
        return self.get(utterance).note  # the rest is let go of

    def _path(self, utterance: Utterance) -> Path:
        assert utterance.media is not None
        spec = [_LAYOUT, self._frames, HEIGHT_PX, WIDTH_PX, _QUALITY, self._max_s]
        named = json.dumps([utterance.start_ms, utterance.end_ms, *spec])
        return features_of(self.folder, utterance.media) / f"{_digest(named)}.safetensors"

    def _made(self, utterance: Utterance, media: Media) -> Features:
        start, end = utterance.start_ms, utterance.end_ms
        if end <= start:
            end = max(media.duration_ms, start + 1)
        frames = sound = None
        notes = []
        if self._frames is not None:
            frames = _frames(media, start, end, self._frames)
            notes += [] if frames else ["no picture decodes in it"]
        if self._max_s is not None:
            sound = _sound(media, start, end, self._max_s)
            notes += [] if sound is not None else ["no sound decodes in it"]
        return Features(frames, sound, "; ".join(notes) or None)


def features_of(folder: Path, media: Path) -> Path:
    """Where in a folder of features those of a media file lie, of all its utterances."""
    return folder / _digest(os.path.abspath(media))  # noqa: PTH100 - links as named


def decoded(jpeg: bytes) -> NDArray[np.uint8]:
    """(128, 171, 3) RGB of one of the frames.

    Raises:
        ValueError: it is no picture of that size.
    """
    import cv2

    found = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if found is None or found.shape != (HEIGHT_PX, WIDTH_PX, 3):
        raise ValueError("a frame is no picture of 128 × 171 px")
    return np.asarray(found[..., ::-1], np.uint8)


def _frames(media: Media, start_ms: int, end_ms: int, count: int) -> tuple[bytes, ...] | None:
    """JPEGs at the middles of `count` equal parts of a span: each time the frame nearest to it."""
    step_ms = (end_ms - start_ms) / count
    times = start_ms + step_ms * (np.arange(count) + 0.5)
    found: list[bytes | None] = [None] * count
    nearest = np.full(count, np.inf)
    try:
        # Twice as many as are taken, so that the nearest one is near.
        for frame in media.frames(
            min(60.0, 2000 / step_ms), _DECODED_SIDE_PX, start_ms=start_ms, end_ms=end_ms
        ):
            away = np.abs(times - frame.time_ms)
            closer = away < nearest
            if closer.any():
                jpeg = _jpeg(frame.rgb)
                nearest[closer] = away[closer]
                for at in np.flatnonzero(closer):
                    found[at] = jpeg
    except MediaError:
        return None
    jpegs = tuple(jpeg for jpeg in found if jpeg is not None)
    return jpegs or None


def _jpeg(rgb: NDArray[np.uint8]) -> bytes:
    import cv2

    small = cv2.resize(rgb, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_LINEAR)
    done, coded = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise MediaError("a frame cannot be coded as JPEG")
    return coded.tobytes()


def _sound(media: Media, start_ms: int, end_ms: int, max_s: float) -> NDArray[np.int16] | None:
    """The middle of a span's sound; None where less than 25 ms of it decode."""
    cut_ms = max(0, end_ms - start_ms - round(1000 * max_s)) // 2
    try:
        heard = media.audio_between(start_ms + cut_ms, end_ms - cut_ms)
    except MediaError:
        return None
    if len(heard) < _SHORTEST:
        return None
    samples = np.nan_to_num(heard[: round(max_s * SAMPLE_RATE_HZ)]).clip(-1, 1) * _LOUDEST
    return samples.round().astype(np.int16)


# --- the files ----------------------------------------------------------------------------


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _stamp(media: Path) -> str | None:
    """Size and time of change; None where it is not there."""
    try:
        facts = media.stat()
    except OSError:
        return None
    return f"{facts.st_size}-{facts.st_mtime_ns}"


def _read(path: Path, stamp: str | None) -> Features | None:
    """What a file holds; None where it is not there, damaged, or made from other media."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            noted = file.metadata() or {}
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError):
        return None
    if stamp is not None and noted.get("stamp") != stamp:
        return None
    if noted.get("crc32") != _checksum(held):
        return None
    frames = None
    if "jpegs" in held:
        ends = held["ends"].tolist()
        whole = held["jpegs"].tobytes()
        frames = tuple(whole[a:b] for a, b in zip([0, *ends], ends, strict=False))
    return Features(frames, held.get("sound"), noted.get("note"))


def _write(path: Path, features: Features, stamp: str) -> None:
    """Put a file in place, whole or not at all."""
    from safetensors.numpy import save

    held: dict[str, Any] = {}
    if features.frames is not None:
        held["jpegs"] = np.frombuffer(b"".join(features.frames), np.uint8)
        held["ends"] = np.cumsum([len(jpeg) for jpeg in features.frames], dtype=np.int64)
    if features.sound is not None:
        held["sound"] = features.sound
    noted = {"stamp": stamp, "crc32": _checksum(held)}
    if features.note is not None:
        noted["note"] = features.note
    contents = save(held, metadata=noted)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        put_whole(path, contents)
    except OSError as error:
        raise StoreError(
            f"{path.parent} cannot be written: {error.strerror or error}: make room, or give "
            "another folder for features"
        ) from error


def _checksum(held: dict[str, Any]) -> str:
    crc = 0
    for name in sorted(held):
        crc = zlib.crc32(held[name].tobytes(), crc)
    return f"{crc:08x}"
