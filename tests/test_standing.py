"""What stands is told from fingerprints: exactly what the stages themselves would skip."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests import bad_media
from tests.fakes import Fake, FakeSample
from vsa_core.backends import Prediction
from vsa_core.config import NamedModel, Settings, load_config
from vsa_core.errors import SegmentsError
from vsa_core.ingest import find_videos, ingest
from vsa_core.labels import Modality
from vsa_core.predict import predict
from vsa_core.progress import Steps
from vsa_core.runs import backend_ids, identify
from vsa_core.segment import segment
from vsa_core.standing import predicted, standing
from vsa_core.store import Store
from vsa_core.transcripts import transcribe

NAMES = ("a", "a.b", "b", "née")  # one is the beginning of another's


@pytest.fixture
def settings() -> Settings:
    """No real model."""
    models = {m: NamedModel(name=f"fake-{m}") for m in (Modality.TEXT, Modality.FACE)}
    base = load_config()
    words = base.transcripts.model_copy(update={"transcriber": None})
    return base.model_copy(update={"backends": models, "transcripts": words})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four videos, with captions, and one with an info.json."""
    made = tmp_path / "videos"
    made.mkdir()
    for number, name in enumerate(NAMES):
        frames = bad_media.film(20 + number)
        bad_media.write(made / f"{name}.mp4", frames, bad_media.sweep(2))
        captions(made, name, f"Line {number}.")
    (made / "b.info.json").write_text(json.dumps({"title": "B"}))
    return made


def captions(folder: Path, name: str, words: str) -> None:
    text = f"WEBVTT\n\n00:00.000 --> 00:01.500\n{words}\n"
    (folder / f"{name}.en.vtt").write_text(text, encoding="utf-8")


def through(folder: Path, settings: Settings, store: Store) -> None:
    """Every stage, over every video."""
    for found in find_videos([str(folder)], settings, store):
        ingest(found, settings, store)
        transcribe(found.video_id, settings, store, Steps("t"))
        segment(found.video_id, settings, store, Steps("s"))
        for modality in settings.backends:
            predict(modality, found.video_id, settings, store, Steps("p"))


def missing(folder: Path, settings: Settings, store: Store) -> set[str]:
    """Names of the videos that need something."""
    found = find_videos([str(folder)], settings, store)
    stand = standing(found, settings, store, backend_ids(settings))
    return {Path(one.path).stem for one in found if one.video_id not in stand}


def test_nothing_stands_before_and_everything_after(
    folder: Path, settings: Settings, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    assert missing(folder, settings, store) == set(NAMES)
    through(folder, settings, store)
    assert missing(folder, settings, Store(store.root)) == set()
    Store(store.root).compact()
    assert missing(folder, settings, Store(store.root)) == set()


def _new_words(folder: Path) -> None:
    captions(folder, "a", "Other words.")


def _no_captions(folder: Path) -> None:
    (folder / "a.en.vtt").unlink()


def _better_captions(folder: Path) -> None:
    (folder / "a.vtt").write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nMore.\n")
    (folder / "a.en.vtt").unlink()


def _in_a_folder(folder: Path) -> None:
    _no_captions(folder)
    (folder / "Subs" / "a").mkdir(parents=True)
    (folder / "Subs" / "a" / "2_English.srt").write_text("1\n00:00,000 --> 00:01,000\nMore.\n")


def _with_the_ending(folder: Path) -> None:
    (folder / "a.en.vtt").rename(folder / "A.mp4.VTT")


def _in_another_language(folder: Path) -> None:
    (folder / "a.en.vtt").rename(folder / "a.German.vtt")


def _new_info(folder: Path) -> None:
    (folder / "a.info.json").write_text(json.dumps({"title": "A"}))


def _touched(folder: Path) -> None:
    os.utime(folder / "a.mp4", (1, 1))


def _other_content(folder: Path) -> None:
    bad_media.write(folder / "a.mp4", bad_media.film(30), bad_media.sweep(3))


@pytest.mark.parametrize(
    "change",
    [
        _new_words,
        _no_captions,
        _better_captions,
        _in_a_folder,
        _with_the_ending,
        _in_another_language,
        _new_info,
        _touched,
        _other_content,
    ],
)
def test_what_changed_does_not_stand_and_the_rest_does(
    folder: Path, settings: Settings, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    store = Store(tmp_path / "store")
    through(folder, settings, store)
    change(folder)
    assert missing(folder, settings, Store(store.root)) == {"a"}
    through(folder, settings, store)
    assert missing(folder, settings, Store(store.root)) == set()


def test_an_error_does_not_stand_and_has_a_run_of_its_own(
    folder: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    says = Fake.predict

    def breaks(self: Fake, samples: Sequence[FakeSample]) -> Prediction:
        if any(sample.text == "Line 2." for sample in samples):
            raise ValueError("odd")
        return says(self, samples)

    with monkeypatch.context() as patched:
        patched.setattr(Fake, "predict", breaks)
        with pytest.raises(SegmentsError):  # the only segment of its video
            through(folder, settings, store)
        assert missing(folder, settings, Store(store.root)) == {"b", "née"}
        (broken,) = [f for f in find_videos([str(folder)], settings, store) if "/b.mp4" in f.path]
        before = identify(store.location, [broken.video_id], "m", settings)
    through(folder, settings, store)
    assert missing(folder, settings, Store(store.root)) == set()
    assert identify(store.location, [broken.video_id], "m", settings) != before


def test_other_settings_stand_on_nothing(folder: Path, settings: Settings, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    through(folder, settings, store)
    cut = settings.segments.model_copy(update={"max_ms": 9_000})
    more = {**settings.backends, Modality.AUDIO: NamedModel(name="fake-audio")}
    for other in (
        settings.model_copy(update={"segments": cut}),
        settings.model_copy(update={"backends": more}),
    ):
        assert missing(folder, other, Store(store.root)) == set(NAMES)
    assert len(predicted(None, settings, store)) == len(NAMES)
    assert predicted(None, settings.model_copy(update={"backends": more}), store) == []


def test_captions_inside_a_video_stand(folder: Path, settings: Settings, tmp_path: Path) -> None:
    stream = ("srt", "eng", "", [(0, 900, b"Good day.")])
    bad_media.write(folder / "c.mkv", bad_media.film(25), captions=[stream])
    store = Store(tmp_path / "store")
    through(folder, settings, store)
    assert missing(folder, settings, Store(store.root)) == set()
    words = settings.transcripts.model_copy(update={"use_captions": False})
    without = settings.model_copy(update={"transcripts": words})
    assert missing(folder, without, Store(store.root)) == {*NAMES, "c"}


def test_captions_that_do_not_read_stand_as_what_was_done_instead(
    folder: Path, settings: Settings, tmp_path: Path
) -> None:
    (folder / "b.en.vtt").write_bytes(b"WEBVTT\n\nnothing of the sort")
    store = Store(tmp_path / "store")
    through(folder, settings, store)
    assert missing(folder, settings, Store(store.root)) == set()


def test_a_folder_is_listed_once_however_many_videos(
    folder: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    through(folder, settings, store)
    found = find_videos([str(folder)], settings, store)
    listed: list[object] = []
    scandir = os.scandir
    monkeypatch.setattr(
        "vsa_core.transcripts.caption_files.os.scandir",
        lambda path: listed.append(path) or scandir(path),
    )
    assert len(standing(found, settings, Store(store.root), backend_ids(settings))) == len(NAMES)
    assert listed.count(folder) == 1
