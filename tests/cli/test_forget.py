"""`vsa forget`: what it says first, that it asks, and its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_person import ANNA, BEN, SOURCE, URL, World, contents, small_person
from vsa_core.cli import main
from vsa_core.store import Store


@pytest.fixture
def world(tmp_path: Path) -> World:
    return small_person(tmp_path)


def test_it_says_first_what_would_go(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(world.store)
    root = str(world.store.root)
    assert main(["forget", "Phones", "--dry-run", "--store", root]) == 0
    out = capsys.readouterr().out
    assert "To forget: 2 videos, 1 addresses\n  Video 1\n  Video 2\n" in out
    assert "segments     4 rows\n" in out
    assert "runs         1 rows are blanked\n" in out
    assert "downloads    1 folders, " in out
    assert f"model {world.model} learned from them" in out
    assert f"your own file stays, with what lies beside it: {world.own}" in out
    assert "channels.yaml" in out
    assert contents(Store(root)) == before
    assert world.download.exists()
    assert not (world.store.root / "forgotten").exists()


def test_nothing_goes_unless_somebody_says_so(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(world.store)
    root = str(world.store.root)
    for more in ([], ["--json"]):
        assert main(["forget", URL, "--store", root, *more]) == 2
        err = capsys.readouterr().err
        assert err == f"vsa: nothing was removed from {root}: add --yes to remove it\n"
    assert contents(Store(root)) == before


@pytest.mark.parametrize(("answer", "code"), [("no", 2), ("yes", 0)])
def test_it_asks_on_a_terminal(world: World, answer: str, code: int) -> None:
    ours, theirs = os.openpty()
    os.write(ours, f"{answer}\n".encode())
    command = [Path(sys.executable).with_name("vsa"), "forget", URL, "--store", world.store.root]
    done = subprocess.run(command, stdin=theirs, capture_output=True, text=True)
    os.close(ours)
    os.close(theirs)
    assert "Type yes to remove it" in done.stdout
    assert done.returncode == code, done.stderr
    assert (ANNA in Store(world.store.root).keys("videos")) == (answer == "no")


def test_it_removes_proves_and_says_what_it_cannot_reach(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(world.store.root)
    assert main(["forget", URL, "--yes", "--store", root]) == 0
    out = capsys.readouterr().out
    assert "nothing of it is left" in out
    assert "backups" in out
    assert Store(root).keys("videos")
    assert ANNA not in Store(root).keys("videos")
    assert main(["store", "verify", "--store", root]) == 0
    assert main(["forget", URL, "--yes", "--store", root]) == 2
    assert f"no video and no channel is called '{URL}'" in capsys.readouterr().err


def test_json_holds_the_proof(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(world.store.root)
    assert main(["forget", ANNA, "--yes", "--json", "--store", root]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["videos"] == [ANNA]
    assert said["rows"]["labels"] == 9
    assert said["proof"]["clean"] is True
    assert said["proof"]["traces"] == []
    assert said["problems"] == []
    assert said["media_folders"] == [str(world.download)]


def test_what_is_left_fails_it_and_it_can_be_ended(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(world.store.root)
    left = world.store.root / "export.csv"
    left.write_text(f"{ANNA},positive\n{BEN},negative\n")
    assert main(["forget", ANNA, "--yes", "--store", root]) == 1
    out, err = capsys.readouterr()
    assert "export.csv: its bytes" in out
    assert err.count("\n") == 1
    assert f"run `vsa forget --store {root}` again" in err
    left.unlink()
    assert main(["forget", "--yes", "--store", root]) == 0
    assert main(["forget", "--yes", "--store", root]) == 2


def test_downloads_elsewhere_are_found_by_the_settings(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "own.yaml"
    config.write_text(f"download: {{media_dir: {tmp_path / 'elsewhere'}}}\n")
    unfinished = tmp_path / "elsewhere" / f"{SOURCE}.part"
    unfinished.mkdir(parents=True)
    command = ["forget", URL, "--yes", "--store", str(world.store.root), "--config", str(config)]
    assert main(command) == 0
    assert not unfinished.exists()
    assert not world.download.exists()
