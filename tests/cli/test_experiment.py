"""`vsa experiment`: what is refused, what is printed, and how it ends when interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from vsa_core import progress
from vsa_core.cli import main
from vsa_core.experiments import paper
from vsa_core.experiments.study import Outcome


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["nothing"],
            "invalid choice: 'nothing' (choose from 'tf-mvsa', 'digits',",
        ),
        (["tf-mvsa", "--seeds", "0"], "'0' is no number from 1"),
        (["tf-mvsa", "--out", "FILE/x"], "take another folder"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    (tmp_path / "file").write_text("")
    given = [word.replace("FILE", str(tmp_path / "file")) for word in arguments]
    assert main(["experiment", *given]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


def test_tables_and_summary_are_written_and_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(seeds: range) -> Outcome:
        progress.begin("experiment", 2)
        progress.advance("experiment", 2)
        return Outcome({"results": pa.table({"seed": list(seeds)})}, "# found\n")

    monkeypatch.setattr(paper, "run", run)
    out = tmp_path / "out"
    command = ["experiment", "tf-mvsa", "--seeds", "3", "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert printed.out == "# found\n" == (out / "summary.md").read_text()
    assert "0 of 2 done" in printed.err
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["results"] == [{"seed": 0}, {"seed": 1}, {"seed": 2}]
    assert found["files"] == [str(out / "results.parquet"), str(out / "summary.md")]


def test_an_interrupt_leaves_no_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(seeds: range) -> Outcome:
        raise KeyboardInterrupt

    monkeypatch.setattr(paper, "run", run)
    assert main(["experiment", "tf-mvsa", "--out", str(tmp_path)]) == 130
    assert "vsa: interrupted" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
