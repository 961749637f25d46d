"""A model on real clips: what it says, what it leaves open, and from many threads at once."""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.small_supervised import NEEDS_GPU, network
from vsa_core.cli import OK, SOME_FAILED, classify
from vsa_core.errors import BackendError, MediaError, UsageError
from vsa_core.supervised.package import save_package
from vsa_core.supervised.predictor import Predictor, Said
from vsa_core.supervised.utterances import Utterance


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    net, recipe = network(folder / "checkpoint")
    save_package(folder / "model", net, recipe, {})
    (folder / "checkpoint").rename(folder / "gone")
    return folder / "model"


@pytest.fixture(scope="module")
def predictor(model: Path) -> Predictor:
    return Predictor.load(model, device="cpu")


@pytest.fixture(scope="module")
def clips(sample_dir: Path) -> list[Path]:
    return sorted((sample_dir / "clips").glob("*.mp4"))[:3]


def _near(one: Said, other: Said, within: float = 1e-5) -> bool:
    assert one.probs is not None
    assert other.probs is not None
    return all(
        abs(one.probs[target][name] - p) < within
        for target, probs in other.probs.items()
        for name, p in probs.items()
    )


def test_one_utterance_of_a_clip(predictor: Predictor, clips: list[Path]) -> None:
    said = predictor.predict(clips[0], "what a lovely day", 500, 2500)
    assert said.present == {"text": True, "video": True, "audio": True}
    assert said.notes is None
    assert said.probs is not None
    assert [len(probs) for probs in said.probs.values()] == [3, 7]
    for probs in said.probs.values():
        assert sum(probs.values()) == pytest.approx(1, abs=1e-5)
    assert said.label("sentiment") in ("negative", "neutral", "positive")
    # Each of text, place and video counts.
    assert not _near(predictor.predict(clips[0], "i hate this", 500, 2500), said)
    assert not _near(predictor.predict(clips[0], "what a lovely day", 2500, 4000), said)
    assert not _near(predictor.predict(clips[1], "what a lovely day", 500, 2500), said)


def test_without_text_it_is_another_answer_and_says_so(
    predictor: Predictor, clips: list[Path]
) -> None:
    said = predictor.predict(clips[0])
    assert said.present == {"text": False, "video": True, "audio": True}
    assert said.probs is not None


def test_many_are_as_one_by_one_and_what_has_nothing_abstains(
    predictor: Predictor, clips: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    many = [
        Utterance("a", "a", text="what a day", media=clips[0], start_ms=0, end_ms=2000),
        Utterance("b", "b", media=broken, start_ms=0, end_ms=2000),
        Utterance("c", "c", text="i hate this", media=broken, start_ms=0, end_ms=2000),
        Utterance("d", "d", media=clips[1], start_ms=1000, end_ms=2000),
    ]
    said = predictor.predict_many(many)
    assert [one.id for one in said] == ["a", "b", "c", "d"]
    assert said[1].probs is None
    assert said[1].label("emotion") is None
    assert said[1].notes is not None
    assert "broken.mp4" in said[1].notes
    assert said[2].present == {"text": True, "video": False, "audio": False}
    for row in (0, 2, 3):
        assert _near(predictor.predict_many([many[row]])[0], said[row], within=1e-5)
    assert predictor.predict_many([]) == []


@NEEDS_GPU
def test_a_gpu_says_what_the_cpu_says(model: Path, predictor: Predictor, clips: list[Path]) -> None:
    on_gpu = Predictor.load(model, device="auto")
    asked = [
        Utterance(f"{at}", f"{at}", text=text, media=clip, start_ms=0, end_ms=1500)
        for at, (clip, text) in enumerate(
            zip(clips, ("what a day", None, "i hate this"), strict=True)
        )
    ]
    for one, other in zip(on_gpu.predict_many(asked), predictor.predict_many(asked), strict=True):
        assert one.present == other.present
        assert _near(one, other, within=1e-2)


def test_many_threads_get_what_one_gets(predictor: Predictor, clips: list[Path]) -> None:
    asked = [(clip, text) for clip in clips for text in ("what a day", None)]
    alone = [predictor.predict(clip, text, 0, 1500) for clip, text in asked]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda a: predictor.predict(*a, 0, 1500), asked))
    assert all(map(_near, together, alone))


def test_what_cannot_be_answered_is_one_line(
    predictor: Predictor, clips: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(MediaError, match=r"gone.mp4"):
        predictor.predict(tmp_path / "gone.mp4", "what a day")
    with pytest.raises(MediaError, match="has nothing from 9000000"):
        predictor.predict(clips[0], start_ms=9_000_000)
    with pytest.raises(BackendError, match="no model"):
        Predictor.load(tmp_path)


def _args(model: Path, videos: list[Path], **changed: Any) -> argparse.Namespace:
    given = {"model": model, "videos": videos, "text": None, "start_ms": None, "end_ms": None}
    return argparse.Namespace(**given | {"json": False, "device": "cpu"} | changed)


def test_the_command_says_one_line_for_each_video(
    model: Path, clips: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(clips[0].read_bytes()[:200])
    videos = [clips[0], torn, clips[1]]
    assert classify.run(_args(model, videos)) == SOME_FAILED
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "; from video, audio" in lines[0]
    assert "torn.mp4" in lines[1]
    with pytest.raises(UsageError, match=r"gone\.mp4' does not exist"):
        classify.run(_args(model, [clips[0], tmp_path / "gone.mp4"]))
    assert classify.run(_args(model, [clips[0]], text="what a day", json=True)) == OK
    said = json.loads(capsys.readouterr().out)
    assert said["present"] == {"text": True, "video": True, "audio": True}
    assert said["sentiment"] == max(said["sentiment_probs"], key=said["sentiment_probs"].get)
    with pytest.raises(UsageError, match="one VIDEO"):
        classify.run(_args(model, clips, text="what a day"))


def test_a_models_temperature_softens_what_it_says(tmp_path: Path, clips: list[Path]) -> None:
    net, recipe = network(tmp_path / "checkpoint")
    said = {}
    for warm in (1.0, 3.0):
        about = {"temperature": {"sentiment": warm, "emotion": 1.0}}
        save_package(tmp_path / f"{warm}", net, recipe, about)
        said[warm] = Predictor.load(tmp_path / f"{warm}").predict(clips[0], "a lovely day").probs
    cold, soft = said[1.0], said[3.0]
    assert cold is not None
    assert soft is not None
    assert soft["emotion"] == pytest.approx(cold["emotion"])
    odds = {name: p ** (1 / 3) for name, p in cold["sentiment"].items()}
    expected = {name: p / sum(odds.values()) for name, p in odds.items()}
    assert soft["sentiment"] == pytest.approx(expected, rel=1e-4)
    save_package(tmp_path / "odd", net, recipe, {"temperature": {"sentiment": "hot"}})
    with pytest.raises(BackendError, match="temperature 'hot' of sentiment"):
        Predictor.load(tmp_path / "odd")
