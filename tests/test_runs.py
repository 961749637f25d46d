"""A run's row: which card it names, and when it counts as failed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from vsa_core.config import NamedModel, Settings, fingerprint
from vsa_core.labels import Modality
from vsa_core.runs import RunFailedError, backend_ids, identify, record, summarise
from vsa_core.schemas import TABLES, table_from_rows
from vsa_core.store import Store

FAKE = Settings(backends={Modality.TEXT: NamedModel(name="fake-text")})
FAILURE = {"video_id": "v1", "path": "a.mp4", "reason": "torn"}


def recorded(store: Store, **changed: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The summary and the row of a run of three videos without speech."""
    facts: dict[str, Any] = {
        "sources": ["a"],
        "video_ids": ["v2", "v3"],
        "asked": 3,
        "failures": [],
        "model": ("late-mean", None, None),
        "settings": FAKE,
        "started": datetime.now(UTC),
    }
    summary = record(store, "r1", **{**facts, **changed})
    return summary, store.read(store.find("runs", "r1")).to_pylist()[0]


def test_what_was_learned_has_a_card_also_where_late_fusion_decides(tmp_path: Path) -> None:
    report = {"strategy": "crossview", "targets": {"sentiment": {"decides": "product"}}}
    card = {"model_id": "abc", "report": report}
    summary, row = recorded(Store(tmp_path), model=("abc", card, "one video only"))
    assert row["model_id"] == "abc"
    assert row["model_card"] == summary["model_card"] == "models/abc/card.json"
    assert json.loads(row["metrics"]) == report
    assert summary["late_fusion_because"] == "one video only"


def test_a_strategy_that_learns_nothing_has_no_card(tmp_path: Path) -> None:
    summary, row = recorded(Store(tmp_path))
    assert row["model_id"] == "late-mean"
    assert row["model_card"] is summary["model_card"] is None
    assert summary["late_fusion_because"] is None
    assert row["metrics"] == "{}"


@pytest.mark.parametrize(
    ("asked", "failed", "status"),
    [(3, 0, "complete"), (3, 1, "partial"), (2, 1, "partial"), (3, 2, "failed"), (1, 1, "failed")],
)
def test_more_failures_than_allowed_fail_the_run(
    tmp_path: Path, asked: int, failed: int, status: str
) -> None:
    """A share of just what is allowed, half, does not."""
    failures = [{**FAILURE, "video_id": f"v{i}"} for i in range(failed)]
    labelled = [f"v{i}" for i in range(failed, asked)]
    summary, row = recorded(Store(tmp_path), failures=failures, video_ids=labelled, asked=asked)
    assert summary["status"] == row["status"] == status
    assert row["videos_failed"] == failed
    assert row["failures"] == ["a.mp4: torn"] * failed
    if status == "failed":
        assert f"{failed} of {asked} videos failed" in str(RunFailedError(summary))


@pytest.mark.parametrize(
    ("errors", "status"),
    [((0, 0), "complete"), ((1, 0), "partial"), ((5, 5), "partial"), ((0, 6), "failed")],
)
def test_more_errors_of_a_model_than_allowed_fail_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, errors: tuple[int, int], status: str
) -> None:
    said = dict(zip(("text", "face"), errors, strict=True))
    counts = {"segments": 10, "media_seconds": 1.0, "errors": said}
    monkeypatch.setattr("vsa_core.runs.summarise", lambda *_: {**counts, "left_out": []})
    summary, row = recorded(Store(tmp_path))
    assert summary["status"] == row["status"] == status
    assert json.loads(row["counts"])["errors"] == summary["errors"] == said
    if status == "failed":
        assert "face failed at 6 of 10 segments, more than" in str(RunFailedError(summary))
        assert "text" not in str(RunFailedError(summary))
        assert "videos failed" not in str(RunFailedError(summary))


class TestMany:
    """Counts and ids of a run over stored tables."""

    VIDEOS = ("v1", "v2", "v3")

    def put(self, root: Path) -> Store:
        store = Store(root)
        (backend,) = backend_ids(FAKE).values()
        statuses = {"v1": ["ok", "ok"], "v2": ["ok", "foreign"], "v3": ["absent", "error"]}
        for video, said in statuses.items():
            rows = [
                {"video_id": video, "segment_id": f"{video}-{i}", "modality": "text",
                 "backend": backend, "status": status, "sentiment_probs": None,
                 "emotion_probs": None, "people": None, "track": None, "speaks": None,
                 "note": None}
                for i, status in enumerate(said)
            ]  # fmt: skip
            part = store.part_of(backend)
            store.commit(
                "predictions", video, table_from_rows("predictions", rows), video, part=part
            )
        return store

    def test_statuses_of_its_own_videos_are_counted(self, tmp_path: Path) -> None:
        store = self.put(tmp_path)
        for joined in (False, True):
            if joined:
                store.compact()
            counts = summarise(store, "r1", self.VIDEOS, FAKE)
            assert (counts["with_text"], counts["foreign"]) == (3, 1)
            assert counts["errors"] == {"text": 1}
            assert summarise(store, "r1", ["v1"], FAKE)["errors"] == {"text": 0}
            counts = summarise(store, "r1", ["v1", "v3"], FAKE)
            assert (counts["with_text"], counts["foreign"]) == (2, 0)

    def test_joining_files_changes_no_id_and_asks_for_no_video_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = self.put(tmp_path)
        before = identify(str(tmp_path), self.VIDEOS, "m", FAKE)
        assert identify(str(tmp_path), [*self.VIDEOS, "v9"], "m", FAKE) != before
        store.compact()

        def find(*_: Any, **__: Any) -> None:
            raise AssertionError("a listing says it all")

        monkeypatch.setattr(Store, "find", find)
        assert identify(str(tmp_path), self.VIDEOS, "m", FAKE) == before

    def test_a_run_of_an_older_vsa_is_another_one(self, tmp_path: Path) -> None:
        """It may have taken a model's failure for a result, under the same fingerprints."""
        store = self.put(tmp_path)
        (backend,) = backend_ids(FAKE).values()
        inputs = [[video, backend, video] for video in self.VIDEOS]
        older = "r" + fingerprint("run/1", inputs, "m", FAKE.fingerprint())
        assert identify(store.location, self.VIDEOS, "m", FAKE) != older


def put_video(store: Store, video_id: str, note: str | None, spoken: bool, **more: str) -> None:
    row = {field.name: None for field in TABLES["videos"].schema} | {
        "video_id": video_id, "status": "ok", "note": note, "source_url": "", "title": video_id,
        "media_path": f"/clips/{video_id}.mp4", "has_video": True, "has_audio": True,
        "captions_kind": "asr:pocketsphinx", "duration_ms": 1000, **more,
    }  # fmt: skip
    store.commit("videos", video_id, table_from_rows("videos", [row]), video_id)
    segment = {"video_id": video_id, "segment_id": f"{video_id}-0-1", "index": 0, "start_ms": 0,
               "end_ms": 1, "text": "a", "speaker": None, "text_source": "asr:pocketsphinx",
               "language": None}  # fmt: skip
    rows = [segment] if spoken else []
    store.commit("segments", video_id, table_from_rows("segments", rows), video_id)


def test_what_was_fetched_is_named_by_its_address(tmp_path: Path) -> None:
    store, address = Store(tmp_path), "https://cast.example/1.mp4"
    put_video(store, "v1", None, spoken=False, source_id="s1", source_url=address)
    put_video(store, "v2", None, spoken=False, source_url="https://beside.example/2")
    (kind,) = recorded(store, video_ids=["v1", "v2"], asked=2)[0]["left_out"]
    assert [one["path"] for one in kind["examples"]] == ["/clips/v2.mp4", address]


def test_what_is_left_out_is_kept_with_the_run_by_kind(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put_video(store, "v1", None, spoken=False)
    put_video(store, "v2", "no captions and no sound", spoken=False)
    put_video(store, "v3", "incomplete: 5 bytes are missing", spoken=True)
    put_video(store, "v4", "info.json was not read", spoken=True)
    (backend,) = backend_ids(FAKE).values()
    part = store.part_of(backend)
    said = {"modality": "text", "backend": backend, "sentiment_probs": None, "emotion_probs": None,
            "people": None, "track": None, "speaks": None}  # fmt: skip
    for video_id, status, note in (("v3", "foreign", "not de"), ("v4", "error", "it broke")):
        row = {**said, "video_id": video_id, "segment_id": f"{video_id}-0-1", "status": status,
               "note": note}  # fmt: skip
        store.commit("predictions", video_id, table_from_rows("predictions", [row]), "f", part=part)
    passed = [
        {"video_id": "", "path": f"https://a.example/{n}", "reason": "private", "kind": "refused",
         "asked": False}
        for n in range(3)
    ]  # fmt: skip
    twice = [FAILURE, {**FAILURE, "reason": "torn again"}]
    summary, row = recorded(
        store, video_ids=["v1", "v2", "v3", "v4"], asked=5, failures=twice, passed_over=passed,
        listed={"v2"},
    )  # fmt: skip
    counts = [(kind["kind"], kind["count"], kind["asked"]) for kind in summary["left_out"]]
    assert counts == [
        ("failed", 1, 1), ("refused", 3, 0), ("no_speech", 2, 1), ("incomplete", 1, 1),
        ("foreign", 1, 1), ("error_text", 1, 1), ("noted", 1, 0),
    ]  # fmt: skip
    assert json.loads(row["counts"])["left_out"] == summary["left_out"]
    by_kind = {kind["kind"]: kind for kind in summary["left_out"]}
    assert by_kind["failed"]["examples"] == [{"path": "a.mp4", "reason": "torn"}]
    assert [one["path"] for one in by_kind["refused"]["examples"]] == [
        "https://a.example/0", "https://a.example/1",
    ]  # fmt: skip
    assert by_kind["error_text"]["examples"] == [{"path": "/clips/v4.mp4", "reason": "it broke"}]
    assert summary["errors"] == {"text": 1}
    assert summary["words"] == {"asr:pocketsphinx": 2}
