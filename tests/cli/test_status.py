"""`vsa status`: counts, runs, failures, sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.small_store import TEXT, at, review, run_row, segment_id, small_store
from vsa_core import query
from vsa_core.cli import main
from vsa_core.cli.status import summary
from vsa_core.errors import StoreError
from vsa_core.schemas import TABLES, table_from_rows
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


def test_what_the_text_model_does_not_speak_is_told(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store")
    assert summary(store)["foreign"] == {}
    part = store.part_of(TEXT)
    ref = store.find("predictions", "v02", part=part)
    assert ref is not None
    [row] = store.read(ref).to_pylist()
    row.update(status="foreign", sentiment_probs=None, note="text-a speaks en, not de")
    older = {**row, "backend": "older-text@1"}  # which no current label was made from
    for said, of in ((row, part), (older, "older-text-1")):
        store.commit("predictions", "v02", table_from_rows("predictions", [said]), "f", part=of)
    assert summary(store)["foreign"] == {"en": 1}


def test_a_store_before_its_first_run_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "store")
    (store.root / "videos").mkdir(parents=True)
    assert main(["status", "--store", str(store.root)]) == 0
    assert "videos    0" in capsys.readouterr().out
    assert main(["status", "--json", "--store", str(store.root)]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == 0


def test_what_keeping_the_sure_labels_comes_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = small_store(tmp_path / "store")
    said = query.ask(store, "SELECT * FROM label_history WHERE run_id = 'r2'")
    rows = {row["segment_id"]: row for row in said.rows()}
    sure = [row["confidence"] for row in rows.values() if row["confidence"] is not None]
    found = summary(store)["by_confidence"]
    assert [row["confidence"] for row in found] == [0, 0.5, 0.6, 0.7, 0.8, 0.9]
    for row in found:
        kept = [c for c in sure if c >= row["confidence"]]
        assert row["coverage"] == pytest.approx(len(kept) / 5)
        assert row["expected"] == (pytest.approx(sum(kept) / len(kept)) if kept else None)
    # The store's one review of a sentiment contradicts the run; another one agrees.
    assert (found[0]["reviewed"], found[0]["reviews"]) == (0, 1)
    right = rows[segment_id("v01", 0)]
    decision = review("p3", "v01", 0, 8, right["sentiment"], None)
    store.commit("reviews", "b3", table_from_rows("reviews", [decision]), "f")
    again = summary(store)["by_confidence"]
    assert (again[0]["reviewed"], again[0]["reviews"]) == (0.5, 2)
    assert main(["status", "--store", str(store.root)]) == 0
    assert "expected right  reviewed right  reviews" in capsys.readouterr().out


def test_reviews_that_a_run_learnt_from_do_not_check_it(tmp_path: Path) -> None:
    """Reviews of days 6 and 7: a run that began on day 5 did not see them, one on day 9 did."""
    store = small_store(tmp_path / "store")
    for day, reviews in ((5, 1), (9, 0)):
        row = run_row("r2", day, model_id="m", model_card="models/m/card.json")
        store.commit("runs", "r2", table_from_rows("runs", [row]), f"day {day}")
        assert summary(store)["by_confidence"][0]["reviews"] == reviews


def test_a_runs_own_estimate_and_warnings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = small_store(tmp_path / "store")
    estimate = {"value": 0.812, "low": 0.75, "high": 0.875, "level": 0.95,
                "method": "so and so", "reviewed": 100}  # fmt: skip
    knowing = {"targets": {"sentiment": {"estimate": estimate}}, "warnings": ["mind the gap"]}
    row = run_row("r2", 5, metrics=json.dumps({"knowing": knowing}))
    store.commit("runs", "r2", table_from_rows("runs", [row]), "again")
    assert summary(store)["estimates"] == {"sentiment": estimate}
    assert main(["status", "--store", str(store.root)]) == 0
    out = capsys.readouterr().out
    assert "sentiment: accuracy about 0.812 (0.750 to 0.875): so and so\n" in out
    assert "warning: mind the gap\n" in out


def test_sentiments_that_shift_from_run_to_run_are_told(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store")
    [some] = query.ask(
        store, f"SELECT * FROM label_history WHERE segment_id = '{segment_id('v01', 0)}' "
        "AND run_id = 'r2'"
    ).rows()  # fmt: skip

    def run(run_id: str, day: int, positive: int) -> None:
        """Ten videos of twenty segments each."""
        rows = [
            {**some, "run_id": run_id, "video_id": f"w{v}", "segment_id": f"w{v}-{i}",
             "sentiment": "positive" if i < positive + v % 3 else "negative"}
            for v in range(10) for i in range(20)
        ]  # fmt: skip
        table = table_from_rows("labels", rows)
        store.commit("labels", "0000", table, "f", part=run_id)
        found = run_row(run_id, day)
        store.commit("runs", run_id, table_from_rows("runs", [found]), "f")

    run("r5", 10, 5)
    run("r6", 11, 5)
    assert summary(store)["warnings"] == []
    run("r7", 12, 14)
    [line] = summary(store)["warnings"]
    assert "since the last run" in line
    assert at(12).isoformat() == summary(store)["last_runs"][0]["finished_at"]


def test_predictions_are_let_be_where_every_run_counted_no_foreign_segment(
    tmp_path: Path,
) -> None:
    store = small_store(tmp_path / "store")
    for path in (store.root / "predictions").rglob("*.parquet"):
        path.write_bytes(path.read_bytes()[:50])  # whoever reads it is told
    with pytest.raises(StoreError, match="predictions"):
        summary(store)
    for run_id, day in (("r1", 3), ("r2", 5)):
        row = run_row(run_id, day, counts=json.dumps({"foreign": 0}))
        store.commit("runs", run_id, table_from_rows("runs", [row]), "counted")
    assert summary(store)["foreign"] == {}
    row = run_row("r1", 3, counts=json.dumps({"foreign": 2}))
    store.commit("runs", "r1", table_from_rows("runs", [row]), "counted")
    with pytest.raises(StoreError, match="predictions"):
        summary(store)
