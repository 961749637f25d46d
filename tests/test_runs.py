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
from vsa_core.schemas import table_from_rows
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
    monkeypatch.setattr("vsa_core.runs.summarise", lambda *_: counts)
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
