"""The whole line against a real Prefect server, with fake models and real (also broken) files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests import bad_media
from tests.fakes import Fake, FakeFace
from vsa_core.backends import BACKENDS, Faces
from vsa_core.errors import SourceError, StoreError
from vsa_core.media import Media
from vsa_core.query import ask
from vsa_core.runs import RunFailedError
from vsa_core.store import Store
from vsa_core.verify import verify

pytestmark = pytest.mark.usefixtures("in_prefect")


def film(path: Path, seconds: int) -> Path:
    """A small video with sound; another length is another content."""
    pictures = bad_media.film(seconds * bad_media.FPS)
    return bad_media.write(path, pictures, bad_media.sweep(seconds))


def captions(video: Path, lines: int = 6) -> None:
    """Captions of `lines` sentences of 1.2 s, each different from all others."""
    cues = "".join(
        f"00:00:{i * 1.5:06.3f} --> 00:00:{i * 1.5 + 1.2:06.3f}\nLine {i} of {video.stem!r}.\n\n"
        for i in range(lines)
    )
    video.with_suffix(".vtt").write_text(f"WEBVTT\n\n{cues}", encoding="utf-8")


@pytest.fixture(scope="module")
def made_channel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five good videos with captions."""
    folder = tmp_path_factory.mktemp("channel")
    for i in range(5):
        captions(film(folder / f"talk {i}.mp4", 8 + i))
    return folder


@pytest.fixture
def channel(made_channel: Path, tmp_path: Path) -> Path:
    """A copy of the channel that a test may change."""
    return Path(shutil.copytree(made_channel, tmp_path / "channel"))


def label(sources: list[Path], store: Path, config: Path, **more: Any) -> dict[str, Any]:
    from flows.label import label_sources

    summary: dict[str, Any] = label_sources(
        sources=[str(s) for s in sources], store=str(store), config=str(config), **more
    )
    return summary


def contents(store: Path) -> dict[str, list[dict[str, Any]]]:
    """Every table's rows by file, without what is a matter of the clock."""
    clock = {"started_at", "finished_at", "seconds"}
    return {
        str(path.relative_to(store)): [
            {k: v for k, v in row.items() if k not in clock}
            for row in pq.read_table(path, partitioning=None).to_pylist()
        ]
        for path in sorted(store.rglob("*.parquet"))
    }


def test_every_segment_gets_a_label_with_its_lineage(
    channel: Path, tmp_path: Path, fake_config: Path
) -> None:
    root = tmp_path / "store"
    summary = label([channel], root, fake_config)
    assert summary["status"] == "complete"
    assert summary["videos"] == 5
    assert summary["segments"] == 30
    assert sum(summary["origins"].values()) == 30
    store = Store(root)
    assert verify(store) == []
    labels = list(ask(store, "SELECT * FROM labels").rows())
    segments = list(ask(store, "SELECT * FROM segments").rows())
    assert {row["segment_id"] for row in labels} == {row["segment_id"] for row in segments}
    for row in labels:
        assert row["run_id"] == summary["run_id"]
        assert row["model_id"] == summary["model_id"]
        assert {name.split("@")[0] for name in row["backends"]} == {
            "fake-text",
            "fake-face",
            "fake-audio",
        }
        assert row["audio_vote"] is None
    (run,) = ask(store, "SELECT * FROM runs").rows()
    assert run["status"] == "complete"
    assert run["segments"] == 30


def test_models_give_back_their_memory_once_all_videos_are_seen(
    channel: Path, tmp_path: Path, fake_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    predict = Fake.predict

    def predicting(self: Fake, samples: Any) -> Any:
        happened.append(self.modality.value)
        return predict(self, samples)

    monkeypatch.setattr(Fake, "predict", predicting)
    monkeypatch.setattr(BACKENDS, "unload", lambda: happened.append("unload"))
    assert label([channel], tmp_path / "store", fake_config)["status"] == "complete"
    first = happened.index("unload")
    assert set(happened[:first]) == {"text", "face", "audio"}
    assert set(happened[first:]) == {"unload"}


def test_running_again_computes_nothing_and_changes_nothing(
    channel: Path, tmp_path: Path, fake_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "store"
    first = label([channel], root, fake_config)
    before = contents(root)
    times = {p: p.stat().st_mtime_ns for p in root.rglob("*.parquet") if "runs" not in p.parts}

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a stage ran again")

    monkeypatch.setattr("tests.fakes.Fake.read", never)
    monkeypatch.setattr("vsa_core.transcripts.read_captions", never)
    monkeypatch.setattr("vsa_core.ingest.probe", never)
    monkeypatch.setattr("hashlib.file_digest", never)
    second = label([channel], root, fake_config)
    assert second["run_id"] == first["run_id"]
    assert contents(root) == before
    assert {p: p.stat().st_mtime_ns for p in times} == times


def test_what_changed_is_computed_again_and_nothing_else(
    channel: Path, tmp_path: Path, fake_config: Path
) -> None:
    root = tmp_path / "store"
    label([channel], root, fake_config)
    times = {p: p.stat().st_mtime_ns for p in (root / "predictions").rglob("*.parquet")}
    captions(channel / "talk 0.mp4", lines=3)
    summary = label([channel], root, fake_config)
    assert summary["segments"] == 27
    changed = {
        p for p in (root / "predictions").rglob("*.parquet") if times[p] != p.stat().st_mtime_ns
    }
    assert len(changed) == 3  # one video, three backends
    assert verify(Store(root)) == []
    assert len(list(ask(Store(root), "SELECT * FROM labels").rows())) == 27


def test_bad_files_cost_only_themselves_and_are_recorded(
    channel: Path, tmp_path: Path, fake_config: Path
) -> None:
    for name in bad_media.UNDECODABLE:
        folder = channel / name.replace(",", "").replace(" ", "-")
        folder.mkdir()
        bad_media.make(name, folder)
    odd = ("audio only", "video only", "zero-length audio", "one pixel", "odd name", "turned 90")
    for name in odd:
        folder = channel / name.replace(" ", "-")
        folder.mkdir()
        captions(bad_media.make(name, folder), lines=2)
    root = tmp_path / "store"
    summary = label([channel], root, fake_config)
    assert summary["status"] == "partial"
    assert summary["videos_failed"] == len(bad_media.UNDECODABLE)
    for failure in summary["failures"]:
        assert "\n" not in failure["reason"]
        assert len(failure["reason"]) < 400
    store = Store(root)
    failed = list(ask(store, "SELECT * FROM videos WHERE status = 'error'").rows())
    assert len(failed) == summary["videos_failed"]
    assert all(row["note"] for row in failed)
    (run,) = ask(store, "SELECT failures FROM runs").rows()
    assert len(run["failures"]) == summary["videos_failed"]
    good = "SELECT count(DISTINCT video_id) AS n FROM labels"
    assert next(iter(ask(store, good).rows()))["n"] == 5 + len(odd)
    assert verify(store) == []
    # Mended, it is labelled, and the failed row is gone.
    empty = next(p for p in channel.rglob("*.mp4") if p.stat().st_size == 0)
    film(empty, 3)
    captions(empty, lines=2)
    again = label([channel], root, fake_config)
    assert again["videos_failed"] == summary["videos_failed"] - 1
    assert (
        len(list(ask(store, "SELECT * FROM videos WHERE status = 'error'").rows()))
        == (again["videos_failed"])
    )


def test_a_run_of_mostly_bad_videos_fails_with_its_summary(
    tmp_path: Path, fake_config: Path
) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    bad_media.make("text", folder)
    with pytest.raises(RunFailedError) as caught:
        label([folder], tmp_path / "store", fake_config)
    assert caught.value.summary["status"] == "failed"
    assert "1 of 1 videos failed" in str(caught.value)


def test_a_source_that_is_not_there_is_refused(tmp_path: Path, fake_config: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        label([tmp_path / "nowhere"], tmp_path / "store", fake_config)
    (tmp_path / "hollow").mkdir()
    with pytest.raises(SourceError, match="holds no video"):
        label([tmp_path / "hollow"], tmp_path / "store", fake_config)


def test_an_unreadable_folder_is_one_failure_among_the_rest(
    channel: Path, tmp_path: Path, fake_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (channel / "locked").mkdir()
    scandir = os.scandir

    def denied(path: Any) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    summary = label([channel], tmp_path / "store", fake_config)
    assert summary["videos_failed"] == 1
    assert "cannot be read: Permission denied" in summary["failures"][0]["reason"]
    assert summary["segments"] == 30


def test_the_same_content_twice_is_one_video(
    channel: Path, tmp_path: Path, fake_config: Path
) -> None:
    copy = channel / "copy.mp4"
    copy.write_bytes((channel / "talk 0.mp4").read_bytes())
    assert label([channel], tmp_path / "store", fake_config)["videos"] == 5


def test_limit_takes_the_first_videos_only(
    channel: Path, tmp_path: Path, fake_config: Path
) -> None:
    assert label([channel], tmp_path / "store", fake_config, limit=2)["videos"] == 2


def test_a_full_disk_fails_the_run_and_loses_nothing(
    channel: Path, tmp_path: Path, fake_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "store"
    writes = 0
    fsync = os.fsync

    def full(handle: int) -> None:
        nonlocal writes
        writes += 1
        if writes > 12:
            raise OSError(28, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patched:
        patched.setattr("vsa_core.store.disk.os.fsync", full)
        with pytest.raises(StoreError, match="no space left"):
            label([channel], root, fake_config)
    assert not list((root / ".tmp").iterdir())
    label([channel], root, fake_config)
    assert verify(Store(root)) == []
    other = tmp_path / "other"
    label([channel], other, fake_config)
    assert contents(root) == contents(other)


def test_a_modality_that_breaks_on_a_video_leaves_the_others(
    channel: Path, tmp_path: Path, fake_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = FakeFace.watch

    def breaks_once(self: FakeFace, media: Media) -> Faces:
        if media.path.stem == "talk 2":
            raise RuntimeError("cascade fell over")
        return watch(self, media)

    monkeypatch.setattr(FakeFace, "watch", breaks_once)
    root = tmp_path / "store"
    summary = label([channel], root, fake_config)
    (failure,) = summary["failures"]
    assert failure["path"].endswith("talk 2.mp4")
    assert failure["reason"] == "unexpected RuntimeError: cascade fell over"
    assert summary["status"] == "partial"
    assert summary["with_text"] == 30
    assert summary["segments"] == 30
    (row,) = ask(Store(root), "SELECT * FROM videos WHERE status = 'error'").rows()
    assert row["note"] == "face: unexpected RuntimeError: cascade fell over"
    monkeypatch.undo()
    assert label([channel], root, fake_config)["failures"] == []
    assert list(ask(Store(root), "SELECT * FROM videos WHERE note IS NOT NULL").rows()) == []
