"""Fixtures every test may use."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests import fakes

fakes.register()

# Ctrl-C is ignored in what a shell starts in the background, and in all that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPO = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Flows first: their files take the longest, and at the end one process would be left alone."""
    items.sort(key=lambda item: "flows" not in item.path.parts)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of third-party test data; a test that needs it is skipped where it is absent.

    `VSA_SHARED` names another place; with `VSA_REQUIRE_SHARED=1` absence is a failure.
    """
    folder = Path(os.environ.get("VSA_SHARED", REPO.parent / "shared")) / "data"
    if not (folder / "README.md").is_file():
        reason = f"test data folder {folder} is absent (set VSA_SHARED to the folder above it)"
        if os.environ.get("VSA_REQUIRE_SHARED") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture
def fakes_in_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that the test starts know the fake models too."""
    monkeypatch.setenv("PYTHONPATH", fakes.in_children())


@pytest.fixture(scope="session")
def sample_dir() -> Path:
    """The made channel that ships with the project."""
    return REPO / "data" / "sample"


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """A cache folder with a small checkpoint in the place of each published one."""
    from tests.small_models import fill

    folder = tmp_path_factory.mktemp("models")
    (folder / "made").mkdir()
    fill(folder / "cache", folder / "made", shared)
    return folder / "cache"
