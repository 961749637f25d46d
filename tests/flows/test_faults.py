"""Faults around a run: what scripts/faults.py tries at length, and what it found, in short."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.fault_kinds import moved_back
from tests.conftest import REPO
from tests.flows.test_label import captions, film
from tests.small_site import Site
from vsa_core.query import ask
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
