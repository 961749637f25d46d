"""The sample as it ships: what it must hold, and that its faces are found and read as meant."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import pytest

from vsa_core.labels import EMOTIONS, SENTIMENTS

Row = dict[str, str]


@pytest.fixture(scope="module")
def rows(sample_dir: Path) -> list[Row]:
    with (sample_dir / "truth.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def clips(sample_dir: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted((sample_dir / "clips").glob("*.mp4"))}


@pytest.fixture(scope="module")
def check(sample_dir: Path) -> ModuleType:
    """The check make_sample.py ends with."""
    spec = importlib.util.spec_from_file_location("sample_check", sample_dir / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def of_clip(rows: list[Row], name: str) -> list[Row]:
    return [row for row in rows if row["video"] == name]


def info(path: Path) -> dict[str, Any]:
    return json.loads(path.with_suffix(".info.json").read_text(encoding="utf-8"))


def caption_file(path: Path) -> Path | None:
    found = [p for p in path.parent.iterdir()
             if p.name in {path.stem + end for end in (".vtt", ".en.vtt", ".srt")}]  # fmt: skip
    assert len(found) <= 1
    return found[0] if found else None


def spoken_words(captions: str) -> list[str]:
    """The words of a caption file; of a rolling one only the lines that build up."""
    blocks = [b.splitlines() for b in re.split(r"\n\n+", captions) if "-->" in b]
    texts = [line for block in blocks for line in block[_timing(block) + 1 :]]
    if "<c>" in captions:
        held = (text for text in texts if "<c>" in text)
        texts = [re.sub(r"<[^>]*>", "", text) for text in held]
    return " ".join(texts).split()


def _timing(block: list[str]) -> int:
    return next(number for number, line in enumerate(block) if "-->" in line)


def test_it_is_a_channel_of_enough_clips_lines_and_few_bytes(
    sample_dir: Path, clips: dict[str, Path], rows: list[Row]
) -> None:
    assert len(clips) >= 12
    assert len(rows) >= 120
    assert {row["video"] for row in rows} == set(clips)
    files = [p for p in sample_dir.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert sum(p.stat().st_size for p in files) < 6_000_000


def test_truth_uses_the_label_space_and_every_label_of_it(rows: list[Row]) -> None:
    assert {row["sentiment"] for row in rows} == set(SENTIMENTS)
    assert {row["emotion"] for row in rows} == set(EMOTIONS)
    assert {row["face_sentiment"] for row in rows} == {*SENTIMENTS, ""}
    implied = {"joy": "positive", "neutral": "neutral"} | dict.fromkeys(
        ("anger", "disgust", "fear", "sadness"), "negative"
    )
    for row in rows:
        assert row["sentiment"] == implied.get(row["emotion"], row["sentiment"])
    assert len({row["text"] for row in rows}) == len(rows)


def test_every_situation_of_a_real_channel_is_there(rows: list[Row]) -> None:
    count = {kind: sum(r["kind"] == kind for r in rows) for kind in {r["kind"] for r in rows}}
    assert count["agree"] >= 0.4 * len(rows)
    assert 0.10 * len(rows) <= count["irony"] <= 0.20 * len(rows)
    for kind in ("deadpan", "no_face", "no_captions", "two_faces", "portrait",
                 "other_frame_rate", "long_silence", "looks_away"):  # fmt: skip
        assert count[kind] >= 1, kind
    ironic = [r for r in rows if r["kind"] == "irony"]
    assert {"negative", "positive"} == {r["sentiment"] for r in ironic}
    assert all(r["face_sentiment"] == r["sentiment"] for r in ironic)
    faceless = [r for r in rows if not r["face_sentiment"]]
    assert {r["kind"] for r in faceless} == {"no_face", "looks_away"}


def test_times_lie_inside_the_clips_and_leave_pauses(
    clips: dict[str, Path], rows: list[Row]
) -> None:
    silences = []
    for name, path in clips.items():
        with av.open(str(path)) as container:
            assert container.duration is not None
            duration_ms = container.duration / 1000
        assert info(path)["duration"] == pytest.approx(duration_ms / 1000, abs=0.2)
        lines = of_clip(rows, name)
        assert [int(r["index"]) for r in lines] == list(range(len(lines)))
        ends = [0, *(int(r["end_ms"]) for r in lines)]
        starts = [*(int(r["start_ms"]) for r in lines), int(duration_ms)]
        pauses = [start - end for start, end in zip(starts, ends, strict=True)]
        assert min(pauses[1:-1]) >= 900
        assert pauses[-1] >= 0
        assert all(1500 <= int(r["end_ms"]) - int(r["start_ms"]) <= 6000 for r in lines)
        silences.append(max(pauses))
    assert max(silences) >= 10_000


def test_clips_decode_and_differ_in_rate_and_shape(clips: dict[str, Path]) -> None:
    rates, shapes = set(), set()
    for path in clips.values():
        with av.open(str(path)) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
            assert audio.codec_context.channels == 1
            frame = next(container.decode(video))
            rates.add(video.average_rate)
            turned = frame.rotation % 180 != 0
            shapes.add((frame.width < frame.height) != turned)
            container.seek(0)
            assert sum(1 for _ in container.demux(video)) > video.average_rate * 20
    assert len(rates) >= 3
    assert shapes == {True, False}


def test_captions_hold_the_lines_in_several_forms(clips: dict[str, Path], rows: list[Row]) -> None:
    endings, rolling, without = set(), 0, []
    for name, path in clips.items():
        file = caption_file(path)
        if file is None:
            without.append(name)
            continue
        endings.add(file.name.removeprefix(name))
        text = file.read_text(encoding="utf-8")
        rolling += "<c>" in text
        lines = of_clip(rows, name)
        assert spoken_words(text) == " ".join(r["text"] for r in lines).split(), name
        assert f"{int(lines[0]['start_ms']) % 1000:03} -->" in text
    assert endings == {".vtt", ".en.vtt", ".srt"}
    assert rolling >= 1
    assert {r["kind"] for name in without for r in of_clip(rows, name)} == {"no_captions"}


def test_info_files_describe_two_channels_over_weeks(clips: dict[str, Path]) -> None:
    infos = [info(path) for path in clips.values()]
    assert len({i["id"] for i in infos}) == len(infos)
    assert len({(i["channel"], i["channel_id"]) for i in infos}) == 2
    dates = sorted(i["upload_date"] for i in infos)
    assert len(set(dates)) == len(dates)
    span_s = max(i["timestamp"] for i in infos) - min(i["timestamp"] for i in infos)
    assert 7 * 7 * 86_400 <= span_s <= 9 * 7 * 86_400
    assert all(i["webpage_url"].startswith("https://example.org/") for i in infos)
    assert all(i["language"] == "en" and i["view_count"] > 0 for i in infos)


@pytest.mark.parametrize(
    "name", ["the-worst-hotel", "after-the-film", "first-week-in-three", "garden-in-numbers"]
)
def test_faces_are_found_and_read_as_meant(
    name: str, clips: dict[str, Path], rows: list[Row], check: ModuleType
) -> None:
    reading = check.read_clip(clips[name], of_clip(rows, name))
    if name == "garden-in-numbers":
        assert (reading.expected, reading.false_alarms) == (0, 0)
        return
    assert reading.expected >= 40
    assert reading.found >= 0.9 * reading.expected
    assert reading.right >= 0.6 * reading.found
