"""`vsa run` killed with SIGKILL at random moments ends, run again, as if nothing had happened."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.flows.test_label import captions, contents, film
from vsa_core.store import Store
from vsa_core.verify import verify

KILLS = 5


def vsa_run(folder: Path, store: Path, config: Path, api: str) -> subprocess.Popen[str]:
    command = ["run", str(folder), "--store", str(store), "--config", str(config), "--json"]
    return subprocess.Popen(
        [Path(sys.executable).with_name("vsa"), *command],
        env={**os.environ, "PREFECT_API_URL": api},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def files_in(store: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(store))


def other_files(store: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and path.suffix != ".parquet"
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "channel"
    folder.mkdir()
    for i in range(6):
        captions(film(folder / f"talk {i}.mp4", 8 + i))
    return folder


def test_killed_at_random_moments_the_tables_end_the_same(
    folder: Path, tmp_path: Path, fake_config: Path, prefect_api: str
) -> None:
    undisturbed, store = tmp_path / "undisturbed", tmp_path / "store"
    done = vsa_run(folder, undisturbed, fake_config, prefect_api)
    _, err = done.communicate(timeout=120)
    assert done.returncode == 0, err
    total = files_in(undisturbed)

    chance = random.Random(20)
    killed = finished = 0
    while killed < KILLS:
        if finished:  # everything stands: begin anew, a killed run is one that had work to do
            subprocess.run(["rm", "-rf", str(store)], check=True)
            finished = 0
        run = vsa_run(folder, store, fake_config, prefect_api)
        # After so many more files; then somewhere within the next write or the work before it.
        wanted = files_in(store) + chance.randint(0, total // 4)
        while run.poll() is None and files_in(store) < wanted:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.05))
        if run.poll() is None:
            run.kill()
            killed += 1
        else:
            assert run.returncode == 0, run.stderr.read()
            finished += 1
        run.communicate()

    run = vsa_run(folder, store, fake_config, prefect_api)
    _, err = run.communicate(timeout=120)
    assert run.returncode == 0, err
    assert contents(store) == contents(undisturbed)
    assert other_files(store) == other_files(undisturbed)
    assert not list((store / ".tmp").iterdir())
    assert verify(Store(store)) == []


def test_two_runs_on_one_store_at_once_end_the_same(
    folder: Path, tmp_path: Path, fake_config: Path, prefect_api: str
) -> None:
    alone, store = tmp_path / "alone", tmp_path / "store"
    runs = [vsa_run(folder, s, fake_config, prefect_api) for s in (alone, store, store)]
    for run in runs:
        _, err = run.communicate(timeout=180)
        assert run.returncode == 0, err
        assert "Traceback" not in err
    assert contents(store) == contents(alone)
    assert verify(Store(store)) == []
