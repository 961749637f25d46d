"""The face backend: people followed through a video, and what mini-XCEPTION reads in each face."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vsa_core.backends import Clip, Faces, Prediction
from vsa_core.backends.face_detect import (
    Boxes,
    Image,
    Scores,
    Tracker,
    detector_files,
    grey_of,
    load_detector,
    rescaled,
)
from vsa_core.backends.mini_xception import EMBEDDING_DIM, INPUT_PX, MiniXception, load_network
from vsa_core.errors import BackendError, ConfigError
from vsa_core.labels import EMOTIONS, Modality, sentiment_from_emotion
from vsa_core.media import Media

# Part of the id: raise it with any change to what comes out.
_CODE_VERSION = 1

# Frames are looked at no larger than this: a face of an eighth of 360 px still fills the 48 px of
# the pictures the network was trained on, and 1080p costs nine times as much to convert.
_FRAME_SIDE_PX = 640
# A face may turn away this long, or for one sampled frame, and is still the same person's.
_MAX_GAP_S = 1.5
# Crops held before they are classified: 2 MB, whatever the video's length.
_PENDING = 512


def load(
    detector: str = "haar",
    frames_per_s: float = 2.0,
    min_face: float = 0.12,
    min_track_frames: int = 3,
    weights: str | Path | None = None,
    detector_weights: str | Path | None = None,
) -> FaceMiniXception:
    """The face backend; nothing is downloaded.

    Args:
        detector: `haar` (OpenCV's cascades) or `yunet`.
        frames_per_s: how many frames of a second are looked at.
        min_face: the smallest face, as a share of the frame's shorter side.
        min_track_frames: a face seen in fewer sampled frames is a false alarm; in a video of
            fewer frames, one that is not in all of them.
        weights: another HDF5 file of the same network; null for the published one.
        detector_weights: another ONNX file for `yunet` than the one fetched by
            `vsa models pull yunet`.

    Raises:
        ConfigError: an option that makes no sense.
        BackendError: a file is missing, altered or cannot be used.
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
    onnx = None if detector_weights is None else Path(detector_weights).expanduser()
    load_detector(detector, min_face, onnx)  # so that a bad option or file is told now
    network, weights_sha256 = load_network(None if weights is None else Path(weights).expanduser())
    made_from = [
        _CODE_VERSION,
        weights_sha256,
        detector,
        [_sha256(path) for path in detector_files(detector, onnx)],
        float(frames_per_s),
        float(min_face),
        int(min_track_frames),
    ]
    digest = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()
    return FaceMiniXception(
        id=f"face-mini-xception@{digest[:12]}",
        network=network,
        detector=detector,
        detector_weights=onnx,
        frames_per_s=float(frames_per_s),
        min_face=float(min_face),
        min_track_frames=int(min_track_frames),
    )


@dataclass(frozen=True, slots=True)
class FaceSample:
    """The main face of a segment, frame by frame.

    Attributes:
        emotion_probs: (n, 7) float32.
        embedding: (n, 128) float32.
    """

    emotion_probs: NDArray[np.float32]
    embedding: NDArray[np.float32]


class FaceMiniXception:
    """Finds, follows and reads faces; may be used by several threads at once.

    OpenCV's and torch's numbers of threads are the caller's to set: nothing that comes out
    depends on them, and both are settings of the whole process.
    """

    modality = Modality.FACE
    dim = EMBEDDING_DIM
    batch_size = 512

    def __init__(
        self,
        id: str,
        network: MiniXception,
        detector: str,
        detector_weights: Path | None,
        frames_per_s: float,
        min_face: float,
        min_track_frames: int,
    ) -> None:
        self.id = id
        self._network = network
        self._detector = detector
        self._detector_weights = detector_weights
        self._frames_per_s = frames_per_s
        self._min_face = min_face
        self._min_track_frames = min_track_frames
        self._watched: tuple[Path, Faces] | None = None

    def watch(self, media: Media) -> Faces:
        """Every face in the sampled frames of a video, false alarms left out (n may be 0).

        Frames stream by and at most 512 crops wait for the network, so that memory grows only
        with the rows that come out, some 700 bytes per face.

        Raises:
            MediaError: the file cannot be opened any more.
        """
        detector = load_detector(self._detector, self._min_face, self._detector_weights)
        tracker = Tracker(round(1000 * max(_MAX_GAP_S, 2 / self._frames_per_s)))
        frame_px = (media.width or 0, media.height or 0)
        seen = _Seen(self._network)
        frame_count = 0
        for frame in media.frames(self._frames_per_s, _FRAME_SIDE_PX):
            frame_count += 1
            boxes, scores = detector.detect_next(frame.rgb)
            if not len(boxes):
                continue
            full = rescaled(boxes, _size_px(frame.rgb), frame_px)
            tracks = tracker.follow(frame.time_ms, full)
            crops = face_crops(frame.rgb, boxes, detector.crop_scale)
            seen.add(frame.time_ms, tracks, full, scores, crops)
        min_frames = min(self._min_track_frames, frame_count)
        return seen.faces(frame_px, min_frames, detector.min_track_score)

    def look(self, rgb: NDArray[np.uint8]) -> Faces:
        """Every face in one picture, (height, width, 3) RGB, each a track of its own at 0 ms."""
        detector = load_detector(self._detector, self._min_face, self._detector_weights)
        picture = _fitted(rgb)
        boxes, scores = detector.detect(picture)
        full = rescaled(boxes, _size_px(picture), _size_px(rgb))
        seen = _Seen(self._network)
        crops = face_crops(picture, boxes, detector.crop_scale)
        seen.add(0, list(range(len(boxes))), full, scores, crops)
        return seen.faces(_size_px(rgb), min_frames=1, min_score=-np.inf)

    def read(self, clip: Clip) -> FaceSample | None:
        """The main face between a clip's start and end, half a sampling step more at both sides.

        None when no face is seen there. A clip that comes without `faces` has its video watched,
        once for as long as it is the same file.
        """
        faces = clip.faces
        if faces is None and clip.media is not None:
            faces = self._watched_once(clip.media)
        if faces is None:
            return None
        half_step_ms = 500 / self._frames_per_s
        inside = (faces.time_ms >= clip.start_ms - half_step_ms) & (
            faces.time_ms <= clip.end_ms + half_step_ms
        )
        track = main_track(faces, inside)
        if track is None:
            return None
        rows = inside & (faces.track == track)
        return FaceSample(faces.emotion_probs[rows], faces.embedding[rows])

    def predict(self, samples: Sequence[FaceSample]) -> Prediction:
        """The mean over each face's frames; the sentiment is the one the emotions imply."""
        emotions = np.zeros((len(samples), len(EMOTIONS)), np.float32)
        embedding = np.zeros((len(samples), EMBEDDING_DIM), np.float32)
        for row, sample in enumerate(samples):
            mean = sample.emotion_probs.mean(axis=0, dtype=np.float64)
            emotions[row] = mean / mean.sum()
            embedding[row] = sample.embedding.mean(axis=0, dtype=np.float64)
        return Prediction(sentiment_from_emotion(emotions), emotions, embedding)

    def _watched_once(self, media: Media) -> Faces:
        watched = self._watched
        if watched is None or watched[0] != media.path:
            watched = self._watched = (media.path, self.watch(media))
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


def face_crops(image: Image, boxes: Boxes, scale: float) -> NDArray[np.uint8]:
    """Grey squares around faces, as the network was trained to see them: forehead to chin.

    The square has `scale` times the box's longer side (for `haar` a tenth more on each side, as
    `fer` pads a face of 100 px by 10); beyond the picture its edge is repeated. On the clips at
    hand the network is surest about that margin, and wavers from a fifth on.

    Args:
        image: (height, width, 3) RGB or (height, width) grey.
        boxes: (n, 4) in px of that picture.

    Returns:
        (n, 64, 64) uint8.
    """
    grey = grey_of(image)
    crops = np.empty((len(boxes), INPUT_PX, INPUT_PX), np.uint8)
    for row, (x, y, width, height) in enumerate(boxes.tolist()):
        side = max(2, round(scale * max(width, height)))
        left, top = round(x + (width - side) / 2), round(y + (height - side) / 2)
        columns = np.arange(left, left + side).clip(0, grey.shape[1] - 1)
        lines = np.arange(top, top + side).clip(0, grey.shape[0] - 1)
        shrink = cv2.INTER_AREA if side > INPUT_PX else cv2.INTER_LINEAR
        square = grey[lines[:, None], columns]
        crops[row] = cv2.resize(square, (INPUT_PX, INPUT_PX), interpolation=shrink)
    return crops


@dataclass(slots=True)
class _Seen:
    """Faces as they come, in rows; crops wait until there are enough for the network."""

    network: MiniXception
    time_ms: list[int] = field(default_factory=list)
    track: list[int] = field(default_factory=list)
    boxes: list[Boxes] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    emotion_probs: list[NDArray[np.float32]] = field(default_factory=list)
    embedding: list[NDArray[np.float32]] = field(default_factory=list)
    pending: list[NDArray[np.uint8]] = field(default_factory=list)

    def add(
        self,
        time_ms: int,
        tracks: Sequence[int],
        boxes: Boxes,
        scores: Scores,
        crops: NDArray[np.uint8],
    ) -> None:
        """The faces of one frame."""
        self.time_ms += [time_ms] * len(tracks)
        self.track += tracks
        self.boxes.append(boxes)
        self.scores.append(scores)
        self.pending += list(crops)
        if len(self.pending) >= _PENDING:
            self._classify()

    def faces(self, frame_px: tuple[int, int], min_frames: int, min_score: float) -> Faces:
        """All that was added but the tracks that are too short or too doubtful."""
        self._classify()
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
            embedding=_stacked(self.embedding, EMBEDDING_DIM)[kept],
            frame_px=frame_px,
        )

    def _classify(self) -> None:
        if self.pending:
            probs, embedding = self.network.classify(np.stack(self.pending))
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


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BackendError(f"cannot read the face detector {path}: {error.strerror}") from error
