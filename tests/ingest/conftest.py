"""A site on loopback, and settings under which it may be reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.small_site import Site, film, small_site
from tests.small_site_extractors import small_extractors
from vsa_core.config import Settings, load_config


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSA_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def site() -> Iterator[Site]:
    """A site with nothing on it, and the extractors of its platform."""
    with small_site() as running, small_extractors():
        yield running


@pytest.fixture(scope="session")
def film_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A film of two seconds."""
    return film(tmp_path_factory.mktemp("film"), 2)


def settings_of(**sections: dict[str, Any]) -> Settings:
    """Settings with some keys set: loopback may be reached, and waits are short."""
    base = load_config()
    quick = {"backoff_s": 0.01, "timeout_s": 5, "retries": 2}
    given = {
        **sections,
        "download": {**quick, **sections.get("download", {})},
        "sources": {"allow_private_addresses": True, **sections.get("sources", {})},
    }
    update = {
        name: type(getattr(base, name)).model_validate(
            {**getattr(base, name).model_dump(), **values}
        )
        for name, values in given.items()
    }
    return base.model_copy(update=update)


@pytest.fixture
def made() -> Callable[..., Settings]:
    """`settings_of`."""
    return settings_of
