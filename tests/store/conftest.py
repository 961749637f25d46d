"""Stores on a disk and in a bucket, for what must hold on both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.small_s3 import FaultyS3, SmallS3, faulty_s3, small_s3
from vsa_core.store import Store


@pytest.fixture(scope="session")
def s3() -> Iterator[SmallS3]:
    with small_s3() as bucket:
        yield bucket


@pytest.fixture
def faulty(s3: SmallS3) -> Iterator[FaultyS3]:
    with faulty_s3(s3) as proxy:
        yield proxy


@pytest.fixture(params=["disk", "bucket"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may lie."""
    if request.param == "disk":
        return str(tmp_path / "store")
    bucket: SmallS3 = request.getfixturevalue("s3")
    return bucket.url(tmp_path.name)


@pytest.fixture
def store(url: str) -> Store:
    return Store(url)
