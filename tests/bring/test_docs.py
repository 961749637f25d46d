"""The examples of docs/bring-your-own.md, run as they stand there."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import REPO
from tests.small_store import small_store
from vsa_core.cli import main

_TEXT = (REPO / "docs" / "bring-your-own.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", _TEXT, re.DOTALL)


def test_python_then_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    [example] = blocks("python")
    exec(compile(example, "bring-your-own.md", "exec"), {})
    figures = [float(x) for x in re.findall(r"[\d.]*\d", capsys.readouterr().out)]
    *alone, fused = figures
    assert len(alone) == 2
    assert max(alone) < 0.75
    assert fused > max(alone) + 0.1
    in_python = pq.read_table("labels.parquet")
    # The new videos of the second block are the old ones, so their labels are known.
    shutil.copy("predictions.parquet", "new.parquet")
    for line in "".join(blocks("sh")[:2]).splitlines():
        assert main(shlex.split(line)[1:]) == 0, line
        if "labels.parquet" in line:
            assert pq.read_table("labels.parquet").equals(in_python)
    # On a busy machine how far it is may be told.
    assert re.fullmatch(r"([\w-]+: \d+%\n)*", capsys.readouterr().err)
    assert pq.read_table("sure.parquet")["confidence"].drop_null().to_numpy().min() >= 0.8


def test_a_stores_predictions_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_store(tmp_path / "store")
    for line in blocks("sh")[2].splitlines():
        words = shlex.split(line)[1:]
        assert main([*words, *(["--strategy", "vote"] if words[0] == "label" else [])]) == 0
    given = pq.read_table("emotions.parquet")
    found = pq.read_table("labels.parquet").to_pylist()
    assert given.num_rows == 15
    assert len(found) == 5
    assert {row["label"] for row in found} == {"joy", None}


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)#]+)", _TEXT))
def test_links_lead_somewhere(link: str) -> None:
    assert (REPO / "docs" / link).exists()
