"""`vsa store`: verify and compact."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.small_store import small_store
from vsa_core.cli import main
from vsa_core.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return small_store(tmp_path / "store")


def test_verify_finds_nothing_in_a_good_store(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["store", "verify", "--store", str(store.root)]) == 0
    assert capsys.readouterr().out == f"{store.root}: no problems\n"


def test_verify_lists_problems_and_fails(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    torn = store.root / "segments" / "v01.parquet"
    torn.write_bytes(torn.read_bytes()[:-20])
    assert main(["store", "verify", "--store", str(store.root)]) == 1
    out, err = capsys.readouterr()
    assert str(torn) in out
    assert err.startswith("vsa: ")
    assert err.count("\n") == 1


def test_compact_keeps_every_row(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    def answer() -> str:
        sql = "SELECT * FROM predictions JOIN labels USING (segment_id) ORDER BY ALL"
        assert main(["query", sql, "--format", "json", "--store", str(store.root)]) == 0
        return capsys.readouterr().out

    before = answer()
    assert main(["store", "compact", "--store", str(store.root)]) == 0
    assert "videos: 4 files → 1\n" in capsys.readouterr().out
    assert answer() == before
    assert main(["store", "verify", "--store", str(store.root)]) == 0


def test_repair_puts_a_corrupt_file_aside(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    torn = store.root / "segments" / "v01.parquet"
    torn.write_bytes(torn.read_bytes()[:-20])
    assert main(["store", "verify", "--store", str(store.root)]) == 1
    assert "--repair` puts it aside" in capsys.readouterr().out
    assert main(["store", "verify", "--repair", "--store", str(store.root)]) == 1
    aside = store.root / ".quarantine" / "segments" / "v01.parquet"
    out = capsys.readouterr().out
    assert f"put aside as {aside}: run the same `vsa run` again, which makes it anew" in out
    assert aside.is_file()
    assert not torn.exists()
