"""What the face backends share: people followed through a video, and whose face a segment takes."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from vsa_core.backends import Clip, Faces, People, Prediction
from vsa_core.backends.face_detect import (
    Boxes,
    Image,
    Scores,
    Tracker,
    detector_files,
    load_detector,
    rescaled,
)
from vsa_core.backends.speaking import speaker, speaking_scores
from vsa_core.errors import ConfigError
from vsa_core.labels import EMOTIONS, Modality, sentiment_from_emotion
from vsa_core.media import Media
from vsa_core.weights import find
from vsa_core.weights.catalogue import WEIGHTS
from vsa_core.weights.hashes import digest

# Part of every face backend's id: raise it with any change to who is seen or whose face is taken.
_CODE_VERSION = 2

# Frames are looked at no larger than this: a face of an eighth of 360 px still fills the 48 px of
# the pictures the networks were trained on, and 1080p costs nine times as much to convert.
_FRAME_SIDE_PX = 640
# A face may turn away this long, or for one sampled frame, and is still the same person's.
_MAX_GAP_S = 1.5


class FaceNetwork(Protocol):
    """What reads the faces: all in which one face backend differs from another.

    Attributes:
        dim: width D of its embedding.
        at_once: how many cut faces wait before they are read together; bounds what is held.
    """

    dim: int
    at_once: int

    def cut(self, image: Image, boxes: Boxes, crop_scale: float) -> Sequence[Any]:
        """What the network needs to see of each face, so that the frame can be let go.

        Args:
            image: (height, width, 3) RGB.
            boxes: (n, 4) x, y, width, height in px of that picture.
            crop_scale: see `Detector`.
        """

    def read(self, cut: Sequence[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Emotion probabilities (n, 7) in the order of `EMOTIONS`, and embeddings (n, D)."""


@dataclass(frozen=True, slots=True)
class Looking:
    """How a video is looked at, whatever reads the faces; the options every face backend has.

    Attributes:
        detector: one of `face_detect.DETECTORS`.
        frames_per_s: how many frames of a second are looked at.
        min_face: the smallest face, as a share of the frame's shorter side.
        min_track_frames: a face seen in fewer sampled frames is a false alarm; in a video of
            fewer frames, one that is not in all of them.
        detector_weights: another ONNX file for `yunet` than the one fetched by
            `vsa models pull yunet`: a path, or a name of `vsa models list` (`yunet-320`).
    """

    detector: str
    frames_per_s: float
    min_face: float
    min_track_frames: int
    detector_weights: Path | None

    @classmethod
    def checked(
        cls,
        detector: str,
        frames_per_s: float,
        min_face: float,
        min_track_frames: int,
        detector_weights: str | Path | None,
    ) -> Looking:
        """From options that came from outside.

        Raises:
            ConfigError: an option that makes no sense.
            BackendError: the detector's file is missing, altered or cannot be used.
        """
        for name, value in (
            ("frames_per_s", frames_per_s),
            ("min_face", min_face),
            ("min_track_frames", min_track_frames),
        ):
            if not isinstance(value, int | float):
                raise ConfigError(f"{name} is a number, not {value!r}")
        if not 0 < frames_per_s <= 1000:
            raise ConfigError(f"frames_per_s is a rate over 0 and up to 1000, not {frames_per_s}")
        if min_track_frames < 1:
            raise ConfigError(f"min_track_frames is a count from 1 on, not {min_track_frames}")
        onnx = None
        if detector_weights is not None:
            name = str(detector_weights)
            onnx = find(name) if name in WEIGHTS else Path(name).expanduser()
        load_detector(detector, min_face, onnx)  # so that a bad option or file is told now
        return cls(detector, float(frames_per_s), float(min_face), int(min_track_frames), onnx)

    def made_from(self) -> list[Any]:
        """All of it that can change what comes out, for the backend's id."""
        return [
            _CODE_VERSION,
            self.detector,
            [digest(path) for path in detector_files(self.detector, self.detector_weights)],
            self.frames_per_s,
            self.min_face,
            self.min_track_frames,
        ]


def backend_id(name: str, *made_from: Any) -> str:
    """`name@12 hex` over all that can change what a backend says."""
    digest = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()
    return f"{name}@{digest[:12]}"


@dataclass(frozen=True, slots=True)
class FaceSample:
    """The face that stands for a segment, frame by frame.

    Attributes:
        emotion_probs: (n, 7) float32.
        embedding: (n, D) float32.
    """

    emotion_probs: NDArray[np.float32]
    embedding: NDArray[np.float32]


class FaceBackend:
    """Finds and follows faces and lets a network read them; several threads may use it at once.

    OpenCV's and torch's numbers of threads are the caller's to set: nothing that comes out
    depends on them, and both are settings of the whole process.
    """

    modality = Modality.FACE
    batch_size = 512

    def __init__(self, id: str, network: FaceNetwork, looking: Looking) -> None:
        self.id = id
        self.dim = network.dim
        self._network = network
        self._looking = looking
        self._watched: tuple[Path, Faces] | None = None

    def watch(self, media: Media) -> Faces:
        """Every face in the sampled frames of a video, false alarms left out (n may be 0).

        Frames stream by and few faces wait for the network, so that memory grows only with the
        rows that come out, some 700 bytes per face. Where two or more people are in the picture
        at once it is looked at again, for who speaks (see `speaking`).

        Raises:
            MediaError: the file cannot be opened any more.
        """
        looking = self._looking
        detector = load_detector(looking.detector, looking.min_face, looking.detector_weights)
        max_gap_ms = round(1000 * max(_MAX_GAP_S, 2 / looking.frames_per_s))
        tracker = Tracker(max_gap_ms)
        frame_px = (media.width or 0, media.height or 0)
        seen = _Seen(self._network)
        frame_count = 0
        for frame in media.frames(looking.frames_per_s, _FRAME_SIDE_PX):
            frame_count += 1
            boxes, scores = detector.detect_next(frame.rgb)
            if not len(boxes):
                continue
            full = rescaled(boxes, _size_px(frame.rgb), frame_px)
            tracks = tracker.follow(frame.time_ms, full)
            cut = self._network.cut(frame.rgb, boxes, detector.crop_scale)
            seen.add(frame.time_ms, tracks, full, scores, cut)
        min_frames = min(looking.min_track_frames, frame_count)
        faces = seen.faces(frame_px, min_frames, detector.min_track_score)
        return replace(faces, speaking=speaking_scores(media, faces, max_gap_ms))

    def look(self, rgb: NDArray[np.uint8]) -> Faces:
        """Every face in one picture, (height, width, 3) RGB, each a track of its own at 0 ms."""
        looking = self._looking
        detector = load_detector(looking.detector, looking.min_face, looking.detector_weights)
        picture = _fitted(rgb)
        boxes, scores = detector.detect(picture)
        full = rescaled(boxes, _size_px(picture), _size_px(rgb))
        seen = _Seen(self._network)
        cut = self._network.cut(picture, boxes, detector.crop_scale)
        seen.add(0, list(range(len(boxes))), full, scores, cut)
        return seen.faces(_size_px(rgb), min_frames=1, min_score=-np.inf)

    def people(self, clip: Clip) -> People:
        """Who is seen between a clip's start and end, half a sampling step more at both sides.

        One face stands for the segment: that of who speaks where that can be told (see
        `speaking`), else the largest, longest and most central one (see `main_track`). A clip
        that comes without `faces` has its video watched, once for as long as it is the same file.
        """
        faces = self._faces(clip)
        return People(0, None, False) if faces is None else self._people(faces, clip)

    def read(self, clip: Clip) -> FaceSample | None:
        """The face `people` names, frame by frame; None when nobody is seen."""
        faces = self._faces(clip)
        if faces is None:
            return None
        who = self._people(faces, clip)
        if who.track is None:
            return None
        rows = self._inside(faces, clip) & (faces.track == who.track)
        return FaceSample(faces.emotion_probs[rows], faces.embedding[rows])

    def predict(self, samples: Sequence[FaceSample]) -> Prediction:
        """The mean over each face's frames; the sentiment is the one the emotions imply."""
        emotions = np.zeros((len(samples), len(EMOTIONS)), np.float32)
        embedding = np.zeros((len(samples), self.dim), np.float32)
        for row, sample in enumerate(samples):
            mean = sample.emotion_probs.mean(axis=0, dtype=np.float64)
            emotions[row] = mean / mean.sum()
            embedding[row] = sample.embedding.mean(axis=0, dtype=np.float64)
        return Prediction(sentiment_from_emotion(emotions), emotions, embedding)

    def _people(self, faces: Faces, clip: Clip) -> People:
        inside = self._inside(faces, clip)
        speaks = speaker(faces, inside)
        track = main_track(faces, inside) if speaks is None else speaks
        return People(len(np.unique(faces.track[inside])), track, speaks is not None)

    def _inside(self, faces: Faces, clip: Clip) -> NDArray[np.bool_]:
        half_step_ms = 500 / self._looking.frames_per_s
        return (faces.time_ms >= clip.start_ms - half_step_ms) & (
            faces.time_ms <= clip.end_ms + half_step_ms
        )

    def _faces(self, clip: Clip) -> Faces | None:
        if clip.faces is not None or clip.media is None:
            return clip.faces
        watched = self._watched
        if watched is None or watched[0] != clip.media.path:
            watched = self._watched = (clip.media.path, self.watch(clip.media))
        return watched[1]


def main_track(faces: Faces, rows: NDArray[np.bool_]) -> int | None:
    """The track that matters most in some rows; None when there are none.

    Each frame counts by the face's size (side, as a share of the frame's) times how central it
    is (1 in the middle, 0 in a corner), and the frames add up: size × duration × centre. The
    first track wins a tie.
    """
    if not rows.any():
        return None
    frame = np.array(faces.frame_px, np.float64)
    start, size = faces.box_px[rows, :2], faces.box_px[rows, 2:]
    side = np.sqrt(size.prod(axis=1) / frame.prod())
    off_centre = np.linalg.norm((start + size / 2) - frame / 2, axis=1) / np.linalg.norm(frame / 2)
    return int(np.bincount(faces.track[rows], side * (1 - off_centre)).argmax())


@dataclass(slots=True)
class _Seen:
    """Faces as they come, in rows; what is cut of them waits until there is enough to read."""

    network: FaceNetwork
    time_ms: list[int] = field(default_factory=list)
    track: list[int] = field(default_factory=list)
    boxes: list[Boxes] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    emotion_probs: list[NDArray[np.float32]] = field(default_factory=list)
    embedding: list[NDArray[np.float32]] = field(default_factory=list)
    pending: list[Any] = field(default_factory=list)

    def add(
        self,
        time_ms: int,
        tracks: Sequence[int],
        boxes: Boxes,
        scores: Scores,
        cut: Sequence[Any],
    ) -> None:
        """The faces of one frame."""
        self.time_ms += [time_ms] * len(tracks)
        self.track += tracks
        self.boxes.append(boxes)
        self.scores.append(scores)
        self.pending += cut
        if len(self.pending) >= self.network.at_once:
            self._read()

    def faces(self, frame_px: tuple[int, int], min_frames: int, min_score: float) -> Faces:
        """All that was added but the tracks that are too short or too doubtful."""
        self._read()
        track = np.array(self.track, np.int32)
        scores = np.concatenate([np.empty(0, np.float32), *self.scores])
        counts = Counter(self.track)
        sums = np.bincount(track, scores) if len(track) else np.empty(0)
        real = [
            number
            for number, count in sorted(counts.items())
            if count >= min_frames and sums[number] / count >= min_score
        ]
        kept = np.isin(track, real)
        return Faces(
            time_ms=np.array(self.time_ms, np.int64)[kept],
            track=np.searchsorted(real, track[kept]).astype(np.int32),
            box_px=np.concatenate([np.empty((0, 4), np.int32), *self.boxes])[kept],
            score=scores[kept],
            emotion_probs=_stacked(self.emotion_probs, len(EMOTIONS))[kept],
            embedding=_stacked(self.embedding, self.network.dim)[kept],
            speaking=np.full(int(kept.sum()), np.nan, np.float32),
            frame_px=frame_px,
        )

    def _read(self) -> None:
        if self.pending:
            probs, embedding = self.network.read(self.pending)
            self.emotion_probs.append(probs)
            self.embedding.append(embedding)
            self.pending = []


def _stacked(parts: list[NDArray[np.float32]], width: int) -> NDArray[np.float32]:
    return np.concatenate([np.empty((0, width), np.float32), *parts])


def _fitted(rgb: Image) -> Image:
    """A picture as a video's frame would come: its longer side at most `_FRAME_SIDE_PX`."""
    width, height = _size_px(rgb)
    scale = _FRAME_SIDE_PX / max(width, height)
    if scale >= 1:
        return rgb
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def _size_px(image: Image) -> tuple[int, int]:
    return image.shape[1], image.shape[0]
