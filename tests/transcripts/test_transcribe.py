"""The transcribe stage: captions first, recognition else, and what is noted on the video."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests import bad_media
from vsa_core.config import Settings, load_config
from vsa_core.cues import Cue, Transcript
from vsa_core.ingest import find_videos, ingest
from vsa_core.progress import Steps
from vsa_core.store import Store
from vsa_core.transcripts import transcribe
from vsa_core.videos import read_video


class Listening:
    """A transcriber that counts how often it is asked."""

    id = "listening@1"
    language = "en"

    def __init__(self) -> None:
        self.asked = 0
        self.heard = Transcript((Cue(100, 900, "hello there"),), "asr:listening", "en")

    def transcribe(self, media: Any) -> Transcript:
        self.asked += 1
        return self.heard


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Listening:
    transcriber = Listening()
    monkeypatch.setattr("vsa_core.transcripts.load_transcriber", lambda *_: transcriber)
    return transcriber


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return bad_media.write(tmp_path / "talk.mp4", bad_media.film(25), bad_media.sweep(1))


def taken_in(video: Path, store: Store, settings: Settings) -> str:
    (found,) = find_videos([str(video)], settings, store)
    ingest(found, settings, store)
    return found.video_id


def said(store: Store, video_id: str) -> list[str]:
    ref = store.find("transcripts", video_id)
    return [row["text"] for row in store.read(ref).to_pylist()]


def test_captions_come_first(video: Path, tmp_path: Path, listening: Listening) -> None:
    video.with_suffix(".vtt").write_text("WEBVTT\n\n00:00.000 --> 00:00.900\nGood morning.\n")
    store, settings = Store(tmp_path / "s"), load_config()
    video_id = taken_in(video, store, settings)
    transcribe(video_id, settings, store, Steps("transcribe"))
    assert said(store, video_id) == ["Good morning."]
    assert read_video(store, video_id)["captions_kind"] == "captions"
    assert listening.asked == 0


def test_captions_that_do_not_read_are_noted_and_speech_is_recognised(
    video: Path, tmp_path: Path, listening: Listening
) -> None:
    with video.with_suffix(".vtt").open("wb") as file:
        os.truncate(file.fileno(), 100_000_000)
    store, settings = Store(tmp_path / "s"), load_config()
    video_id = taken_in(video, store, settings)
    transcribe(video_id, settings, store, Steps("transcribe"))
    assert said(store, video_id) == ["hello there"]
    row = read_video(store, video_id)
    assert row["captions_kind"] == "asr:listening"
    assert "its speech is recognised instead" in row["note"]
    assert row["status"] == "ok"


def test_what_was_heard_is_not_recognised_again_when_the_file_moves(
    video: Path, tmp_path: Path, listening: Listening
) -> None:
    store, settings = Store(tmp_path / "s"), load_config()
    video_id = taken_in(video, store, settings)
    transcribe(video_id, settings, store, Steps("transcribe"))
    moved = video.rename(tmp_path / "moved.mp4")
    assert taken_in(moved, store, settings) == video_id
    transcribe(video_id, settings, store, Steps("transcribe"))
    assert listening.asked == 1
    row = read_video(store, video_id)
    assert row["media_path"] == str(moved)
    assert row["captions_kind"] == "asr:listening"


def test_nothing_to_hear_with_is_noted(video: Path, tmp_path: Path) -> None:
    settings = load_config()
    settings = settings.model_copy(
        update={"transcripts": settings.transcripts.model_copy(update={"transcriber": None})}
    )
    store = Store(tmp_path / "s")
    video_id = taken_in(video, store, settings)
    transcribe(video_id, settings, store, Steps("transcribe"))
    assert said(store, video_id) == []
    row = read_video(store, video_id)
    assert row["note"] == "no captions and no transcriber set"
    assert row["captions_kind"] == "none"


# --- languages ----------------------------------------------------------------------------

SPANISH = (
    "Hola a todos, bienvenidos otra vez al canal. Hoy les voy a contar por qué devolví este "
    "teléfono después de una semana. La verdad es que la batería no dura nada y la pantalla se "
    "raya enseguida. ¿Alguna vez les pasó algo parecido? No sé qué decirte, estoy muy enojada."
)
ENGLISH = (
    "Hello everybody, and welcome back to my channel. Today I will tell you why I sent this phone "
    "back after a week. Honestly, the battery is a let-down, and the screen scratches at once. Has "
    "anything like that ever happened to you? I do not know what to say, I am so angry."
)


def languages(store: Store, video_id: str) -> set[str | None]:
    return {row["language"] for row in store.read(store.find("transcripts", video_id)).to_pylist()}


@pytest.mark.parametrize(
    ("name", "header", "info", "text", "language", "note"),
    [
        ("talk.es.vtt", "", "en", "Hola.", "es", None),
        ("talk.es.vtt", "\nLanguage: es-MX", None, "Hola.", "es-MX", None),
        ("talk.vtt", "", "pt_br", "Oi.", "pt-BR", None),
        ("talk.vtt", "", "Portuguese", "Oi.", None, None),
        ("talk.vtt", "", None, SPANISH, "es", None),
        ("talk.vtt", "", None, "Hola.", None, None),
        ("talk.en.vtt", "", "en", ENGLISH, "en", None),
        (
            "talk.en.vtt",
            "",
            "en",
            SPANISH,
            "es",
            "captions tagged 'en' are in 'es' and taken for it",
        ),
        (
            "talk.vtt",
            "",
            "en-US",
            SPANISH,
            "es",
            "captions by the info.json in 'en-US' are in 'es' and taken for it",
        ),
    ],
)
def test_the_language_of_captions(
    video: Path,
    tmp_path: Path,
    name: str,
    header: str,
    info: str | None,
    text: str,
    language: str | None,
    note: str | None,
) -> None:
    cue = f"00:00.000 --> 00:00.900\n{text}\n"
    (video.parent / name).write_text(f"WEBVTT{header}\n\n{cue}", encoding="utf-8")
    video.with_suffix(".info.json").write_text(json.dumps({"language": info}))
    store, settings = Store(tmp_path / "s"), any_language()
    video_id = taken_in(video, store, settings)
    ref = transcribe(video_id, settings, store, Steps("transcribe"))
    assert languages(store, video_id) == {language}
    assert read_video(store, video_id)["note"] == note
    assert transcribe(video_id, settings, store, Steps("transcribe")) == ref


def any_language() -> Settings:
    settings = load_config()
    wanted = settings.transcripts.model_copy(update={"languages": ()})
    return settings.model_copy(update={"transcripts": wanted})


def test_another_language_in_the_info_gives_the_captions_another(
    video: Path, tmp_path: Path, listening: Listening
) -> None:
    video.with_suffix(".vtt").write_text("WEBVTT\n\n00:00.000 --> 00:00.900\nOla.\n")
    store, settings = Store(tmp_path / "s"), load_config()
    for language in ("pt", "gl"):
        video.with_suffix(".info.json").write_text(json.dumps({"language": language}))
        video_id = taken_in(video, store, settings)
        transcribe(video_id, settings, store, Steps("transcribe"))
        assert languages(store, video_id) == {language}


def test_another_name_gives_the_captions_another_language(video: Path, tmp_path: Path) -> None:
    path = video.with_suffix(".pt.vtt")
    path.write_text("WEBVTT\n\n00:00.000 --> 00:00.900\nOla.\n")
    store, settings = Store(tmp_path / "s"), any_language()
    video_id = taken_in(video, store, settings)
    transcribe(video_id, settings, store, Steps("transcribe"))
    path.rename(video.with_suffix(".gl.vtt"))
    transcribe(video_id, settings, store, Steps("transcribe"))
    assert languages(store, video_id) == {"gl"}


def test_with_any_language_the_spoken_one_is_read(video: Path, tmp_path: Path) -> None:
    for language, text in (("de", "Hallo."), ("es", "Hola.")):
        video.with_suffix(f".{language}.vtt").write_text(
            f"WEBVTT\n\n00:00.000 --> 00:00.900\n{text}\n"
        )
    video.with_suffix(".info.json").write_text('{"language": "es"}')
    store, settings = Store(tmp_path / "s"), any_language()
    video_id = taken_in(video, store, settings)
    transcribe(video_id, settings, store, Steps("transcribe"))
    assert said(store, video_id) == ["Hola."]


@pytest.mark.parametrize(
    ("heard", "info", "language"), [("fr", "en", "fr"), (None, "en", "es"), ("en", None, "en")]
)
def test_the_language_of_what_is_heard_is_kept_when_the_file_moves(
    video: Path,
    tmp_path: Path,
    listening: Listening,
    heard: str | None,
    info: str | None,
    language: str,
) -> None:
    listening.heard = Transcript((Cue(100, 900, SPANISH),), "asr:listening", heard)
    listening.language = None
    video.with_suffix(".info.json").write_text(json.dumps({"language": info}))
    store, settings = Store(tmp_path / "s"), load_config()
    video_id = taken_in(video, store, settings)
    transcribe(video_id, settings, store, Steps("transcribe"))
    assert languages(store, video_id) == {language}
    moved = video.rename(tmp_path / "moved.mp4")
    assert taken_in(moved, store, settings) == video_id
    transcribe(video_id, settings, store, Steps("transcribe"))
    assert languages(store, video_id) == {language}
    assert listening.asked == 1


def test_silence_has_no_language_when_it_is_read_again(
    video: Path, tmp_path: Path, listening: Listening
) -> None:
    listening.heard = Transcript((), "asr:listening")
    store, settings = Store(tmp_path / "s"), load_config()
    video_id = taken_in(video, store, settings)
    transcribe(video_id, settings, store, Steps("transcribe"))
    taken_in(video.rename(tmp_path / "moved.mp4"), store, settings)
    transcribe(video_id, settings, store, Steps("transcribe"))
    assert listening.asked == 1
    assert read_video(store, video_id)["note"] == "nobody speaks: nothing to label"
