"""Faults around a run: what scripts/faults.py tries at length, and what it found, in short."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.fault_kinds import moved_back
from tasks.shards import ShardFailedError, over_shard
from tests.conftest import REPO
from tests.fakes import Fake, FakeSample
from tests.flows.test_label import captions, contents, film, label
from tests.small_site import Site
from tests.small_store import small_store
from vsa_core.backends import Backend, Prediction
from vsa_core.channels import Channel
from vsa_core.config import load_config
from vsa_core.errors import BackendError, ConfigError, MediaError, ModelError, StoreError
from vsa_core.ingest import Found
from vsa_core.ingest.listing import Item
from vsa_core.ingest.web import Fetched, Outcome
from vsa_core.labels import Modality
from vsa_core.query import ask
from vsa_core.runs import RunFailedError
from vsa_core.schemas import table_from_rows
from vsa_core.store import Store
from vsa_core.verify import verify

KILLED = """
    import os, signal, sys
    import flows.watch

    def killed(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    channels, store, config = sys.argv[1:]
    flows.watch.close = killed
    flows.watch.watch_channels(channels=channels, store=store, config=config)
"""


def labelled(store: Path) -> set[str]:
    return {row["video_id"] for row in ask(Store(store), "SELECT video_id FROM labels").rows()}


def watch(channels: Path, store: Path, config: Path) -> int:
    """How many videos a night labelled."""
    from flows.watch import watch_channels

    runs = watch_channels(channels=str(channels), store=str(store), config=str(config))
    return sum(run["videos"] for run in runs)


@pytest.mark.usefixtures("in_prefect")
def test_what_was_looked_at_before_a_kill_is_labelled_the_next_night(
    channel_site: Site, tmp_path: Path, web_config: Path, prefect_api: str
) -> None:
    store, channels = tmp_path / "store", tmp_path / "channels.yaml"
    url = f"{channel_site.address}/feed.xml"
    channels.write_text(yaml.safe_dump({"channels": [{"name": "talks", "url": url}]}))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), channels, store, web_config],
        cwd=REPO,
        env={**os.environ, "PREFECT_API_URL": prefect_api},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert labelled(store) == set()
    (store / ".tmp" / "left.tmp").write_bytes(b"PAR1")  # as a writer that was killed leaves it
    channel_site.asked.clear()
    assert watch(channels, store, web_config) == 6
    assert len(labelled(store)) == 6
    assert not [path for path in channel_site.asked if path.endswith(".mp4")]
    # And once only.
    assert watch(channels, store, web_config) == 0
    assert verify(Store(store)) == []


@pytest.mark.usefixtures("in_prefect")
def test_the_later_run_counts_though_the_clock_was_moved_back(
    tmp_path: Path, fake_config: Path
) -> None:
    from flows.label import label_sources

    folder, store = tmp_path / "folder", tmp_path / "store"
    folder.mkdir()
    captions(film(folder / "talk.mp4", 9))
    given: dict[str, Any] = {"sources": [str(folder)], "store": str(store)}
    label_sources(**given, config=str(fake_config))
    settings = yaml.safe_load(fake_config.read_text())
    settings["fusion"] = {"strategy": "vote"}
    fake_config.write_text(yaml.safe_dump(settings))
    with moved_back(timedelta(days=1)):
        label_sources(**given, config=str(fake_config))
    models = {row["model_id"] for row in ask(Store(store), "SELECT model_id FROM labels").rows()}
    assert models == {"vote"}


# --- models that fail ---------------------------------------------------------------------

SAYS = Fake.predict


def fails(patched: pytest.MonkeyPatch, error: Exception, when: Callable[[list[str]], bool]) -> None:
    """Makes the text model break on some batches of texts."""

    def says(self: Fake, samples: Sequence[FakeSample]) -> Prediction:
        if self.modality is Modality.TEXT and when([sample.text for sample in samples]):
            raise error
        return SAYS(self, samples)

    patched.setattr(Fake, "predict", says)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips of one segment each, and one of four."""
    folder = tmp_path_factory.mktemp("clips")
    captions(film(folder / "long.mp4", 7), lines=4)
    body = film(folder / "clip 0.mp4", 2).read_bytes()
    for i in range(6):
        clip = folder / f"clip {i}.mp4"
        clip.write_bytes(body + bytes([0, 0, 0, 9, *b"free", i]))  # another content
        captions(clip, lines=1)
    return folder


@pytest.fixture(scope="module")
def healthy(clips: Path, tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Path:
    """A store that was labelled by models that never failed, beside the config for it."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    folder = tmp_path_factory.mktemp("healthy")
    settings = {
        "transcripts": {"transcriber": None},
        "backends": {"face": None, **{m: {"name": f"fake-{m}"} for m in ("text", "audio")}},
        "fusion": {"strategy": "late-mean"},
        "run": {"shard_videos": 2},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        label([clips], folder / "store", folder / "config.yaml")
    return folder


def tables(store: Path, *names: str) -> dict[str, Any]:
    """The rows of some tables, by file."""
    return {name: rows for name, rows in contents(store).items() if name.startswith(names)}


@pytest.mark.usefixtures("in_prefect")
@pytest.mark.parametrize(
    ("breaks", "errors", "videos", "status"),
    [
        pytest.param("", 10, 7, "failed", id="every clip"),
        pytest.param("'clip 3'", 1, 1, "partial", id="one"),
    ],
)
def test_what_a_broken_model_did_not_label_a_healthy_one_does(
    clips: Path, healthy: Path, tmp_path: Path, breaks: str, errors: int, videos: int, status: str
) -> None:
    store, config = tmp_path / "store", healthy / "config.yaml"
    with pytest.MonkeyPatch.context() as patched:
        fails(patched, RuntimeError("odd"), lambda texts: any(breaks in text for text in texts))
        if status == "failed":
            with pytest.raises(RunFailedError, match="text failed at 10 of 10 segments") as caught:
                label([clips], store, config)
            summary = caught.value.summary
        else:
            summary = label([clips], store, config)
    assert (summary["status"], summary["segments"]) == (status, 10)
    assert summary["errors"] == {"text": errors, "audio": 0}
    notes = [table["note"].to_pylist() for table in Store(store).scan("predictions")]
    assert {note for one in notes for note in one} <= {"unexpected RuntimeError: odd", None}
    assert summary["with_text"] == 10 - errors
    # Where it worked on others the segments are at fault, though they are all of their video.
    assert summary["videos_failed"] == (videos if status == "failed" else 0)
    assert verify(Store(store)) == []

    again = label([clips], store, config)
    assert (again["status"], again["errors"]["text"], again["with_text"]) == ("complete", 0, 10)
    assert again["run_id"] != summary["run_id"]
    assert again["videos_new"] == videos
    of = ("predictions", "embeddings", "segments", "transcripts", f"labels/{again['run_id']}")
    assert tables(store, *of) == tables(healthy / "store", *of)
    assert len(labelled(store)) == 7
    assert verify(Store(store)) == []


@pytest.mark.usefixtures("in_prefect")
def test_a_model_that_fails_for_a_while_is_tried_again(
    clips: Path, healthy: Path, tmp_path: Path
) -> None:
    """For as long as the first two tries of each task; the third is Prefect's last."""
    asked: Counter[str] = Counter()

    def at_first(texts: list[str]) -> bool:
        asked.update(texts)
        # A try asks for a text in its batch, and up to twice alone.
        return max(asked[text] for text in texts) <= 6

    with pytest.MonkeyPatch.context() as patched:
        fails(patched, RuntimeError("odd"), at_first)
        assert label([clips], tmp_path / "store", healthy / "config.yaml")["status"] == "complete"
    of = ("predictions", "embeddings", "labels")
    assert tables(tmp_path / "store", *of) == tables(healthy / "store", *of)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (RuntimeError("odd"), True),
        (ModelError("out of memory"), True),
        (BackendError("no weights"), False),
        (MediaError("torn"), False),
        (StoreError("full"), False),
    ],
)
def test_what_may_pass_is_tried_again(error: Exception, again: bool) -> None:
    from prefect.states import Failed

    from tasks.policies import worth_retrying

    assert worth_retrying(None, None, Failed(data=error)) is again


# --- one video's errors -------------------------------------------------------------------


@pytest.mark.usefixtures("in_prefect")
def test_an_unexpected_error_of_any_stage_costs_one_video(
    tmp_path: Path, fake_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vsa_core import ingest, predict, segment, transcripts

    settings = yaml.safe_load(fake_config.read_text())
    settings["run"]["max_failed_share"] = 1
    fake_config.write_text(yaml.safe_dump(settings))
    folder = tmp_path / "channel"
    folder.mkdir()
    names = ("find", "ingest", "open", "transcribe", "segment", "face", "text", "audio", "fine")
    for number, name in enumerate(names):
        captions(film(folder / f"{name}.mp4", 2 + number), lines=1)

    def breaks(stage: str, module: Any, function: str) -> None:
        """A function of a stage breaks at the video that is named after the stage."""
        real = getattr(module, function)

        def breaking(*given: Any) -> Any:
            about = repr(given)
            if f"/{stage}.mp4" in about or f"of {stage!r}" in about:
                raise AttributeError(f"{stage} broke")
            return real(*given)

        monkeypatch.setattr(module, function, breaking)

    breaks("find", ingest.hashlib, "file_digest")
    breaks("ingest", ingest, "ingest")
    breaks("open", ingest, "probe")
    breaks("transcribe", transcripts, "read_captions")
    breaks("segment", segment, "utterances")
    clips = predict._clips

    def breaking(backend: Backend, video: dict[str, Any], *more: Any) -> Any:
        if Path(video["media_path"]).stem == backend.modality:
            raise AttributeError(f"{backend.modality} broke")
        return clips(backend, video, *more)

    monkeypatch.setattr(predict, "_clips", breaking)
    summary = label([folder], tmp_path / "store", fake_config)
    reasons = {Path(one["path"]).stem: one["reason"] for one in summary["failures"]}
    assert reasons.pop("find").endswith("find.mp4 cannot be read: unexpected AttributeError: "
                                        "find broke")  # fmt: skip
    assert reasons == {name: f"unexpected AttributeError: {name} broke" for name in names[1:-1]}
    assert summary["videos"] == len(names)
    store = Store(tmp_path / "store")
    rows = ask(store, "SELECT DISTINCT title FROM labels").rows()
    assert {row["title"] for row in rows} == {"face", "text", "audio", "fine"}
    assert verify(store) == []
    # All of them are tried again.
    monkeypatch.undo()
    again = label([folder], tmp_path / "store", fake_config)
    assert (again["failures"], again["segments"]) == ([], len(names))
    assert verify(store) == []


@pytest.mark.parametrize(
    "error", [SystemExit(3), type("PanicException", (BaseException,), {})("x")]
)
def test_a_panic_in_a_stage_costs_one_item(error: BaseException) -> None:
    def stage(item: str, _steps: Any) -> None:
        if item == "b":
            raise error

    with pytest.raises(ShardFailedError) as caught:
        over_shard("stage", {name: name for name in "abc"}, stage, str)
    assert caught.value.result.done == ("a", "c")
    (failure,) = caught.value.result.failures
    assert failure.reason == f"unexpected {type(error).__name__}: {error}"
    with pytest.raises(KeyboardInterrupt):
        over_shard("stage", {"a": KeyboardInterrupt()}, _raised, str)


def _raised(error: BaseException, _steps: Any) -> None:
    raise error


def test_an_unexpected_error_costs_one_address(
    tmp_path: Path, fake_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.ingest import fetch

    def fetched(item: Item, *_: Any) -> Fetched:
        if item.source_id == "s1":
            raise KeyError("formats")
        if item.source_id == "s2":
            return Fetched(item, Outcome.LATER, None, "live", "it is live")
        return Fetched(item, Outcome.FETCHED, film(tmp_path / f"{item.source_id}.mp4", 1))

    monkeypatch.setattr("tasks.ingest.core_fetch", fetched)
    urls = [f"https://example.org/{n}" for n in range(4)]
    found = [Found(u, u, item=Item(url=u, source_id=f"s{n}")) for n, u in enumerate(urls)]
    settings = load_config(fake_config)
    result = fetch.fn(found, settings, str(tmp_path / "store"))
    assert [one.item.source_id for one in result.found] == ["s0", "s3"]
    assert [(one.outcome, one.reason) for one in result.missed] == [
        (Outcome.FAILED, "unexpected KeyError: 'formats'"),
        (Outcome.LATER, "it is live"),
    ]

    def full(*_: Any) -> None:
        raise StoreError("no space left")

    monkeypatch.setattr("tasks.ingest.core_fetch", full)
    with pytest.raises(StoreError, match="no space left"):
        fetch.fn(found, settings, str(tmp_path / "store"))


def test_an_unexpected_error_costs_one_address_of_a_channel(
    fake_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.channels import list_channel

    def listed(url: str, *_: Any, channel: bool) -> list[Item]:
        assert channel
        if url.endswith("/odd"):
            raise KeyError("entries")
        return [Item(url=f"{url}/1", source_id="s1")]

    monkeypatch.setattr("tasks.channels.listed", listed)
    channel = Channel(name="talks", urls=("https://example.org/odd", "https://example.org/good"))
    news = list_channel.fn(channel, load_config(fake_config), {}, False)
    [problem] = news.problems
    assert (problem.path, problem.reason) == (
        "https://example.org/odd", "unexpected KeyError: 'entries'",
    )  # fmt: skip
    assert [one.item.url for one in news.found] == ["https://example.org/good/1"]


class TestShard:
    """What a shard's task gives, or raises to be tried again."""

    def over(self, errors: dict[str, Exception]) -> Any:
        from tasks.shards import over_shard

        def stage(name: str, _: Any) -> None:
            if name in errors:
                raise errors[name]

        return over_shard("segment", {n: n for n in "abc"}, stage, lambda name: f"/{name}.mp4")

    def test_what_we_say_ourselves_is_wrong_with_a_video_is_not_tried_again(self) -> None:
        result = self.over({"b": MediaError("torn"), "c": BackendError("no weights")})
        assert result.done == ("a",)
        assert [(one.path, one.reason, one.stage) for one in result.failures] == [
            ("/b.mp4", "torn", "segment"),
            ("/c.mp4", "no weights", "segment"),
        ]
        assert result.unloaded == "no weights"

    @pytest.mark.parametrize("error", [KeyError("a"), ModelError("out of memory")])
    def test_what_may_pass_is_raised_with_what_became_of_the_others(self, error: Exception) -> None:
        from tasks.shards import ShardFailedError

        with pytest.raises(ShardFailedError) as caught:
            self.over({"b": error})
        sent = pickle.loads(pickle.dumps(caught.value))  # as from another process
        assert sent.result == caught.value.result
        assert sent.result.done == ("a", "c")
        assert sent.result.unloaded is None
        assert str(sent).startswith("/b.mp4: ")

    def test_what_was_fetched_is_named_by_its_address(self, tmp_path: Path) -> None:
        from tasks.shards import over_videos

        store = small_store(tmp_path)
        [row] = store.read(store.find("videos", "v01")).to_pylist()
        row["source_id"] = "s1"
        store.commit("videos", "v01", table_from_rows("videos", [row]), "f")

        def stage(video_id: str, *_: Any) -> Any:
            raise MediaError("torn")

        result = over_videos("segment", stage)(["v01", "v02"], load_config(), store.location)
        named = [one.path for one in result.failures]
        assert named == ["https://video.example/watch?v=1", "/clips/v02.mp4"]

    @pytest.mark.parametrize("error", [StoreError("no space left"), ConfigError("no such option")])
    def test_what_is_no_videos_fault_ends_the_run(self, error: Exception) -> None:
        with pytest.raises(type(error)):
            self.over({"b": error})

    def test_a_model_that_cannot_be_loaded_for_any_video_ends_the_run(self) -> None:
        from flows.stages import _together

        bad = BackendError("no weights")
        none = self.over(dict.fromkeys("abc", bad))
        with pytest.raises(BackendError, match="no weights"):
            _together([none, none])
        done, failures = _together([none, self.over({"a": bad})])
        assert done == {"b", "c"}
        assert [one.reason for one in failures] == ["no weights"] * 4
