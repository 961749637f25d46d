"""Make the sample: a small channel of drawn people with synthetic voices, and its true labels.

    .venv/bin/python data/sample/make_sample.py            make everything, then check it
    .venv/bin/python data/sample/make_sample.py --check    only check what is there

The same lines.yaml, code, espeak-ng and PyAV make the same files. Needs espeak-ng (apt-get install
espeak-ng); using the sample does not.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import captions
import check
import cv2
import yaml
from film import Take, rehearse, shoot
from voice import MISSING

HERE = Path(__file__).resolve().parent
MAX_BYTES = 6_000_000
LEAST_FOUND = 0.90
LEAST_RIGHT = 0.60

CHANNELS = {"plain": "Plain Speaking Reviews", "table": "The Kitchen Table"}
SENTIMENT = {
    "anger": "negative", "disgust": "negative", "fear": "negative", "sadness": "negative",
    "neutral": "neutral", "joy": "positive", "surprise+": "positive", "surprise-": "negative",
}  # fmt: skip
FACE_SENTIMENT = {
    "anger": "negative", "disgust": "negative", "fear": "negative", "sadness": "negative",
    "neutral": "neutral", "joy": "positive", "smile": "positive", "delight": "positive",
    None: "",
}  # fmt: skip
COLUMNS = (
    "video", "index", "start_ms", "end_ms", "text", "sentiment", "emotion", "kind",
    "face_sentiment",
)  # fmt: skip


def truth_rows(take: Take) -> list[dict[str, Any]]:
    """What the author meant by each line, one row of truth.csv each."""
    return [
        {
            "video": take.spec["name"],
            "index": index,
            "start_ms": round(line.start_s * 1000),
            "end_ms": round(line.end_s * 1000),
            "text": line.text,
            "sentiment": SENTIMENT[line.meaning],
            "emotion": line.meaning.rstrip("+-"),
            "kind": line.kind,
            "face_sentiment": FACE_SENTIMENT[line.face],
        }
        for index, line in enumerate(take.lines)
    ]


def info(take: Take) -> dict[str, Any]:
    """What yt-dlp's --write-info-json says of a video, as far as a made one has it."""
    spec, name = take.spec, take.spec["name"]
    digest = hashlib.sha256(name.encode()).hexdigest()
    published = datetime.fromisoformat(f"{spec['uploaded']}T{16 + take.seed % 4}:30:00").replace(
        tzinfo=UTC
    )
    video_id = f"made-{digest[:6]}"
    return {
        "id": video_id,
        "title": spec["title"],
        "description": "A made video: drawn people, synthetic voices, written lines (CC0).",
        "channel": CHANNELS[spec["channel"]],
        "channel_id": f"UCmade-{spec['channel']}",
        "uploader": CHANNELS[spec["channel"]],
        "upload_date": published.strftime("%Y%m%d"),
        "timestamp": int(published.timestamp()),
        "duration": round(take.duration_s, 2),
        "language": "en",
        "webpage_url": f"https://example.org/watch?v={video_id}",
        "view_count": 100 + int(digest[6:10], 16) % 20_000,
        "like_count": 5 + int(digest[10:13], 16) % 900,
        "extractor": "made",
    }


def make_clip(spec: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Make a clip with its captions and info file in a folder; its truth rows."""
    cv2.setNumThreads(1)
    take = rehearse(spec)
    rows = truth_rows(take)
    shoot(take, folder / f"{spec['name']}.mp4")
    ending = captions.suffix(spec["captions"])
    if ending:
        cues = [captions.Cue(r["start_ms"], r["end_ms"], r["text"]) for r in rows]
        (folder / f"{spec['name']}{ending}").write_text(
            captions.write(spec["captions"], cues), encoding="utf-8"
        )
    (folder / f"{spec['name']}.info.json").write_text(
        json.dumps(info(take), indent=1) + "\n", encoding="utf-8"
    )
    return rows


def make(specs: Sequence[dict[str, Any]]) -> None:
    """Make every clip and truth.csv, replacing what was there only when all of it is made."""
    if shutil.which("espeak-ng") is None:
        raise SystemExit(MISSING)
    clips = HERE / "clips"
    with tempfile.TemporaryDirectory(dir=HERE) as temporary:
        folder = Path(temporary) / "clips"
        folder.mkdir()
        with ProcessPoolExecutor(2) as pool:
            by_clip = list(pool.map(make_clip, specs, [folder] * len(specs)))
        if clips.exists():
            shutil.rmtree(clips)
        folder.rename(clips)
    with (HERE / "truth.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for rows in by_clip for row in rows)


def faults(readings: Sequence[check.Reading]) -> list[str]:
    """What is wrong with the sample as made, a line each; empty when it is good."""
    expected = sum(r.expected for r in readings)
    found = sum(r.found for r in readings)
    right = sum(r.right for r in readings)
    size = sum(p.stat().st_size for p in HERE.rglob("*") if "__pycache__" not in p.parts)
    tests = {
        f"faces are found in {found} of {expected} frames": found < LEAST_FOUND * expected,
        f"faces read as meant in {right} of {found} frames": right < LEAST_RIGHT * found,
        f"the folder holds {size} bytes, more than {MAX_BYTES}": size > MAX_BYTES,
    }
    return [message for message, wrong in tests.items() if wrong]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only check what is there")
    if not parser.parse_args().check:
        make(yaml.safe_load((HERE / "lines.yaml").read_text(encoding="utf-8")))
    by_clip = check.truth(HERE)
    readings = [
        check.read_clip(HERE / "clips" / f"{name}.mp4", rows) for name, rows in by_clip.items()
    ]
    print(check.table(readings))
    if wrong := faults(readings):
        sys.exit("the sample is not good enough: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
