"""`vsa status`: counts, runs, failures, sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.small_store import small_store
from vsa_core.cli import main
from vsa_core.schemas import TABLES
from vsa_core.store import Store


def test_the_summary_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = small_store(tmp_path / "store")
    assert main(["status", "--json", "--store", str(store.root)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["videos"], found["videos_failed"], found["segments"]) == (4, 1, 5)
    assert found["duration_ms"] == 3 * 70_000
    assert found["labels"] == 5
    assert found["labels_by_sentiment"] == {"negative": 3, "null": 1, "positive": 1}
    assert found["labels_by_origin"] == dict.fromkeys(
        ["consensus", "fusion", "human", "none", "single"], 1
    )
    assert found["labels_by_agreement"] == {"disagree": 2, "absent": 1, "agree": 1, "single": 1}
    assert found["reviews"] == 2
    assert [run["run_id"] for run in found["last_runs"]] == ["r2", "r1"]
    assert found["last_runs"][0]["finished_at"] == "2026-01-05T12:00:00+00:00"
    assert found["failures"] == [
        {
            "video_id": "v04",
            "title": "Video 4",
            "media_path": "/clips/v04.mp4",
            "reason": "it is empty (0 bytes)",
        }
    ]
    assert found["tables"].keys() == TABLES.keys()
    on_disk = sum(path.stat().st_size for path in (store.root / "labels").rglob("*.parquet"))
    assert found["tables"]["labels"] == {"files": 3, "bytes": on_disk}


def test_the_summary_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = small_store(tmp_path / "store")
    assert main(["status", "--store", str(store.root)]) == 0
    out = capsys.readouterr().out
    assert "videos    4 (0.06 h, 1 failed)" in out
    assert "3 negative, 1 null, 1 positive" in out
    assert "/clips/v04.mp4: it is empty (0 bytes)" in out
    assert "r2" in out


def test_a_store_before_its_first_run_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "store")
    (store.root / "videos").mkdir(parents=True)
    assert main(["status", "--store", str(store.root)]) == 0
    assert "videos    0" in capsys.readouterr().out
    assert main(["status", "--json", "--store", str(store.root)]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == 0
