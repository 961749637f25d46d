"""`vsa status`: counts, runs, failures, sizes."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from tests.small_store import TEXT, at, review, run_row, segment_id, small_store
from vsa_core import query
from vsa_core.cli import main
from vsa_core.cli.screen import command, write_parts
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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_terminal_breaks_lines_between_words(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    path = f"/clips/{'long-name' * 12}.mp4"
    line = f"1 failed: {path}: it ends early, no-one \x1b[31mknows why, so {'fetch it again ' * 9}"
    terminal, pipe = Terminal(), io.StringIO()
    for out in (terminal, pipe):
        write_parts(out, [("Left out", [line, "and another"])])
    told = terminal.getvalue()
    assert told.split() == pipe.getvalue().split()
    assert len(pipe.getvalue().splitlines()) == 2
    assert all(len(row) <= columns or path in row for row in told.splitlines())
    assert all(row.startswith("          ") for row in told.splitlines()[1:])
    assert "\x1b" not in told


def test_commands_can_be_typed_as_they_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/opt/env/bin/vsa", "status"])
    assert command("status", "a b") == "/opt/env/bin/vsa status --store 'a b'"
    monkeypatch.setattr("sys.argv", ["pytest"])
    assert command("status", "store") == "vsa status"


def test_the_summary_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = small_store(tmp_path / "store")
    assert main(["status", "--store", str(store.root)]) == 0
    out = capsys.readouterr().out
    assert f"{store.location}: 4 videos of 0.06 h\n" in out
    assert "Labelled  4 of 5 segments in 2 of 4 videos\n          3 negative, 1 positive\n" in out
    assert "Votes     2 disagree, 1 absent, 1 agree, 1 single\n" in out
    assert "Decided   1 by consensus, 1 by fusion, 1 by human, 1 by single\n" in out
    assert re.search(r"^On disk   (?!0\.0)\d+(\.\d MB| kB) in \d+ files$", out, re.MULTILINE)
    assert "1 failed: /clips/v04.mp4: it is empty (0 bytes)\n" in out
    assert "1 segment without a label, as no model votes: v03.mp4\n" in out
    assert "2026-01-05 12:00  partial" in out
    assert f"vsa query @not_labelled --store {store.root}\n" in out
    assert " 0 " not in out  # no rows of zeros


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
    assert capsys.readouterr().out == (
        f"{store.location}: 0 videos\n\nLabelled  nothing: no video was found\n"
    )
    assert main(["status", "--json", "--store", str(store.root)]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == 0


def report(value: float | None, confidence: float) -> str:
    """The metrics of a run whose sentiments are estimated to be right so often."""
    estimate = {"value": value, "low": None, "high": None, "level": 0.95, "method": "so",
                "reviewed": 0}  # fmt: skip
    target = {"estimate": estimate, "mean_confidence": confidence}
    return json.dumps({"knowing": {"targets": {"sentiment": target}}})


@pytest.mark.parametrize(
    ("value", "told"),
    [(None, False), (0.55, False), (0.725, True)],
    ids=["not known", "not calibrated", "calibrated"],
)
def test_what_keeping_the_sure_labels_comes_to(
    value: float | None, told: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Confidences are told as shares right only where they are the run's estimate of that."""
    store = small_store(tmp_path / "store")
    said = query.ask(store, "SELECT * FROM label_history WHERE run_id = 'r2'")
    rows = {row["segment_id"]: row for row in said.rows()}
    sure = [row["confidence"] for row in rows.values() if row["confidence"] is not None]
    row = run_row("r2", 5, metrics=report(value, sum(sure) / len(sure)))
    store.commit("runs", "r2", table_from_rows("runs", [row]), "told")
    found = summary(store)["by_confidence"]
    assert [row["confidence"] for row in found] == [0, 0.5, 0.6, 0.7, 0.8, 0.9]
    for row in found:
        kept = [c for c in sure if c >= row["confidence"]]
        assert row["coverage"] == pytest.approx(len(kept) / 5)
        expected = pytest.approx(sum(kept) / len(kept)) if kept and told else None
        assert row["expected"] == expected
    # The store's one review of a sentiment contradicts the run; another one agrees.
    assert (found[0]["reviewed"], found[0]["reviews"]) == (0, 1)
    right = rows[segment_id("v01", 0)]
    decision = review("p3", "v01", 0, 8, right["sentiment"], None)
    store.commit("reviews", "b3", table_from_rows("reviews", [decision]), "f")
    again = summary(store)["by_confidence"]
    assert (again[0]["reviewed"], again[0]["reviews"]) == (0.5, 2)
    assert main(["status", "--store", str(store.root)]) == 0
    out = capsys.readouterr().out
    assert ("expected right  reviewed right  reviews" in out) is told
    assert "reviewed right  reviews" in out


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


def of_video(store: Store, table: str, video_id: str, **changed: object) -> None:
    """Change the first row that stands under a video, which the file then holds alone."""
    ref = store.find(table, video_id)
    assert ref is not None
    row = {**store.read(ref).to_pylist()[0], **changed}
    store.commit(table, video_id, table_from_rows(table, [row]), "changed")


def kinds(store: Store) -> dict[str, int]:
    return {kind["kind"]: kind["count"] for kind in summary(store)["left_out"]}


def test_what_is_left_out_is_counted_by_kind_and_the_query_lists_it(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store")
    of_video(store, "videos", "v01", note="captions of another language are ignored")
    of_video(store, "videos", "v02", note="x; ends early: after 5 s of 9 s")
    store.commit("segments", "v05", table_from_rows("segments", []), "f")
    for number, (video_id, spoken) in enumerate({"v05": False, "v06": True}.items(), start=5):
        of_video(store, "videos", "v03")
        row = store.read(store.find("videos", "v03")).to_pylist()[0]
        row |= {"video_id": video_id, "media_path": f"/clips/{number}.mp4", "note": None}
        store.commit("videos", video_id, table_from_rows("videos", [row]), "f")
        if spoken:
            some = store.read(store.find("segments", "v03")).to_pylist()
            some[0] |= {"video_id": video_id, "segment_id": f"{video_id}-0-1"}
            store.commit("segments", video_id, table_from_rows("segments", some), "f")
    ref = store.find("predictions", "v02", part=store.part_of(TEXT))
    assert ref is not None
    [row] = store.read(ref).to_pylist()
    row |= {"status": "error", "sentiment_probs": None, "note": "it broke"}
    store.commit("predictions", "v02", table_from_rows("predictions", [row]), "f",
                 part=store.part_of(TEXT))  # fmt: skip
    expected = {
        "failed": 1, "no_speech": 1, "unfinished": 1, "incomplete": 1, "error_text": 1,
        "no_vote": 1, "noted": 1,
    }  # fmt: skip
    for joined in (False, True):
        if joined:
            store.compact()
        assert kinds(store) == expected
    shipped = query.shipped_query("not_labelled")
    listed = list(query.ask(store, shipped.sql, shipped.defaults).rows())
    assert {row["what"]: row["segments"] or 1 for row in listed} == expected
    assert [row["why"] for row in listed if row["what"] == "error_text"] == ["it broke"]


def test_a_failure_counts_once_whatever_its_name(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store")
    of_video(store, "videos", "v04", media_path="/clips/a: b.mp4")
    row = run_row("r2", 5, failures=["/clips/a: b.mp4: it is empty (0 bytes)"])
    store.commit("runs", "r2", table_from_rows("runs", [row]), "again")
    assert kinds(store)["failed"] == 1


def test_what_was_fetched_is_named_by_its_address(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store")
    address = "https://cast.example/1.mp4"
    for video_id in ("v03", "v04"):  # one whose audio nobody could vote on, one that failed
        of_video(store, "videos", video_id, source_id="s1", source_url=address, note="x")
    # A run of now, and one of an older version.
    for day, path in ((5, address), (6, "/clips/v04.mp4")):
        row = run_row(f"r{day}", day, failures=[f"{path}: x"])
        store.commit("runs", f"r{day}", table_from_rows("runs", [row]), "again")
        assert kinds(store)["failed"] == 1
    shipped = query.shipped_query("not_labelled")
    listed = list(query.ask(store, shipped.sql, shipped.defaults).rows())
    by_kind = {row["what"]: row["video"] for row in listed}
    assert (by_kind["failed"], by_kind["noted"]) == (address, address)
    examples = [one["path"] for k in summary(store)["left_out"] for one in k["examples"]]
    assert set(examples) == {row["video"] for row in listed}
    assert address in examples


def test_channels_addresses_and_the_models_in_charge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = small_store(tmp_path / "store")
    tries = [
        ("a", "news", "failed", "network", 1), ("a", "news", "labelled", None, 2),
        ("b", "news", "refused", "private", 2), ("c", "news", "failed", "network", 3),
        ("d", "talks", "refused", "filtered", 3), ("e", "-", "later", "live", 3),
    ]  # fmt: skip
    rows = [
        {"attempt_id": f"t{n}", "source_id": source, "channel": channel,
         "url": f"https://site.example/{source}", "title": None, "published_at": None,
         "state": state, "kind": kind, "reason": kind and f"it is {kind}", "number": 1,
         "video_id": None, "tried_at": at(day)}
        for n, (source, channel, state, kind, day) in enumerate(tries)
    ]  # fmt: skip
    store.commit("attempts", "b1", table_from_rows("attempts", rows), "f", part="news")
    decisions = [
        {"decision_id": f"d{n}", "domain": "default", "sequence": n, "action": action,
         "model_id": model, "current_model_id": "m1", "decided_at": at(n), "decided_by": "ann",
         "reason": "better", "metrics": "{}"}
        for n, action, model in ((1, "promoted", "m1"), (2, "candidate", "m2"))
    ]  # fmt: skip
    for row in decisions:
        store.commit("promotions", row["decision_id"], table_from_rows("promotions", [row]), "f")
    gone = ["channel lost: it cannot be listed", "/clips/v04.mp4: it is empty (0 bytes)"]
    row = run_row("r2", 5, failures=gone, sources=["news", "talks"])
    store.commit("runs", "r2", table_from_rows("runs", [row]), "lost")
    found = summary(store)
    news = next(channel for channel in found["channels"] if channel["channel"] == "news")
    assert news == {"channel": "news", "labelled": 1, "refused": 1, "failed": 1, "later": 0,
                    "last_tried": at(3).isoformat()}  # fmt: skip
    assert kinds(store) == {"failed": 3, "refused": 1, "later": 1, "filtered": 1, "no_vote": 1}
    [model] = found["models"]
    assert (model["model_id"], model["last_action"]) == ("m1", "candidate")
    assert main(["status", "--store", str(store.root)]) == 0
    out = capsys.readouterr().out
    assert "default: m1; last decision 2026-01-02 12:00 by ann: candidate, better\n" in out
    assert "1 address not to be had: https://site.example/b: it is private\n" in out
    assert "news, talks" in out
    assert "2026-01-03 12:00" in out


def test_a_run_without_a_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty feed, a folder of silent films, a folder of broken ones."""
    empty = Store(tmp_path / "empty")
    row = run_row("r1", 3, videos=0, videos_failed=0, segments=0, failures=[])
    empty.commit("runs", "r1", table_from_rows("runs", [row]), "f")
    assert main(["status", "--store", str(empty.root)]) == 0
    assert "Labelled  nothing: no video was found\n" in capsys.readouterr().out

    full = small_store(tmp_path / "full")
    silent, failed = "nothing: no segment of speech in 1 video", "nothing of 1 video"
    for video_id, said, left in (
        ("v03", silent, "without speech: nothing to label: v03.mp4\n"),
        ("v04", failed, "failed: /clips/v04.mp4: it is empty (0 bytes)\n"),
    ):
        store = Store(tmp_path / video_id)
        ref = full.find("videos", video_id)
        assert ref is not None
        store.commit("videos", video_id, full.read(ref), "f")
        store.commit("runs", "r1", table_from_rows("runs", [row]), "f")
        assert main(["status", "--store", str(store.root)]) == 0
        out = capsys.readouterr().out
        assert f"Labelled  {said}\n" in out
        assert left in out
        assert "How sure" not in out


def test_predictions_are_let_be_where_every_run_counted_no_foreign_segment(
    tmp_path: Path,
) -> None:
    store = small_store(tmp_path / "store")
    for path in (store.root / "predictions").rglob("*.parquet"):
        path.write_bytes(path.read_bytes()[:50])  # whoever reads it is told
    with pytest.raises(StoreError, match="predictions"):
        summary(store)
    for run_id, day in (("r1", 3), ("r2", 5)):
        row = run_row(run_id, day, counts=json.dumps({"foreign": 0, "errors": {}}))
        store.commit("runs", run_id, table_from_rows("runs", [row]), "counted")
    assert summary(store)["foreign"] == {}
    row = run_row("r1", 3, counts=json.dumps({"foreign": 2}))
    store.commit("runs", "r1", table_from_rows("runs", [row]), "counted")
    with pytest.raises(StoreError, match="predictions"):
        summary(store)
