"""Backends without a model, for tests of what stands around models.

What they say follows from a hash of the segment, so that any two of them are the same everywhere
and no two segments alike. Each takes the texts on which it shall be absent, abstain or break.
`conftest.py` makes them known to tests, and `in_children` to the processes that tests start.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vsa_core.backends import BACKENDS, Clip, Faces, People, Prediction
from vsa_core.labels import EMOTIONS, Modality, sentiment_from_emotion
from vsa_core.media import Media

_WATCHED_EVERY_MS = 500


@dataclass(frozen=True, slots=True)
class FakeSample:
    """What a prediction is derived from, and the segment's text."""

    key: str
    text: str


class Fake:
    """A backend whose every answer is a hash; `predict` raises ValueError on a `broken` text."""

    def __init__(
        self,
        modality: Modality,
        *,
        seed: int = 0,
        dim: int = 8,
        batch_size: int = 4,
        votes: bool = True,
        absent: Collection[str] = (),
        abstain: Collection[str] = (),
        broken: Collection[str] = (),
    ) -> None:
        self.modality = modality
        self.dim = dim
        self.batch_size = batch_size
        self._seed, self._votes = seed, votes
        self._absent, self._abstain, self._broken = set(absent), set(abstain), set(broken)
        told = [sorted(texts) for texts in (absent, abstain, broken)]
        made_of = repr((modality.value, seed, dim, votes, told))
        self.id = f"fake-{modality}@{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"

    def read(self, clip: Clip) -> FakeSample | None:
        """The segment's key; None where a real backend would find nothing of its modality."""
        if clip.text in self._absent or not self._is_there(clip):
            return None
        key = clip.text if self.modality is Modality.TEXT else clip.segment_id
        return FakeSample(key, clip.text)

    def predict(self, samples: Sequence[FakeSample]) -> Prediction:
        """Predictions for B samples; the embedding alone where it never votes."""
        for sample in samples:
            if sample.text in self._broken:
                raise ValueError(f"told to break on {sample.text!r}")
        keys = [sample.key for sample in samples]
        embedding = np.stack([self._noise(key).standard_normal(self.dim) for key in keys])
        if not self._votes:
            return Prediction(None, None, embedding.astype(np.float32))
        emotion_probs = self._emotion_probs(keys)
        sentiment_probs = sentiment_from_emotion(emotion_probs)
        abstaining = [sample.text in self._abstain for sample in samples]
        emotion_probs[abstaining] = np.nan
        sentiment_probs[abstaining] = np.nan
        return Prediction(sentiment_probs, emotion_probs, embedding.astype(np.float32))

    def _is_there(self, clip: Clip) -> bool:
        if self.modality is Modality.TEXT:
            return bool(clip.text.strip())
        if self.modality is Modality.AUDIO:
            return clip.media is not None and clip.media.has_audio
        times = clip.faces.time_ms if clip.faces is not None else np.zeros(0, np.int64)
        return bool(np.any((times >= clip.start_ms) & (times < clip.end_ms)))

    def _emotion_probs(self, keys: Sequence[str]) -> NDArray[np.float32]:
        scores = np.stack([3 * self._noise(key).standard_normal(len(EMOTIONS)) for key in keys])
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)

    def _noise(self, key: str) -> np.random.Generator:
        made_of = f"{self._seed}\n{self.modality}\n{key}".encode()
        return np.random.default_rng(int.from_bytes(hashlib.sha256(made_of).digest()[:8], "big"))


class FakeFace(Fake):
    """Sees one face in the middle of every picture that is not black."""

    def watch(self, media: Media) -> Faces:
        """A face each half second, whatever the video shows; n = 0 without video."""
        times = range(0, media.duration_ms, _WATCHED_EVERY_MS) if media.has_video else ()
        size = (media.width or 1, media.height or 1)
        return self._faces([f"{media.path.name} {time}" for time in times], list(times), size)

    def look(self, rgb: NDArray[np.uint8]) -> Faces:
        """One face, or none where the picture is black."""
        keys = [hashlib.sha256(rgb.tobytes()).hexdigest()] if rgb.any() else []
        return self._faces(keys, [0] * len(keys), (rgb.shape[1], rgb.shape[0]))

    def people(self, clip: Clip) -> People:
        """The one face there is, or nobody."""
        seen = self._is_there(clip)
        return People(count=int(seen), track=0 if seen else None, speaks=False)

    def _faces(self, keys: list[str], times: list[int], size: tuple[int, int]) -> Faces:
        n, (width, height) = len(keys), size
        box = (width // 4, height // 4, max(1, width // 2), max(1, height // 2))
        embedding = [self._noise(key).standard_normal(self.dim) for key in keys]
        return Faces(
            time_ms=np.array(times, np.int64),
            track=np.zeros(n, np.int32),
            box_px=np.tile(np.array(box, np.int32), (n, 1)),
            score=np.ones(n, np.float32),
            emotion_probs=self._emotion_probs(keys) if n else np.zeros((0, 7), np.float32),
            embedding=np.array(embedding, np.float32).reshape(n, self.dim),
            speaking=np.full(n, np.nan, np.float32),
            frame_px=size,
        )


# The options are those of `Fake`. Text votes on what is said, face on the segment's id where
# `watch` saw a face; audio embeds the id where there is sound, and votes on it when `votes` is set.
load_text = functools.partial(Fake, Modality.TEXT)
load_face = functools.partial(FakeFace, Modality.FACE)
load_audio = functools.partial(Fake, Modality.AUDIO, votes=False)


def register() -> None:
    """Make the fakes backends of this process, by the names `fake-text`, `-face` and `-audio`."""
    loaders = {f"fake-{m}": f"{__name__}:load_{m}" for m in Modality}
    BACKENDS.loaders.update(loaders)  # type: ignore[attr-defined]


def in_children() -> str:
    """The PYTHONPATH under which a new process knows the fakes."""
    tests = Path(__file__).parent
    added = [str(tests.parent), f"{tests}/in_children"]
    return os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), *added]))
