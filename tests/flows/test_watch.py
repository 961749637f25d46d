"""Channels through the flows: what is new is labelled once, what fails costs only itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.adapt import adapt_domain
from flows.evaluate import evaluate
from flows.label import label_sources
from flows.relabel import relabel
from flows.watch import watch_channels
from tests.fakes import Fake, FakeSample
from tests.small_site import Request, Site, film
from vsa_core import archive
from vsa_core.archive import State
from vsa_core.backends import Prediction
from vsa_core.cli import main
from vsa_core.config import Settings
from vsa_core.errors import ConfigError, MediaError, UsageError
from vsa_core.fusion import LATE_FUSION
from vsa_core.ingest import Found, ingest
from vsa_core.query import ask
from vsa_core.runs import RunFailedError
from vsa_core.store import Store, TableRef
from vsa_core.story import of_run
from vsa_core.verify import verify

pytestmark = pytest.mark.usefixtures("in_prefect")


@pytest.fixture
def channels(tmp_path: Path, channel_site: Site) -> Path:
    return write(tmp_path, {"name": "talks", "url": f"{channel_site.address}/feed.xml"})


def write(folder: Path, *channels: dict[str, Any]) -> Path:
    path = folder / "channels.yaml"
    path.write_text(yaml.safe_dump({"channels": list(channels)}), encoding="utf-8")
    return path


def watch(channels: Path, store: Path, config: Path, **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = watch_channels(
        channels=str(channels), store=str(store), config=str(config), **more
    )
    return found


def with_settings(config: Path, section: str, **values: Any) -> Path:
    """The same settings with some of a section changed, in a file of their own."""
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    settings[section] = {**settings.get(section, {}), **values}
    path = config.with_name(f"{config.stem}-{section}.yaml")
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def asked_for(summary: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Of what was left out, by kind, how many there are and how many somebody asked for."""
    return {kind["kind"]: (kind["count"], kind["asked"]) for kind in summary["left_out"]}


def on_its_page(summary: dict[str, Any]) -> list[dict[str, str]]:
    """What a run says on Prefect's page, line by line."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import ArtifactSort

    with get_client(sync_client=True) as client:
        latest = client.read_artifacts(sort=ArtifactSort.UPDATED_DESC)
    [data] = [
        one.data
        for one in latest
        if one.key == "vsa-run" and summary["run_id"] in (one.description or "")
    ]
    lines: list[dict[str, str]] = json.loads(str(data))
    assert lines == [
        {"what": heading, "value": line}
        for heading, all_of_it in of_run(summary)
        for line in all_of_it
    ]
    return lines


def states(store: Path) -> dict[State, int]:
    counts = dict.fromkeys(State, 0)
    for known in archive.known(Store(store)).values():
        counts[known.state] += 1
    return {state: n for state, n in counts.items() if n}


def test_the_second_night_labels_what_is_new_and_nothing_else(
    channels: Path, channel_site: Site, tmp_path: Path, web_config: Path
) -> None:
    store = tmp_path / "store"
    [first] = watch(channels, store, web_config)
    assert (first["videos"], first["videos_new"], first["videos_failed"]) == (6, 6, 0)
    assert states(store) == {State.LABELLED: 6}
    assert watch(channels, store, web_config) == []

    body = film(tmp_path, 4, "new.mp4")
    url = channel_site.talk("/new", body, "Something new.", "New")
    channel_site.rss("/feed.xml", [("New", "Mon, 01 Jul 2026 12:00:00 +0000", url)])
    channel_site.asked.clear()
    [third] = watch(channels, store, web_config)
    assert (third["videos"], third["videos_new"]) == (1, 1)
    assert {path for path in channel_site.asked if path.endswith(".mp4")} == {"/new.mp4"}
    rows = list(ask(Store(store), "SELECT count(DISTINCT video_id) AS n FROM labels").rows())
    assert rows == [{"n": 7}]
    assert verify(Store(store)) == []


def test_what_is_refused_is_not_asked_for_again_and_what_fails_is(
    channels: Path, channel_site: Site, tmp_path: Path, web_config: Path
) -> None:
    store = tmp_path / "store"
    channel_site.page("/talk0", "No video here.")

    def broken(request: Request) -> None:
        request.send(b"later", status=503)

    kept = channel_site.pages["/talk1"]
    channel_site.answer("/talk1", broken)
    [first] = watch(channels, store, web_config)
    assert first["status"] == "partial"
    assert (first["videos_failed"], len(first["passed_over"])) == (1, 1)
    assert "503" in first["failures"][0]["reason"]
    assert states(store) == {State.LABELLED: 4, State.REFUSED: 1, State.FAILED: 1}
    # The refused one is no failure: nothing can be mended there.
    assert f"{channel_site.address}/talk0" in first["passed_over"][0]["path"]
    assert asked_for(first) == {"refused": (1, 0), "failed": (1, 1)}
    told = [line for line in on_its_page(first) if line["what"] == "Left out"]
    assert len(told) == 2
    assert "503" in told[0]["value"]
    assert f"1 address not to be had: {channel_site.address}/talk0" in told[1]["value"]

    channel_site.pages["/talk1"] = kept
    channel_site.asked.clear()
    [second] = watch(channels, store, web_config)
    assert (second["videos"], second["videos_new"]) == (1, 1)
    assert "/talk0" not in channel_site.asked
    assert states(store) == {State.LABELLED: 5, State.REFUSED: 1}
    # Who asks for that very address, or for a feed, is told each time, in the first case with 3.
    pages = [f"{channel_site.address}/talk{number}" for number in range(6)]
    for _ in range(2):
        by_itself = label_sources(pages, str(store), config=str(web_config))
        assert asked_for(by_itself) == {"refused": (1, 1)}
    feed = f"{channel_site.address}/feed.xml"
    listed = label_sources([feed], str(store), config=str(web_config))
    assert asked_for(listed) == {"refused": (1, 0)}


def test_downloads_go_once_their_videos_are_labelled(
    channels: Path, channel_site: Site, tmp_path: Path, web_config: Path
) -> None:
    store = tmp_path / "store"
    config = with_settings(web_config, "download", keep_media=False, batch_videos=2)
    [first] = watch(channels, store, config)
    assert first["videos_new"] == 6
    assert [p for p in (store / "media").rglob("*") if p.is_file()] == []
    # They stay labelled, are not fetched again, and can be labelled anew.
    channel_site.asked.clear()
    assert watch(channels, store, config) == []
    again = label_sources([f"{channel_site.address}/feed.xml"], str(store), config=str(config))
    assert (again["videos"], again["videos_new"]) == (6, 0)
    relabelled = relabel(str(store), model="late-mean", channels=["talks"], config=str(config))
    assert relabelled["videos"] == 6
    assert not [path for path in channel_site.asked if path.endswith(".mp4")]
    assert verify(Store(store)) == []


def test_a_channel_that_cannot_be_listed_costs_no_other(
    channel_site: Site, tmp_path: Path, web_config: Path
) -> None:
    channels = write(
        tmp_path,
        {"name": "gone", "url": f"{channel_site.address}/gone.xml"},
        {"name": "talks", "url": f"{channel_site.address}/feed.xml"},
    )
    [summary] = watch(channels, tmp_path / "store", web_config)
    assert summary["videos_new"] == 6
    [failure] = summary["failures"]
    assert failure["path"] == f"{channel_site.address}/gone.xml"
    # It may be back tomorrow: it is asked for again, the talks are not.
    channel_site.asked.clear()
    with pytest.raises(RunFailedError):
        watch(channels, tmp_path / "store", web_config)
    assert "/gone.xml" in channel_site.asked
    only = write(tmp_path, {"name": "gone", "url": f"{channel_site.address}/gone.xml"})
    with pytest.raises(RunFailedError):
        watch(only, tmp_path / "other", web_config)


def test_what_a_model_failed_at_is_looked_at_again_the_next_night(
    channels: Path, channel_site: Site, tmp_path: Path, web_config: Path
) -> None:
    store, says = tmp_path / "store", Fake.predict

    def breaks(self: Fake, samples: Sequence[FakeSample]) -> Prediction:
        if any("talk 3" in sample.text for sample in samples):
            raise ValueError("odd")
        return says(self, samples)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Fake, "predict", breaks)
        [first] = watch(channels, store, web_config)
    assert (first["status"], first["errors"]["text"]) == ("partial", 1)
    channel_site.asked.clear()
    [second] = watch(channels, store, web_config)
    assert (second["status"], second["videos"], second["with_text"]) == ("complete", 1, 1)
    assert not [path for path in channel_site.asked if path.endswith(".mp4")]  # it is here still
    assert watch(channels, store, web_config) == []
    assert states(store) == {State.LABELLED: 6}


def test_filters_of_a_channel(channel_site: Site, tmp_path: Path, web_config: Path) -> None:
    channels = write(
        tmp_path,
        {
            "name": "talks",
            "url": f"{channel_site.address}/feed.xml",
            "filters": {"published_after": "2026-06-03", "max_videos": 2},
        },
    )
    store = tmp_path / "store"
    [summary] = watch(channels, store, web_config)
    assert summary["videos_new"] == 2
    titles = {r["title"] for r in ask(Store(store), "SELECT title FROM videos").rows()}
    assert titles == {"Talk 4", "Talk 5"}


def test_a_domain_is_adapted_to_and_the_decision_is_kept(
    channels: Path, tmp_path: Path, web_config: Path
) -> None:
    """Six segments are too few to show that a model is better: it stays a candidate."""
    store = tmp_path / "store"
    summary = adapt_domain(channels=str(channels), store=str(store), config=str(web_config))
    assert summary["videos"] == summary["segments"] == 6
    said = summary["decision"]
    assert (said["action"], said["model_id"]) == ("candidate", summary["candidate"])
    assert said["reason"]
    assert summary["late_fusion_because"] in said["reason"]
    assert summary["model_id"] == LATE_FUSION
    [decision] = ask(Store(store), "FROM promotions").rows()
    assert {name: decision[name] for name in ("action", "reason", "model_id")} == {
        name: said[name] for name in ("action", "reason", "model_id")
    }
    assert verify(Store(store)) == []
    with pytest.raises(ConfigError, match="no channel of domain 'cooking'"):
        adapt_domain("cooking", str(channels), str(store), config=str(web_config))
    # A strategy that learns nothing leaves nothing to decide.
    settings = yaml.safe_load(web_config.read_text(encoding="utf-8"))
    settings["fusion"]["strategy"] = "vote"
    web_config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    summary = adapt_domain(channels=str(channels), store=str(store), config=str(web_config))
    assert (summary["candidate"], summary["decision"]) == ("vote", None)
    assert len(list(ask(Store(store), "FROM promotions").rows())) == 1


def test_relabelling_says_what_is_missing(tmp_path: Path, web_config: Path) -> None:
    with pytest.raises(UsageError, match="no model that fits"):
        relabel(str(tmp_path / "store"), config=str(web_config))
    with pytest.raises(UsageError, match="no fusion model 'm1'"):
        relabel(str(tmp_path / "store"), model="m1", config=str(web_config))
    with pytest.raises(UsageError, match="holds no video with predictions"):
        relabel(str(tmp_path / "store"), model="vote", config=str(web_config))


def test_labels_are_scored_against_a_file(
    channels: Path, tmp_path: Path, web_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    watch(channels, store, web_config)
    rows = list(ask(Store(store), "SELECT segment_id, sentiment FROM labels").rows())
    said = [row["sentiment"] for row in rows if row["sentiment"]]
    truth = tmp_path / "truth.csv"
    lines = [f"{row['segment_id']},positive" for row in rows]
    lines += ["v0000000000000000-0-1000,positive"]  # of a video that was never seen
    truth.write_text("\n".join(["segment_id,sentiment", *lines]) + "\n", encoding="utf-8")
    found = evaluate(str(store), str(truth))
    about = found["targets"]["sentiment"]
    assert about["coverage"]["value"] == pytest.approx(len(said) / (len(rows) + 1))
    assert about["accuracy"]["value"] == pytest.approx(said.count("positive") / len(said))
    capsys.readouterr()
    assert main(["evaluate", str(store), str(truth), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found


def test_what_was_refused_is_tried_again_when_asked(
    channel_site: Site, tmp_path: Path, web_config: Path
) -> None:
    about = {"name": "talks", "url": f"{channel_site.address}/feed.xml"}
    store = tmp_path / "store"
    long = write(tmp_path, {**about, "filters": {"min_duration_s": 3.25}})
    [first] = watch(long, store, web_config)
    assert (first["videos_new"], len(first["passed_over"])) == (3, 3)
    every = write(tmp_path, about)
    assert watch(every, store, web_config) == []
    [again] = watch(every, store, web_config, retry=True)
    assert again["videos_new"] == 3
    assert states(store) == {State.LABELLED: 6}


def test_what_was_forgotten_is_not_taken_in_again(
    channels: Path, channel_site: Site, tmp_path: Path, web_config: Path
) -> None:
    store = tmp_path / "store"
    watch(channels, store, web_config)
    [row] = ask(Store(store), "SELECT * FROM videos WHERE title = 'Talk 3'").rows()
    assert main(["forget", row["video_id"], "--yes", "--store", str(store)]) == 0
    assert watch(channels, store, web_config, retry=True) == []
    # Not even under another address: it is known by its content too.
    body = channel_site.pages["/talk3.mp4"][1]
    url = channel_site.talk("/other", body, "Another page.", "Other")
    summary = label_sources([url], str(store), config=str(web_config))
    assert summary["videos_new"] == 0
    assert "forget" in summary["passed_over"][0]["reason"]
    assert verify(Store(store)) == []


def test_a_feed_that_is_out_for_two_nights_comes_back(
    channel_site: Site, tmp_path: Path, web_config: Path
) -> None:
    site, store = channel_site, tmp_path / "store"
    there = site.pages["/feed.xml"]
    talk = ("Other", "Mon, 01 Jun 2026 12:00:00 +0000")
    site.rss("/other.xml", [(*talk, site.talk("/o1", film(tmp_path, 4.1), "I hate it.", "Other"))])
    channels = write(
        tmp_path,
        {"name": "talks", "url": f"{site.address}/feed.xml", "filters": {"max_videos": 2}},
        {"name": "other", "url": f"{site.address}/other.xml"},
    )
    # The first night is an outage already; the other channel is labelled.
    site.page("/feed.xml", "We are back soon.", "Maintenance")
    [first] = watch(channels, store, web_config)
    assert first["videos_new"] == 1
    [failure] = first["failures"]
    assert failure["path"] == f"{site.address}/feed.xml"
    site.pages["/feed.xml"] = there
    [second] = watch(channels, store, web_config)
    assert (second["videos_new"], second["failures"]) == (2, [])

    site.page("/feed.xml", "We are back soon.", "Maintenance")
    site.rss("/other.xml", [(*talk, site.talk("/o2", film(tmp_path, 4.2), "I love it.", "Other"))])
    [third] = watch(channels, store, web_config)
    assert (third["status"], third["videos_new"], len(third["failures"])) == ("partial", 1, 1)
    site.answer("/feed.xml", lambda request: request.send(b"", status=404))
    with pytest.raises(RunFailedError):  # nothing else is new
        watch(channels, store, web_config)

    url = site.talk("/new", film(tmp_path, 4, "new.mp4"), "Something new.", "New")
    site.rss("/feed.xml", [("New", "Wed, 01 Jul 2026 12:00:00 +0000", url)])
    [last] = watch(channels, store, web_config)
    assert (last["videos_new"], last["failures"], last["passed_over"]) == (1, [], [])
    assert states(store) == {State.LABELLED: 5}
    assert watch(channels, store, web_config) == []


def test_an_episode_that_was_not_there_or_damaged_is_fetched_the_next_night(
    channels: Path,
    channel_site: Site,
    tmp_path: Path,
    web_config: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site, store = channel_site, tmp_path / "store"
    whole = dict(site.pages)
    del site.pages["/talk0"]
    site.file("/talk1.mp4", whole["/talk1.mp4"][1][:900])

    def breaks(found: Found, settings: Settings, to: Store) -> TableRef:
        if found.item.title == "Talk 3":  # damage that shows only in a stage
            raise MediaError(f"{found.item.shown} does not decode")
        return ingest(found, settings, to)

    monkeypatch.setattr("tasks.ingest.core.ingest", breaks)
    [first] = watch(channels, store, web_config)
    assert (first["videos_new"], first["videos_failed"]) == (3, 3)
    for failure in first["failures"]:
        assert f"{site.address}/talk" in failure["reason"] + failure["path"]
        assert ".part" not in failure["reason"]
        assert str(store) not in failure["reason"]
    site.pages.update(whole)
    monkeypatch.undo()
    site.asked.clear()
    [second] = watch(channels, store, web_config)
    assert (second["videos_new"], second["videos_failed"]) == (3, 0)
    assert {path for path in site.asked if path.endswith(".mp4")} == {
        f"/talk{number}.mp4" for number in (0, 1, 3)
    }
    assert states(store) == {State.LABELLED: 6}
    assert verify(Store(store)) == []
