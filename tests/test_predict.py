"""One backend over a video's segments: what is absent, broken or odd costs only itself."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes import Fake, FakeFace, FakeSample
from tests.small_store import video_row
from tests.store.rows import segments
from vsa_core.backends import Clip, Prediction
from vsa_core.config import NamedModel, Settings
from vsa_core.errors import BackendError, MediaError, SegmentsError
from vsa_core.labels import Modality, Status
from vsa_core.predict import look, made_from_segments, predict
from vsa_core.progress import Steps
from vsa_core.schemas import table_from_rows
from vsa_core.store import Store, TableRef


class Scripted:
    """A backend whose answer is told by the clip's text."""

    id = "scripted@0"
    modality = Modality.TEXT
    dim = 2

    def __init__(self, batch_size: int = 4) -> None:
        self.batch_size = batch_size
        self.batches: list[list[str]] = []

    def read(self, clip: Clip) -> str | None:
        if clip.text == "unreadable":
            raise OSError("decoder said no")
        return None if clip.text == "nothing" else clip.text

    def predict(self, samples: Sequence[Any]) -> Prediction:
        self.batches.append(list(samples))
        if "breaks" in samples:
            raise RuntimeError("shape mismatch")
        n = len(samples)
        sentiment = np.tile(np.array([0.2, 0.3, 0.5], np.float32), (n, 1))
        embedding = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
        for row, text in enumerate(samples):
            if text == "abstains":
                sentiment[row] = np.nan
            if text == "half nan":
                sentiment[row, 0] = np.nan
            if text == "sums to two":
                sentiment[row] *= 2
            if text == "infinite":
                embedding[row, 0] = np.inf
        return Prediction(sentiment, None, embedding)


def clips(*texts: str) -> list[Clip]:
    return [Clip(f"v-{i}", i * 1000, i * 1000 + 900, text) for i, text in enumerate(texts)]


def test_absent_is_absent_and_the_rest_is_in_order() -> None:
    seen = look(Scripted(), clips("a", "nothing", "b"))
    assert [s.status for s in seen] == [Status.OK, Status.ABSENT, Status.OK]
    assert seen[1].sentiment_probs is None
    assert seen[1].embedding is None
    assert seen[2].embedding.tolist() == [2.0, 3.0]


@pytest.mark.parametrize(
    ("bad", "note"),
    [
        ("unreadable", "OSError: decoder said no"),
        ("breaks", "RuntimeError: shape mismatch"),
        ("infinite", "the embedding is not finite"),
        ("half nan", "not probabilities"),
        ("sums to two", "not probabilities"),
    ],
)
def test_a_bad_sample_costs_only_itself(bad: str, note: str) -> None:
    seen = look(Scripted(), clips("a", bad, "b", "c"))
    assert [s.status for s in seen] == [Status.OK, Status.ERROR, Status.OK, Status.OK]
    assert note in seen[1].note
    assert seen[1].sentiment_probs is None
    assert seen[1].embedding is None


def test_a_vote_may_abstain_and_keep_its_embedding() -> None:
    (seen,) = look(Scripted(), clips("abstains"))
    assert seen.status == Status.OK
    assert seen.sentiment_probs is None
    assert seen.embedding is not None


def test_batches_are_never_larger_than_the_backend_asks() -> None:
    backend = Scripted(batch_size=3)
    look(backend, clips(*"abcdefgh"))
    assert [len(batch) for batch in backend.batches] == [3, 3, 2]


def test_no_clips_no_rows() -> None:
    assert look(Scripted(), []) == []


# --- whose fault it is --------------------------------------------------------------------


def out_of_memory() -> list[Exception]:
    """As the machine, torch on a GPU and on a CPU, CTranslate2 and OpenCV say it."""
    import cv2
    import torch

    return [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried …"),
        RuntimeError("CUDA failed with error out of memory"),
        cv2.error("OpenCV(4.10) error: (-4:Insufficient memory) Failed to allocate 9 bytes"),
    ]


@pytest.mark.parametrize("error", out_of_memory(), ids=lambda e: f"{type(e).__name__} {e!s:.9}")
def test_memory_that_is_too_short_for_a_batch_makes_batches_smaller(error: Exception) -> None:
    class Large(Scripted):
        def predict(self, samples: Sequence[Any]) -> Prediction:
            said = super().predict(samples)
            if len(samples) > 3:
                raise error
            # What it says of a sample, wherever in a batch it is.
            said.embedding[:, 0] = [float(text) for text in samples]
            said.embedding[:, 1] = 0
            return said

    backend = Large(batch_size=8)
    seen = look(backend, clips(*map(str, range(20))))
    assert {one.status for one in seen} == {Status.OK}
    assert [one.embedding[0] for one in seen] == list(range(20))
    assert [len(batch) for batch in backend.batches] == [8, 4, *[2] * 10]


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("fails", [lambda n: n == 1, lambda n: n % 3 == 0], ids=["once", "third"])
def test_a_model_that_fails_now_and_then_costs_nothing(
    fails: Callable[[int], bool], batch_size: int
) -> None:
    class Shaky(Scripted):
        def predict(self, samples: Sequence[Any]) -> Prediction:
            said = super().predict(samples)
            if fails(len(self.batches)):
                raise RuntimeError("try again")
            return said

    seen = look(Shaky(batch_size), clips(*"abcdefgh"))
    assert [one.status for one in seen] == [Status.OK] * 8


class PanicException(BaseException):
    """As a library written in Rust raises it, a tokenizer for one."""


@pytest.mark.parametrize("error", [PanicException("index out of bounds"), SystemExit(3)])
def test_a_panic_costs_only_the_clip_that_it_is_about(error: BaseException) -> None:
    class Panics(Scripted):
        def predict(self, samples: Sequence[Any]) -> Prediction:
            if "odd" in samples:
                raise error
            return super().predict(samples)

    seen = look(Panics(), clips("a", "odd", "b"))
    assert [one.status for one in seen] == [Status.OK, Status.ERROR, Status.OK]
    assert seen[1].note == f"unexpected {type(error).__name__}: {error}"


@pytest.mark.parametrize("wish", [KeyboardInterrupt(), GeneratorExit()])
def test_a_wish_to_stop_is_no_failure(wish: BaseException) -> None:
    class Stopped(Scripted):
        def predict(self, samples: Sequence[Any]) -> Prediction:
            raise wish

    with pytest.raises(type(wish)):
        look(Stopped(), clips("a", "b"))


def test_a_decoder_that_fails_once_costs_nothing() -> None:
    class Shaky(Scripted):
        reads = 0

        def read(self, clip: Clip) -> str | None:
            self.reads += 1
            if self.reads == 2:
                raise RuntimeError("try again")
            return clip.text

    assert [one.status for one in look(Shaky(), clips("a", "b", "c"))] == [Status.OK] * 3


MACHINE = [
    *out_of_memory(),
    ImportError("No module named 'tokenizers'", name="tokenizers"),
    FileNotFoundError(errno.ENOENT, "No such file or directory", "model.bin"),
    OSError(errno.EIO, "Input/output error"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
]
ANYBODYS = [
    RuntimeError("shape mismatch"),
    ValueError("told to break on 'I am out of memory'"),
    KeyError("CUDA"),
    OSError("broken data stream when reading image file"),
    AssertionError(),
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A video with six segments."""
    made = Store(tmp_path / "store")
    made.commit("videos", "v1", table_from_rows("videos", [video_row(1, "v1")]), "f")
    made.commit("segments", "v1", segments("v1", 6), "f")
    return made


FAKE = Settings(backends={Modality.TEXT: NamedModel(name="fake-text")})
SAYS = Fake.predict


def predicted(store: Store, settings: Settings = FAKE) -> TableRef:
    [modality] = settings.backends
    return predict(modality, "v1", settings, store, Steps("p"))


def breaking(monkeypatch: pytest.MonkeyPatch, error: Exception, *texts: str) -> list[list[str]]:
    """Makes the model break on these texts, or on all; the batches it is given from now on."""
    asked: list[list[str]] = []

    def says(self: Fake, samples: Sequence[FakeSample]) -> Prediction:
        asked.append([sample.text for sample in samples])
        if not texts or set(texts) & set(asked[-1]):
            raise error
        return SAYS(self, samples)

    monkeypatch.setattr(Fake, "predict", says)
    return asked


def contents(store: Store) -> dict[str, Any]:
    """Refs and rows of all that was predicted, by table."""
    tables = ("predictions", "embeddings", "faces")
    return {
        f"{table}/{part}": [(ref, store.read(ref).to_pylist())]
        for table in tables
        for part in store.parts(table)
        for ref in store.refs(table, part).values()
    }


def statuses(store: Store) -> list[str]:
    return [one for rows in store.scan("predictions") for one in rows["status"].to_pylist()]


def test_a_segment_that_breaks_the_model_is_an_error_that_is_looked_at_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = Store(tmp_path / "other")
    for table in ("videos", "segments"):
        other.commit(table, "v1", store.read(store.find(table, "v1")), "f")
    healthy = predicted(other)
    assert healthy.fingerprint == made_from_segments("f", healthy.part.replace("text-", "text@"))

    breaking(monkeypatch, ValueError("odd"), "words 1", "words 4")
    broken = predicted(store)
    assert statuses(store) == ["ok", "error", "ok", "ok", "error", "ok"]
    assert broken.fingerprint != healthy.fingerprint
    assert store.fresh("predictions", "v1", healthy.fingerprint, part=broken.part) is None

    asked = breaking(monkeypatch, ValueError("odd"), "words 4")
    fewer = predicted(store)
    assert statuses(store) == ["ok"] * 4 + ["error", "ok"]
    assert fewer.fingerprint not in (broken.fingerprint, healthy.fingerprint)
    assert {text for batch in asked for text in batch} == {"words 1", "words 4"}

    monkeypatch.undo()
    assert predicted(store) == healthy
    assert contents(store) == contents(other)
    monkeypatch.setattr(Fake, "read", lambda *_: pytest.fail("it stands"))
    assert predicted(store) == healthy


@pytest.mark.parametrize("error", [*MACHINE, *ANYBODYS], ids=lambda e: f"{type(e).__name__}")
def test_a_model_that_breaks_on_everything_is_told_of(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    breaking(monkeypatch, error)
    with pytest.raises(SegmentsError, match=r"fake-text@\w+ failed at 6 of 6") as caught:
        predicted(store)
    assert not caught.value.worked
    assert type(error).__name__ in str(caught.value)
    assert statuses(store) == ["error"] * 6
    monkeypatch.undo()
    predicted(store)
    assert statuses(store) == ["ok"] * 6


@pytest.mark.parametrize("error", MACHINE, ids=lambda e: f"{type(e).__name__} {e!s:.9}")
def test_what_the_machine_fails_at_is_told_of_and_costs_no_other_row(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    breaking(monkeypatch, error, "words 3")
    with pytest.raises(SegmentsError, match="failed at 1 of 6 segments") as caught:
        predicted(store)
    assert caught.value.worked
    assert statuses(store) == ["ok", "ok", "ok", "error", "ok", "ok"]


def test_a_network_that_does_not_load_is_no_segments_fault(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking(monkeypatch, BackendError("checkpoint x cannot be loaded"))
    with pytest.raises(BackendError, match="cannot be loaded"):
        predicted(store)
    assert statuses(store) == []


def test_a_video_that_cannot_be_watched_is_an_error_and_a_model_that_is_missing_none(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = Settings(backends={Modality.FACE: NamedModel(name="fake-face")})

    def watching(error: Exception) -> None:
        def watch(*_: object) -> None:
            raise error

        monkeypatch.setattr(FakeFace, "watch", watch)

    watching(BackendError("no detector"))
    with pytest.raises(BackendError, match="no detector"):
        predicted(store, faces)
    assert statuses(store) == []
    watching(MediaError("frame 7 does not decode"))
    predicted(store, faces)
    assert statuses(store) == ["error"] * 6
    monkeypatch.undo()
    monkeypatch.setattr(FakeFace, "read", lambda *_: None)
    predicted(store, faces)
    assert statuses(store) == ["absent"] * 6
