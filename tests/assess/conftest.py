"""MELD's test part, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.assess.meld import Meld, read_meld


@pytest.fixture(scope="session")
def meld(shared: Path) -> Meld:
    """2,610 utterances of 280 dialogues."""
    return read_meld(shared)
