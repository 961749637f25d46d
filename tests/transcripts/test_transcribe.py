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


# --- another language than the wanted ones ------------------------------------------------


def put(video: Path, name: str, *texts: str) -> Path:
    """Captions of those words beside a video."""
    cues = (f"00:00.{100 * n:03} --> 00:00.{100 * n + 90:03}\n{t}\n" for n, t in enumerate(texts))
    path = video.parent / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("WEBVTT\n\n" + "\n".join(cues), encoding="utf-8")
    return path


def transcribed(
    video: Path, tmp_path: Path, settings: Settings | None = None
) -> tuple[list[tuple[str, str | None]], dict[str, Any]]:
    """What is said and in what language, and the video's row."""
    store, settings = Store(tmp_path / "s"), settings or load_config()
    video_id = taken_in(video, store, settings)
    ref = transcribe(video_id, settings, store, Steps("transcribe"))
    assert transcribe(video_id, settings, store, Steps("transcribe")) == ref
    rows = store.read(ref).to_pylist()
    return [(row["text"], row["language"]) for row in rows], read_video(store, video_id)


@pytest.mark.parametrize("name", ["talk.es.vtt", "talk.Spanish.vtt", "talk.en.vtt", "talk.vtt"])
def test_foreign_captions_are_taken_as_what_they_are_before_speech_is_recognised(
    video: Path, tmp_path: Path, listening: Listening, name: str
) -> None:
    put(video, name, SPANISH)
    words, row = transcribed(video, tmp_path)
    assert words == [(SPANISH, "es")]
    assert "captions are in 'es', no wanted language, and taken as they are" in row["note"]
    assert ("tagged 'en'" in row["note"]) == (name == "talk.en.vtt")
    assert row["captions_kind"] == "captions"
    assert listening.asked == 0


def test_wanted_captions_go_before_foreign_ones_beside_and_inside(
    tmp_path: Path, listening: Listening
) -> None:
    video = within(tmp_path / "talk.mkv")
    put(video, "talk.de.vtt", "Guten Morgen.")
    assert transcribed(video, tmp_path)[0] == [("Guten Morgen.", "de")]
    within(video, ("srt", "eng", "", [(0, 900, b"Good day.")]))
    assert transcribed(video, tmp_path)[0] == [("Good day.", "en")]
    put(video, "talk.en.vtt", "Good morning.")
    words, row = transcribed(video, tmp_path)
    assert (words, row["note"]) == ([("Good morning.", "en")], None)
    put(video, "talk.en.vtt", "♪ la la ♪")  # nothing is said in them
    words, row = transcribed(video, tmp_path)
    assert words == [("hello there", "en")]
    assert "its speech is recognised instead" in row["note"]


@pytest.mark.parametrize(("info", "heard"), [("es", 0), ("en-GB", 1), (None, 1)])
def test_speech_the_transcriber_does_not_understand_is_not_recognised(
    video: Path, tmp_path: Path, listening: Listening, info: str | None, heard: int
) -> None:
    video.with_suffix(".info.json").write_text(json.dumps({"language": info}))
    words, row = transcribed(video, tmp_path)
    assert listening.asked == heard
    assert bool(words) == bool(heard)
    assert (row["captions_kind"] == "none") == (not heard)
    said_so = "spoken in 'es' by the info.json, which the transcriber pocketsphinx does not underst"
    assert (said_so in (row["note"] or "")) == (not heard)


# --- captions inside the video ------------------------------------------------------------


def within(video: Path, *streams: tuple[str, str, str, list[tuple[int, int, bytes]]]) -> Path:
    """The video with captions inside, in the container that its name asks for."""
    return bad_media.write(video, bad_media.film(25), bad_media.sweep(1), captions=streams)


@pytest.mark.parametrize(
    ("name", "codec", "raw"),
    [
        ("talk.mkv", "srt", b"<i>Good</i>\n[Music] day."),
        ("talk.mkv", "ass", b"0,0,Default,,0,0,0,,{\\i1}Good{\\i0}\\Nday."),
        ("talk.mkv", "webvtt", b"<c.x>Good</c> day."),
        ("talk.mp4", "mov_text", b"\x00\x09Good day.\x00\x00\x00\x0cstyl"),
        ("talk.mov", "mov_text", b"\x00\x09Good day."),
    ],
)
def test_captions_inside_the_video_are_read(
    tmp_path: Path, listening: Listening, name: str, codec: str, raw: bytes
) -> None:
    video = within(tmp_path / name, (codec, "eng", "", [(100, 900, raw)]))
    words, row = transcribed(video, tmp_path)
    assert words == [("Good day.", "en")]
    assert (row["captions_kind"], row["note"], listening.asked) == ("captions", None, 0)


def test_the_wanted_stream_is_read_and_none_that_is_forced_or_a_commentary(
    tmp_path: Path, listening: Listening
) -> None:
    streams = [
        ("srt", "ger", "", [(0, 500, b"Guten Tag.")]),
        ("srt", "eng", "Forced", [(0, 500, b"[in Klingon]")]),
        ("srt", "eng", "Director's commentary", [(0, 500, b"Here we cut.")]),
        ("srt", "eng", "SDH", [(0, 500, b"Good day.")]),
    ]
    video = within(tmp_path / "talk.mkv", *streams)
    assert transcribed(video, tmp_path)[0] == [("Good day.", "en")]
    video = within(tmp_path / "other.mkv", *streams[:3])
    assert transcribed(video, tmp_path)[0] == [("Guten Tag.", "de")]
    video = within(tmp_path / "third.mkv", *streams[1:3])
    words, row = transcribed(video, tmp_path)
    assert words == [("hello there", "en")]
    assert row["note"] == "captions inside the video are not read (forced)"
    assert listening.asked == 1


def test_real_captions_inside_a_matroska_file_are_read(
    shared: Path, tmp_path: Path, listening: Listening
) -> None:
    words, _ = transcribed(shared / "faults" / "media" / "m6_embedded_captions.mkv", tmp_path)
    assert words == [("I really love this place, it is wonderful.", None)]
    assert listening.asked == 0


# --- captions that are not taken ----------------------------------------------------------


def test_what_looks_like_captions_and_is_not_taken_is_noted(
    video: Path, tmp_path: Path, listening: Listening
) -> None:
    put(video, "talk.en.forced.vtt", "[in Klingon]")
    put(video, "talk.sub", "x")
    put(video, "talk.lecture notes.srt", "x")
    put(video, "talk.live_chat.json3", "x")
    words, row = transcribed(video, tmp_path)
    assert words == [("hello there", "en")]
    assert row["note"] == (
        "not taken for captions: talk.en.forced.vtt (forced), "
        "talk.lecture notes.srt (no language in its name), talk.sub (.sub is not read)"
    )


def test_captions_of_a_longer_film_are_noted_and_not_labelled(
    video: Path, tmp_path: Path, listening: Listening
) -> None:
    cues = "01:00:01.000 --> 01:00:04.000\nI love it.\n"
    video.with_suffix(".vtt").write_text(f"WEBVTT\n\n{cues}")
    words, row = transcribed(video, tmp_path)
    assert words == [("hello there", "en")]
    assert "lie beyond the end of the video: are they of another one?" in row["note"]


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
