"""Every command that documents a figure still gives one: toy runs, and those RESULTS.md names."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as suite
from vsa_core.cli.arguments import parser

REPO = Path(__file__).resolve().parent.parent
RESULTS = (REPO / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
FIGURE = re.compile(r"\d+(\.\d+)?")


@pytest.mark.shared
@pytest.mark.parametrize("name", suite.BENCHMARKS)
def test_a_benchmark_prints_its_figures(
    name: str, shared: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--toy", name])
    suite.main()
    rows = capsys.readouterr().out.splitlines()[1:]
    assert rows
    assert any(FIGURE.search(row.partition(":")[2]) for row in rows)
    assert not any(re.search(r"\b(nan|inf)\b", row) for row in rows)


def test_an_unknown_benchmark_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "lines"])
    with pytest.raises(SystemExit):
        suite.main()
    assert "no benchmark 'lines'; there are: startup, line," in capsys.readouterr().err


def commands() -> list[str]:
    """What RESULTS.md says that its figures were made with."""
    return sorted(set(re.findall(r"`((?:python|vsa) [^`]+)`", RESULTS)))


@pytest.mark.parametrize("command", commands())
def test_the_commands_of_results_are_there(command: str) -> None:
    program, *words = shlex.split(command)
    if program == "vsa":
        if words[0].startswith("-") or words == ["label", "--strategy", "crossview"]:
            return  # an option alone; arguments without their table
        parser().parse_args(words)
    elif words[:2] == ["-m", "benchmarks"]:
        assert words[2] in suite.BENCHMARKS
    else:
        named = [word for word in words if "/" in word or word.startswith("benchmarks.")]
        assert named
        for word in named:
            path = word.replace(".", "/") + ".py" if word.startswith("benchmarks.") else word
            assert (REPO / path).exists(), f"{word} is gone"


def test_results_name_every_benchmark() -> None:
    named = re.findall(r"python -m benchmarks ([a-z-]+)", RESULTS)
    assert set(named) == set(suite.BENCHMARKS)
