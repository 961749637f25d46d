"""One real Prefect server for all flow tests; the rest of the suite never starts Prefect."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml


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
def in_prefect(prefect_api: str) -> Iterator[None]:
    """Flows of this test run against that server."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_api}):
        yield


@pytest.fixture
def fake_config(tmp_path: Path) -> Path:
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
