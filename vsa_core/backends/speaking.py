"""Who of several people in the picture speaks: mouths that move with the speech that is heard.

The rule, for every moment at which two or more people are in the picture and there is sound:

1. The video is looked at again, 12 frames a second. Each face is cut out along its track and
   brought to 64×64 px, so that near and far faces are alike.
2. Dense optical flow from one frame to the next (Farnebäck 2003) is fitted by an affine motion on
   the upper face, forehead to nose, and that motion of the head is taken off. What is left in the
   mouth and chin, over what is left in the upper face, is how much the mouth moves by itself:
   q = ln(mouth / upper). A face that only looks, nods or laughs at leisure has q around ln 2.
3. The sound says how likely each moment is speech, and how loud it is.
4. A face's score is the mean over the frames around a sampled one of
   P(speech) · (q − ln 2) + ¼ · z(q) · z(loudness), z being standard scores over the whole stretch.
   The first part asks whose mouth moves while somebody speaks, the second whose moves when the
   voice is loud and rests when it pauses, which alone tells two moving mouths apart.
5. In a segment, the face with the highest mean score is the speaker's if that is over 0 and at
   least `MARGIN` above every other. Otherwise nobody is told: a voice from off the picture moves
   no mouth in it, and two people who talk at once are not kept apart.

How often that is right is in benchmarks/RESULTS.md; a hand before a silent mouth is what fools it
most. The weights were chosen on two speakers, so they are round numbers. Chung and Zisserman 2016
("Out of time: automated lip sync in the wild") learn the same from data.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from vsa_core.backends import Faces
from vsa_core.media import SAMPLE_RATE_HZ, Media
from vsa_core.voice import WINDOW, speech_probability

# How far the speaker's mean score has to be above every other's.
MARGIN = 0.2

_PER_S = 12.0
_FRAME_SIDE_PX = 640
# Frames further apart show too little of a mouth: a syllable takes some 200 ms.
_MAX_STEP_MS = 220
# Fewer steps of a face than this say nothing.
_MIN_STEPS = 8
# Less speech in a whole stretch is no speech.
_MIN_SPEECH_S = 0.5
_LOUDNESS_WEIGHT = 0.25

_SIDE_PX = 64
# Lines and columns of the 64×64 px: from the forehead to the nose, and around the mouth.
_UPPER = (slice(10, 38), slice(10, 54))
_MOUTH = (slice(41, 63), slice(16, 48))
_STILL_PX = 0.03  # flow below this is noise of the picture
_BLOCK_S = 960 * WINDOW / SAMPLE_RATE_HZ  # of sound listened to at once, in whole windows


@dataclass(frozen=True, slots=True)
class _Presence:
    """A time over which a track is in the picture without a long gap.

    Attributes:
        track: whose.
        rows: (n,) where it is in `Faces`.
        time_ms: (n,) of those rows.
        box: (n, 4) x, y, width, height as shares of the frame's width.
    """

    track: int
    rows: NDArray[np.intp]
    time_ms: NDArray[np.float64]
    box: NDArray[np.float64]

    @property
    def start_ms(self) -> int:
        return int(self.time_ms[0])

    @property
    def end_ms(self) -> int:
        return int(self.time_ms[-1])

    def box_at(self, time_ms: float) -> NDArray[np.float64]:
        """(4,) between the boxes before and after that time."""
        after = min(max(1, int(np.searchsorted(self.time_ms, time_ms))), len(self.rows) - 1)
        if after == 0:  # it is there once
            return self.box[0]
        before = after - 1
        share = (time_ms - self.time_ms[before]) / (self.time_ms[after] - self.time_ms[before])
        return self.box[before] * (1 - share) + self.box[after] * share


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A time over which two people or more are in the picture, and who is in some of it."""

    start_ms: int
    end_ms: int
    who: list[_Presence]


@dataclass(slots=True)
class _Mouth:
    """What was measured of one face: times of steps between frames, and ln(mouth / upper)."""

    presence: _Presence
    last: tuple[int, NDArray[np.uint8]] | None = None
    time_ms: list[float] = field(default_factory=list)
    moves: list[float] = field(default_factory=list)


def speaking_scores(media: Media, faces: Faces, max_gap_ms: int) -> NDArray[np.float32]:
    """How much each face of each sampled frame moves its mouth with the speech; see above.

    Nothing is decoded where no two people are ever in the picture at once, or there is no sound.

    Args:
        media: the video.
        faces: what was seen in it; `speaking` is not looked at.
        max_gap_ms: how long a person may be out of sight and count as there.

    Returns:
        (n,) float32, NaN where it cannot be told: alone in the picture, nothing heard, or too few
        frames.

    Raises:
        MediaError: the file cannot be opened any more.
    """
    scores = np.full(len(faces.time_ms), np.nan, np.float32)
    stretches = _together(_presences(faces, max_gap_ms))
    if not stretches or not media.has_audio:
        return scores
    voice = _voice(media, stretches)
    for stretch in stretches:
        heard = voice.between(stretch.start_ms, stretch.end_ms)
        if heard.speech.sum() * WINDOW / SAMPLE_RATE_HZ < _MIN_SPEECH_S:
            continue
        for mouth in _watched(media, stretch):
            _score(scores, mouth, heard)
    return scores


def speaker(faces: Faces, rows: NDArray[np.bool_]) -> int | None:
    """The track that speaks in some rows; None where that cannot be told.

    It is told only where half of the rows have a score, of two tracks or more.
    """
    known = rows & np.isfinite(faces.speaking)
    tracks = np.unique(faces.track[known])
    if len(tracks) < 2 or 2 * known.sum() < rows.sum():
        return None
    means = [faces.speaking[known & (faces.track == track)].mean() for track in tracks]
    second, first = np.argsort(means, kind="stable")[-2:]
    if means[first] <= 0 or means[first] - means[second] < MARGIN:
        return None
    return int(tracks[first])


def _presences(faces: Faces, max_gap_ms: int) -> list[_Presence]:
    found = []
    for track in np.unique(faces.track).tolist():
        rows = np.flatnonzero(faces.track == track)
        breaks = np.flatnonzero(np.diff(faces.time_ms[rows]) > max_gap_ms) + 1
        for part in np.split(rows, breaks):
            box = faces.box_px[part] / max(1, faces.frame_px[0])
            found.append(_Presence(track, part, faces.time_ms[part].astype(np.float64), box))
    return found


def _together(presences: Sequence[_Presence]) -> list[_Stretch]:
    """The stretches, in order of time; who joins or leaves while two remain does not end one."""
    edges = sorted(
        [(p.start_ms, 1) for p in presences] + [(p.end_ms, -1) for p in presences],
        key=lambda edge: (edge[0], -edge[1]),
    )
    spans: list[tuple[int, int]] = []
    count, start = 0, 0
    for time_ms, change in edges:
        if count == 1 and change == 1:
            start = time_ms
        if count == 2 and change == -1 and time_ms > start:
            spans.append((start, time_ms))
        count += change
    return [
        _Stretch(start, end, [p for p in presences if p.start_ms < end and p.end_ms > start])
        for start, end in spans
    ]


# --- the sound ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Voice:
    """Per 32 ms window: when it is (its middle, ms), how likely speech, how loud (dB)."""

    time_ms: NDArray[np.float64]
    speech: NDArray[np.float64]
    loudness: NDArray[np.float64]

    def between(self, start_ms: int, end_ms: int) -> _Voice:
        inside = (self.time_ms >= start_ms) & (self.time_ms <= end_ms)
        return _Voice(self.time_ms[inside], self.speech[inside], self.loudness[inside])

    def at(self, time_ms: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Speech and loudness at some times, smoothed over a syllable."""
        return (
            np.interp(time_ms, self.time_ms, _smoothed(self.speech, 3)),
            np.interp(time_ms, self.time_ms, _smoothed(self.loudness, 5)),
        )


def _voice(media: Media, stretches: Sequence[_Stretch]) -> _Voice:
    """What is heard in some stretches; block by block, and no further than the last of them."""
    times, speech, loudness = ([np.empty(0)] for _ in range(3))
    for first, samples in media.audio(_BLOCK_S):
        start_ms, end_ms = (1000 * at / SAMPLE_RATE_HZ for at in (first, first + len(samples)))
        if start_ms > stretches[-1].end_ms:
            break
        if not any(s.start_ms < end_ms and s.end_ms > start_ms for s in stretches):
            continue
        probs = speech_probability(samples)
        windows = np.pad(samples, (0, -len(samples) % WINDOW)).reshape(-1, WINDOW)
        power = np.square(np.nan_to_num(windows), dtype=np.float64).mean(axis=1)
        times.append(start_ms + (np.arange(len(probs)) + 0.5) * 1000 * WINDOW / SAMPLE_RATE_HZ)
        speech.append(probs.astype(np.float64))
        loudness.append(10 * np.log10(power + 1e-9))
    return _Voice(*(np.concatenate(parts) for parts in (times, speech, loudness)))


# --- the mouths ---------------------------------------------------------------------------


def _watched(media: Media, stretch: _Stretch) -> list[_Mouth]:
    """The mouths of a stretch, frames streaming by."""
    mouths = [_Mouth(presence) for presence in stretch.who]
    for frame in media.frames(_PER_S, _FRAME_SIDE_PX, stretch.start_ms, stretch.end_ms):
        grey = cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2GRAY)
        for mouth in mouths:
            _look(mouth, grey, frame.time_ms)
    return mouths


def _look(mouth: _Mouth, grey: NDArray[np.uint8], now: int) -> None:
    presence = mouth.presence
    if not presence.start_ms <= now <= presence.end_ms:
        return
    face = _square(grey, presence.box_at(now) * grey.shape[1])
    if mouth.last is not None and 0 < now - mouth.last[0] <= _MAX_STEP_MS:
        mouth.time_ms.append((now + mouth.last[0]) / 2)
        mouth.moves.append(mouth_motion(mouth.last[1], face))
    mouth.last = (now, face)


def _square(grey: NDArray[np.uint8], box: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A box of a picture as 64×64 px, its edge repeated where the box is beyond it."""
    x, y, width, height = box
    side = max(width, height)
    left, top = x + (width - side) / 2, y + (height - side) / 2
    if side > _SIDE_PX:  # linear sampling alone would skip pixels
        scale = _SIDE_PX / side
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        side, left, top = side * scale, left * scale, top * scale
    step = side / _SIDE_PX
    place = np.array([[step, 0, left], [0, step, top]])
    return cv2.warpAffine(
        grey,
        place,
        (_SIDE_PX, _SIDE_PX),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def mouth_motion(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """ln(mouth / upper face) of the motion between two (64, 64) grey faces, the head's taken off.

    0 where nothing moves; ln 2 and less where only the head does.
    """
    flow = cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 2, 11, 2, 5, 1.1, 0)
    plane, fit = _affine()
    own = flow - plane @ (fit @ flow[_UPPER].reshape(-1, 2))
    size = np.linalg.norm(own, axis=-1)
    return float(np.log((size[_MOUTH].mean() + _STILL_PX) / (size[_UPPER].mean() + _STILL_PX)))


@functools.cache
def _affine() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(64, 64, 3): 1, x and y of every pixel, whose combinations are the affine motions; and their
    least squares on the upper face, (3, pixels of it)."""
    y, x = np.mgrid[0:_SIDE_PX, 0:_SIDE_PX] / _SIDE_PX
    plane = np.stack([np.ones_like(x), x, y], axis=-1).astype(np.float32)
    return plane, np.linalg.pinv(plane[_UPPER].reshape(-1, 3))


def _score(scores: NDArray[np.float32], mouth: _Mouth, heard: _Voice) -> None:
    """Write the scores of one face's rows in one stretch."""
    if len(mouth.moves) < _MIN_STEPS:
        return
    time_ms, moves = np.array(mouth.time_ms), np.array(mouth.moves)
    speech, loudness = heard.at(time_ms)
    together = _standard(_smoothed(moves, 3)) * _standard(loudness)
    values = speech * (moves - np.log(2)) + _LOUDNESS_WEIGHT * together
    rows, times = mouth.presence.rows, mouth.presence.time_ms
    nearest = np.searchsorted((times[1:] + times[:-1]) / 2, time_ms)
    count = np.bincount(nearest, minlength=len(rows))
    sums = np.bincount(nearest, values, minlength=len(rows))
    seen = count > 0
    scores[rows[seen]] = sums[seen] / count[seen]


def _smoothed(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Running mean over an odd number of values, the ends repeated."""
    padded = np.pad(values, width // 2, mode="edge")
    return np.convolve(padded, np.full(width, 1 / width), "valid")


def _standard(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return (values - values.mean()) / (values.std() + 1e-6)
