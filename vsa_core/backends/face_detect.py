"""Where the faces are: two detectors, and following people from one sampled frame to the next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from vsa_core.errors import BackendError, ConfigError
from vsa_core.weights import find

Image = NDArray[np.uint8]
Boxes = NDArray[np.int32]
Scores = NDArray[np.float32]

DETECTORS = ("haar", "yunet")

# The size the cascade was trained at; YuNet, too, is sure from about there on.
_SMALLEST_PX = 24


class Detector(Protocol):
    """Finds faces in pictures; it may remember the last frame, so one serves one video at a time.

    Attributes:
        crop_scale: side of the square an emotion network wants to see, as a share of the longer
            side of this detector's boxes.
        min_track_score: a track whose mean score is lower is a false alarm.
    """

    crop_scale: float
    min_track_score: float

    def detect(self, image: Image) -> tuple[Boxes, Scores]:
        """Every face in a picture of its own.

        Args:
            image: (height, width, 3) RGB or (height, width) grey.

        Returns:
            (n, 4) x, y, width, height in px of that picture, inside it, and (n,) scores, both in
            order of falling score.
        """

    def detect_next(self, image: Image) -> tuple[Boxes, Scores]:
        """Every face in the next frame of the video looked at; else as `detect`."""


def load_detector(name: str, min_face: float, weights: Path | None = None) -> Detector:
    """A detector by name, for one video or one thread: none of them may be shared.

    Args:
        name: one of `DETECTORS`.
        min_face: the smallest face looked for, as a share of the picture's shorter side.
        weights: another ONNX file for `yunet` than the one `vsa models pull yunet` fetches;
            `haar` has its cascades with OpenCV.

    Raises:
        ConfigError: no such detector, or a share outside (0, 1).
        BackendError: the detector's file is missing or cannot be used.
    """
    if not 0 < min_face < 1:
        raise ConfigError(f"min_face is a share of the picture, over 0 and under 1, not {min_face}")
    if name == "haar":
        return Haar(min_face)
    if name == "yunet":
        return YuNet(min_face, detector_files(name, weights)[0])
    raise ConfigError(f"no face detector is named {name!r}; there are: {', '.join(DETECTORS)}")


def detector_files(name: str, weights: Path | None = None) -> list[Path]:
    """The files a detector is made from; errors as `load_detector`."""
    if name == "haar":
        folder = Path(cv2.__file__).parent / "data"
        files = [folder / f"haarcascade_frontalface_{kind}.xml" for kind in ("default", "alt2")]
        for path in files:
            if not path.is_file():
                raise BackendError(
                    f"this OpenCV has no cascade {path}: "
                    "pip install 'opencv-python-headless>=4.10,<5'"
                )
        return files
    if weights is None:
        return [find("yunet")]
    if not weights.is_file():
        raise BackendError(
            f"the face detector yunet has no file {weights}: run `vsa models pull yunet` and leave "
            "the option detector_weights out, or set it to the right file"
        )
    return [weights]


class Haar:
    """OpenCV's frontal-face cascades (Viola and Jones 2001; Lienhart and Maydt 2002).

    They work on grey frames shrunk until the smallest face wanted is 24 px, the size the first one
    was trained at: with `min_face` 0.12, 356×200 px for 16:9. What the first cascade finds counts
    when the second, trained otherwise, sees a face there too: in real clips that cost no face
    that looked at the camera, and most of the false ones. Scores are the weights of the first
    one's last stage, unbounded, some 7 for a clear face.

    Searching a whole frame costs ten times the rest of looking at a face, so it is done on every
    `FULL_EVERY`th frame of a video, and whenever a face is not where it was or there was none.
    Between them only the surroundings of the last faces are searched; who joins them is seen that
    much later.
    """

    FULL_EVERY = 6

    crop_scale = 1.2
    min_track_score = 2.5

    def __init__(self, min_face: float) -> None:
        self._min_face = min_face
        self._cascade, self._second = (
            cv2.CascadeClassifier(str(path)) for path in detector_files("haar")
        )
        self._last: Boxes = np.empty((0, 4), np.int32)
        self._since_full = 0

    def detect(self, image: Image) -> tuple[Boxes, Scores]:
        """As `Detector.detect`, with the care a single picture can be given."""
        small = shrunk(grey_of(image), self._min_face)
        found = _search(self._cascade, small, (_SMALLEST_PX, None), step=1.1, neighbours=5)
        return _in_image(*self._confirmed(small, *found), small, image)

    def detect_next(self, image: Image) -> tuple[Boxes, Scores]:
        """As `Detector.detect_next`."""
        small = shrunk(grey_of(image), self._min_face)
        boxes, scores = self._search_near(small)
        self._since_full += 1
        lost = not len(self._last) or len(boxes) < len(self._last)
        if lost or self._since_full >= self.FULL_EVERY:
            whole = _search(self._cascade, small, (_SMALLEST_PX, None), step=1.2, neighbours=3)
            boxes, scores = self._confirmed(
                small, np.concatenate([boxes, whole[0]]), np.concatenate([scores, whole[1]])
            )
            self._since_full = 0
        self._last = boxes
        return _in_image(boxes, scores, small, image)

    def _confirmed(self, small: Image, boxes: Boxes, scores: Scores) -> tuple[Boxes, Scores]:
        """Those, each once, that the second cascade takes for a face too."""
        boxes, scores = _without_doubles(boxes, scores)
        sure = [row for row, box in enumerate(boxes.tolist()) if self._is_confirmed(small, box)]
        return boxes[sure], scores[sure]

    def _is_confirmed(self, small: Image, box: Sequence[int]) -> bool:
        around, _ = _surroundings(small, box)
        sizes = (max(_SMALLEST_PX, int(0.7 * box[2])), int(1.4 * box[2]))
        return len(_search(self._second, around, sizes, step=1.1, neighbours=2)[0]) > 0

    def _search_near(self, small: Image) -> tuple[Boxes, Scores]:
        """At most one face around each of the last ones, of about its size."""
        boxes, scores = [np.empty((0, 4), np.int32)], [np.empty(0, np.float32)]
        for box in self._last.tolist():
            around, corner = _surroundings(small, box)
            sizes = (max(_SMALLEST_PX, int(0.75 * box[2])), int(1.35 * box[2]))
            found = _search(self._cascade, around, sizes, step=1.2, neighbours=2)
            near, weights = _without_doubles(*found)
            boxes.append(near[:1] + np.array([*corner, 0, 0], np.int32))
            scores.append(weights[:1])
        return _without_doubles(np.concatenate(boxes), np.concatenate(scores))


def _search(
    cascade: Any, grey: Image, sizes_px: tuple[int, int | None], step: float, neighbours: int
) -> tuple[Boxes, Scores]:
    """One run of a cascade.

    Args:
        sizes_px: smallest and largest face; None for as large as the picture.
        step: from one size looked for to the next.
        neighbours: how often a face must be found at nearly the same place.
    """
    smallest, largest = sizes_px
    if min(grey.shape) < smallest:
        return np.empty((0, 4), np.int32), np.empty(0, np.float32)
    boxes, _, weights = cascade.detectMultiScale3(
        grey,
        scaleFactor=step,
        minNeighbors=neighbours,
        minSize=(smallest, smallest),
        maxSize=(largest, largest) if largest else None,
        outputRejectLevels=True,
    )
    return (
        np.asarray(boxes, np.int32).reshape(-1, 4),
        np.asarray(weights, np.float32).reshape(-1),
    )


def _surroundings(image: Image, box: Sequence[int]) -> tuple[Image, tuple[int, int]]:
    """A picture's part around a box, twice its size, and x, y of that part's corner."""
    x, y, width, height = box
    left, top = max(0, x - width // 2), max(0, y - height // 2)
    part = image[top : y + height + height // 2, left : x + width + width // 2]
    return np.ascontiguousarray(part), (left, top)


class YuNet:
    """YuNet (Wu, Peng and Yu 2023) through OpenCV; scores are in [0, 1].

    The frame is shrunk as for `Haar`. A whole search is cheap, so every frame gets one.
    """

    # Its boxes go from forehead to chin and are narrower than high: where both detectors see a
    # face the cascade's square is 0.92 of that height, so 1.1 here shows what 1.2 does there.
    crop_scale = 1.1
    min_track_score = 0.7

    _SCORE = 0.6
    _OVERLAP = 0.3

    def __init__(self, min_face: float, weights: Path) -> None:
        self._min_face = min_face
        try:
            self._network = cv2.FaceDetectorYN.create(
                str(weights), "", (320, 320), self._SCORE, self._OVERLAP
            )
        except cv2.error as error:
            raise BackendError(
                f"{weights} is no YuNet that OpenCV can use ({error.err}): "
                "run `vsa models pull yunet` again"
            ) from error

    def detect(self, image: Image) -> tuple[Boxes, Scores]:
        """As `Detector.detect`."""
        small = shrunk(image, self._min_face)
        kind = cv2.COLOR_GRAY2BGR if small.ndim == 2 else cv2.COLOR_RGB2BGR
        self._network.setInputSize((small.shape[1], small.shape[0]))
        rows = self._network.detect(cv2.cvtColor(small, kind))[1]
        if rows is None:
            return np.empty((0, 4), np.int32), np.empty(0, np.float32)
        boxes = np.rint(rows[:, :4]).astype(np.int32)
        return _in_image(*_without_doubles(boxes, rows[:, -1].astype(np.float32)), small, image)

    def detect_next(self, image: Image) -> tuple[Boxes, Scores]:
        """As `Detector.detect_next`."""
        return self.detect(image)


def grey_of(image: Image) -> Image:
    """(height, width) grey of an RGB or grey picture."""
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def shrunk(image: Image, min_face: float) -> Image:
    """A picture small enough that the smallest face wanted has `_SMALLEST_PX`; never enlarged."""
    height, width = image.shape[:2]
    scale = _SMALLEST_PX / min_face / min(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _in_image(boxes: Boxes, scores: Scores, small: Image, image: Image) -> tuple[Boxes, Scores]:
    """Boxes of the shrunken picture in px of the picture, cut at its edges, none empty."""
    (height, width), (small_height, small_width) = image.shape[:2], small.shape[:2]
    return rescaled(boxes, (small_width, small_height), (width, height)), scores


def rescaled(boxes: Boxes, from_px: tuple[int, int], to_px: tuple[int, int]) -> Boxes:
    """(n, 4) boxes of a picture of one size in px of another, inside it and at least 1 px."""
    scale = np.array(to_px) / np.array(from_px)
    start = np.rint(boxes[:, :2] * scale).clip(0, np.array(to_px) - 1)
    end = np.rint((boxes[:, :2] + boxes[:, 2:]) * scale).clip(start + 1, to_px)
    return np.concatenate([start, end - start], axis=1).astype(np.int32)


def _without_doubles(boxes: Boxes, scores: Scores) -> tuple[Boxes, Scores]:
    """Only the best of boxes that overlap or lie in one another, in order of falling score."""
    order = sorted(range(len(boxes)), key=lambda i: (-float(scores[i]), *boxes[i].tolist()))
    kept: list[int] = []
    for i in order:
        if all(_shared(boxes[i], boxes[j]) < 0.4 for j in kept):
            kept.append(i)
    return boxes[kept], scores[kept]


def _shared(a: Boxes, b: Boxes) -> float:
    """Common area as a share of the smaller box."""
    sides = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
    area: float = float(np.prod(np.maximum(sides, 0)))
    return area / float(min(np.prod(a[2:]), np.prod(b[2:])))


@dataclass(slots=True)
class _Track:
    number: int
    box: tuple[int, ...]
    seen_ms: int


@dataclass(slots=True)
class Tracker:
    """Tells which face of a frame is whose of the frames before, by place and size alone.

    People sit still more than they move: with two frames a second a talking head's boxes nearly
    always overlap, and one that has moved up to its own size away is still the nearest. A face
    may be out of sight for `max_gap_ms`; after that it is somebody new.
    """

    max_gap_ms: int
    _tracks: list[_Track] = field(default_factory=list)
    _count: int = 0

    def follow(self, time_ms: int, boxes: Boxes) -> list[int]:
        """A track number for each of a frame's (n, 4) boxes; frames in order of time."""
        self._tracks = [t for t in self._tracks if time_ms - t.seen_ms <= self.max_gap_ms]
        rows: list[tuple[int, ...]] = [tuple(box) for box in boxes.tolist()]
        pairs = sorted(
            (_distance(track.box, box), index, row)
            for index, track in enumerate(self._tracks)
            for row, box in enumerate(rows)
        )
        owner: dict[int, _Track] = {}
        taken: set[int] = set()
        for distance, index, row in pairs:
            if distance < 1 and index not in taken and row not in owner:
                owner[row] = self._tracks[index]
                taken.add(index)
        for row, box in enumerate(rows):
            if row not in owner:
                owner[row] = _Track(self._count, box, time_ms)
                self._tracks.append(owner[row])
                self._count += 1
            owner[row].box, owner[row].seen_ms = box, time_ms
        return [owner[row].number for row in range(len(rows))]


def _distance(a: Sequence[int], b: Sequence[int]) -> float:
    """0 for the same box; from 1 on it is somebody else: a size away, or of twice the size."""
    side_a, side_b = math.sqrt(a[2] * a[3]), math.sqrt(b[2] * b[3])
    apart = math.hypot(a[0] + a[2] / 2 - b[0] - b[2] / 2, a[1] + a[3] / 2 - b[1] - b[3] / 2)
    return math.hypot(apart / max(side_a, side_b), math.log2(side_a / side_b))
