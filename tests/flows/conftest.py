"""One real Prefect server for all flow tests; the rest of the suite never starts Prefect."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.small_site import Site, film, small_site


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server that lives as long as the tests."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_TO_API_ENABLED", "false")
    from flows.server import LocalServer

    server = LocalServer(tmp_path_factory.mktemp("prefect"))
    try:
        yield server.wait()
    finally:
        server.stop()


@pytest.fixture
def in_prefect(prefect_api: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Flows of this test run against that server, and try again at once."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows import stages

    for task in (stages.ingest, stages.transcribe, stages.segment, *stages.predict.values()):
        monkeypatch.setattr(task, "retry_delay_seconds", 0)
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        yield


@pytest.fixture
def fake_config(tmp_path: Path, fakes_in_children: None) -> Path:
    """Settings under which no real model is loaded."""
    path = tmp_path / "fake.yaml"
    settings = {
        "transcripts": {"transcriber": None},
        "backends": {m: {"name": f"fake-{m}"} for m in ("text", "face", "audio")},
        "fusion": {"min_consensus": 10, "max_epochs": 20},
        "run": {"shard_videos": 2},
    }
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@pytest.fixture
def channel_site(tmp_path: Path) -> Iterator[Site]:
    """A site with a feed of six short talks, each a page with captions of its own."""
    with small_site() as site:
        items = []
        for number in range(6):
            body = film(tmp_path, 3 + number / 10, f"film{number}.mp4")
            words = f"I love talk {number}." if number % 2 else f"I hate talk {number}."
            url = site.talk(f"/talk{number}", body, words, f"Talk {number}")
            items.append((f"Talk {number}", f"Mon, {number + 1:02} Jun 2026 12:00:00 +0000", url))
        site.rss("/feed.xml", items)
        yield site


@pytest.fixture
def web_config(fake_config: Path) -> Path:
    """`fake_config` under which loopback may be reached, and waits are short."""
    settings = yaml.safe_load(fake_config.read_text(encoding="utf-8"))
    settings["sources"] = {"allow_private_addresses": True}
    settings["download"] = {"backoff_s": 0.01, "timeout_s": 5, "retries": 1}
    path = fake_config.with_name("web.yaml")
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path
