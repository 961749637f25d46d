"""`vsa evaluate` in a process of its own, on a store and on files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.assess.meld import Meld, made, predictions_file, truth_file, written
from tests.conftest import REPO
from tests.small_store import segment_id, small_store

_ENTRY = "import sys; from vsa_core.cli import main; sys.exit(main())"


def evaluate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _ENTRY, "evaluate", *map(str, arguments)],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    rows = [
        (segment_id("v01", 0), "positive", "joy"),
        (segment_id("v01", 4_000), "negative", ""),
        (segment_id("v03", 0), "neutral", "neutral"),
    ]
    return written(tmp_path / "t.csv", ["segment_id", "sentiment", "emotion"], rows)


def test_a_store_with_a_report(tmp_path: Path, truth: Path) -> None:
    root = small_store(tmp_path / "store").root
    done = evaluate(root, truth)
    assert (done.returncode, done.stderr) == (0, "")
    head, first, second, *_ = done.stdout.splitlines()
    assert head.split()[:3] == ["target", "coverage", "n"]
    assert first.split()[:5] == ["sentiment", "0.667", "3", "2", "0.500"]
    assert second.split()[:5] == ["emotion", "0.500", "2", "2", "1.000"]
    folder = tmp_path / "r"
    reported = evaluate(root, truth, "--target", "sentiment", "--json", "--report", folder)
    assert reported.returncode == 0
    assert reported.stderr == f"wrote {folder / 'report.html'}, and the rest of the report\n"
    held = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert json.loads(reported.stdout) == held
    assert list(held["targets"]) == ["sentiment"]
    assert (folder / "sentiment-risk-coverage.png").is_file()


def test_two_files_against_each_other_on_one_target(meld: Meld, tmp_path: Path) -> None:
    paths = [
        predictions_file(tmp_path / f"{seed}.csv", meld, made(meld, skill=2, seed=seed), range(n))
        for seed, n in ((1, 2610), (2, 2000))
    ]
    truth = truth_file(tmp_path / "t.csv", meld)
    done = evaluate(paths[0], truth, "--against", paths[1], "--target", "emotion")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["emotion", "emotion"]
    assert [line.split()[-1] for line in lines[1:3]] == ["predictions", "against"]
    assert "emotion, predictions less against, on all 2610: accuracy 0." in done.stdout
    assert lines[-1] == (
        f"note: 610 of 2610 segments in {truth} are not in {paths[1]}: they count as not covered"
    )


def test_what_is_wrong_is_one_line(tmp_path: Path, truth: Path) -> None:
    odd = written(tmp_path / "p.csv", ["segment_id", "sentiment"], [("a", "glad")])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    for arguments, complaint in (
        ((odd, truth), "'glad' is no sentiment"),
        ((tmp_path / "none.csv", truth), "is not there: give a file"),
        ((odd, truth, "--report", tmp_path / "mine"), "holds 'notes.txt'"),
        ((odd, truth, "--target", "mood"), "invalid choice: 'mood'"),
    ):
        done = evaluate(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert complaint in done.stderr
        assert done.stderr.count("\n") == 1
