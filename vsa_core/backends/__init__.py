"""What a backend is, and the lazy registry of those that exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vsa_core.labels import Modality
from vsa_core.media import Media
from vsa_core.registry import Registry


@dataclass(frozen=True, slots=True)
class Faces:
    """Every face found in one video's sampled frames, n rows in order of time.

    Attributes:
        time_ms: (n,) int64, the frame's time.
        track: (n,) int32, a number per person followed over time, from 0.
        box_px: (n, 4) int32, x, y, width, height in the upright frame, inside it.
        score: (n,) float32, the detector's own score.
        emotion_probs: (n, 7) float32.
        embedding: (n, D) float32.
        speaking: (n,) float32, how much the mouth moves with the speech that is heard around that
            time, above 0 where it does; NaN where it was not looked at, which is wherever one
            face alone is in the picture.
        frame_px: width and height of the upright frames the boxes refer to.
    """

    time_ms: NDArray[np.int64]
    track: NDArray[np.int32]
    box_px: NDArray[np.int32]
    score: NDArray[np.float32]
    emotion_probs: NDArray[np.float32]
    embedding: NDArray[np.float32]
    speaking: NDArray[np.float32]
    frame_px: tuple[int, int]


@dataclass(frozen=True, slots=True)
class People:
    """Who is seen in one segment.

    Attributes:
        count: how many different people are seen (tracks; one who left and came back may count
            twice).
        track: the one whose face stands for the segment; None when nobody is seen.
        speaks: True where that one was chosen because the mouth moves with the speech; False
            where it is the one that is largest, longest and most central.
    """

    count: int
    track: int | None
    speaks: bool


@dataclass(frozen=True, slots=True)
class Clip:
    """One segment as a backend sees it.

    Attributes:
        segment_id: whose result this becomes.
        start_ms, end_ms: the span in the video.
        text: what is said; empty where nothing is.
        language: BCP 47 tag, None when unknown.
        media: the video the segment belongs to; None for bare text.
        faces: what the face backend's `watch` saw in the whole video; None before that or for
            other modalities.
    """

    segment_id: str
    start_ms: int
    end_ms: int
    text: str = ""
    language: str | None = None
    media: Media | None = None
    faces: Faces | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a backend says of B samples.

    Attributes:
        sentiment_probs: (B, 3) float32, rows sum to 1; None when the backend never votes; a row
            of NaN when it abstains on that sample.
        emotion_probs: (B, 7) float32, rows sum to 1; None when it has no emotions; a row of NaN
            when it abstains.
        embedding: (B, D) float32, finite.
    """

    sentiment_probs: NDArray[np.float32] | None
    emotion_probs: NDArray[np.float32] | None
    embedding: NDArray[np.float32]


@runtime_checkable
class Backend(Protocol):
    """A pretrained model that looks at one modality of a segment, alone.

    Attributes:
        id: name@weights-hash, part of every fingerprint.
        modality: what it looks at.
        dim: width D of its embedding.
        batch_size: how many samples `predict` is given at most.
    """

    id: str
    modality: Modality
    dim: int
    batch_size: int

    def read(self, clip: Clip) -> Any | None:
        """One sample of this modality from a clip; None when there is nothing of it there.

        Raises:
            LanguageNotSpoken: the text is in a language the model was not trained on.
        """

    def predict(self, samples: Sequence[Any]) -> Prediction:
        """Predictions for B samples, in their order."""


@runtime_checkable
class FaceWatcher(Protocol):
    """A backend that first looks at a whole video, so that people can be followed over time."""

    def watch(self, media: Media) -> Faces:
        """Every face in the sampled frames of a video (n may be 0)."""

    def look(self, rgb: NDArray[np.uint8]) -> Faces:
        """Every face in one picture, (height, width, 3) RGB; no track is dropped."""

    def people(self, clip: Clip) -> People:
        """Who is seen in a clip that was watched, and whose face `read` takes."""


BACKENDS: Registry[Backend] = Registry(
    "backend",
    {
        "text-minilm": "vsa_core.backends.text_minilm:load",
        "text-roberta": "vsa_core.backends.text_hf:load_roberta",
        "text-xlm-roberta": "vsa_core.backends.text_hf:load_xlm_roberta",
        "text-hf": "vsa_core.backends.text_hf:load",
        "text-bert": "vsa_core.backends.text_hf:load_encoder",
        "face-mini-xception": "vsa_core.backends.face_mini_xception:load",
        "face-deepface": "vsa_core.backends.face_deepface:load",
        "audio-logmel": "vsa_core.backends.audio_logmel:load",
        "audio-wav2vec2-ser": "vsa_core.backends.audio_wav2vec2:load",
    },
)
# The names, for whoever lists them.
REGISTRY: Mapping[str, str] = BACKENDS.loaders


def load_backend(name: str, options: Mapping[str, Any] | None = None) -> Backend:
    """The backend of that name, loaded once per process and set of options.

    Raises:
        ConfigError: no such backend, or an option it does not have.
        BackendError: a package or its weights are missing or altered.
    """
    return BACKENDS.load(name, options)
