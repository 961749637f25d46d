"""The transcribe stage: captions first, recognition else, and what is noted on the video."""

from __future__ import annotations

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

    def transcribe(self, media: Any) -> Transcript:
        self.asked += 1
        return Transcript((Cue(100, 900, "hello there"),), "asr:listening", "en")


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
