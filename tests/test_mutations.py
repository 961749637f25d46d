"""Damaged files: a few of each kind; `scripts/mutations.py` tries as many as one likes."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.mutations import KINDS, findings

COUNT = 40


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_gives_what_it_has_or_one_line(kind: str, tmp_path: Path) -> None:
    assert list(findings(kind, COUNT, 0, tmp_path)) == []
