"""The contract of `vsa run`: what it prints where, its exit codes, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import bad_media
from tests.flows.test_label import captions, film

VSA = Path(sys.executable).with_name("vsa")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "channel"
    folder.mkdir()
    for i in range(3):
        captions(film(folder / f"talk {i}.mp4", 8 + i))
    return folder


def vsa(api: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [VSA, *map(str, arguments)],
        env={**os.environ, "PREFECT_API_URL": api},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_good_run_prints_one_json_object_and_ends_with_0(
    folder: Path, tmp_path: Path, fake_config: Path, prefect_api: str
) -> None:
    done = vsa(
        prefect_api, "run", folder, "--store", tmp_path / "s", "--config", fake_config, "--json"
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["videos"] == 3
    assert summary["segments"] == 18
    assert {"agreement", "origins", "seconds", "times_real_time", "failures", "run_id"} <= set(
        summary
    )
    assert "Traceback" not in done.stderr


def test_a_summary_says_first_what_a_person_needs(
    folder: Path, tmp_path: Path, fake_config: Path, prefect_api: str
) -> None:
    store = tmp_path / "s"
    done = vsa(prefect_api, "run", folder, "--store", store, "--config", fake_config)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith(": complete")
    assert lines[1] == "Labelled  18 of 18 segments in 3 of 3 videos"
    headings = [line.split()[0] for line in lines if line[:1].strip()]
    assert headings[2:] == ["How", "Seen", "Votes", "Decided", "Fusion", "Time", "Where"]
    assert f"  vsa query @most_negative --store {store}" in done.stdout.replace(str(VSA), "vsa")
    assert len(lines) <= 25
    assert " 0 " not in done.stdout
    for stage in ("Opening videos: 3 done", "Faces: 3 done", "Labelling: 1 done"):
        assert stage in done.stderr


def test_what_was_left_out_is_told_with_3_as_long_as_it_is_so(
    folder: Path, tmp_path: Path, fake_config: Path, prefect_api: str
) -> None:
    """Of seven clips one is no video, one is cut off, two have nothing to label."""
    bad_media.write(folder / "silent.mp4", bad_media.film(50))
    film(folder / "mute.mp4", 6)
    bad_media.make("text", folder)
    cut = bad_media.write(
        folder / "half.mp4", bad_media.film(300), bad_media.sweep(12),
        options={"movflags": "faststart"},
    )  # fmt: skip
    captions(cut)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    store = tmp_path / "s"
    for _ in range(2):
        done = vsa(prefect_api, "run", folder, "--store", store, "--config", fake_config)
        assert done.returncode == 3
        told = done.stdout
        assert "Labelled  24 of 24 segments in 4 of 7 videos\n" in told
        assert "  1 failed: " in told
        assert "2 videos without speech: nothing to label: " in told
        assert "1 video with an end that is missing or damaged: " in told
        assert "vsa query @not_labelled" in told
    status = vsa(prefect_api, "status", "--store", store)
    left = told[told.index("Left out") : told.index("How sure")]
    assert left in status.stdout
    found = json.loads(vsa(prefect_api, "status", "--store", store, "--json").stdout)
    assert {kind["kind"]: kind["count"] for kind in found["left_out"]} == {
        "failed": 1, "no_speech": 2, "incomplete": 1,
    }  # fmt: skip


def test_some_failed_is_3_with_a_line_each(
    folder: Path, tmp_path: Path, fake_config: Path, prefect_api: str
) -> None:
    bad_media.make("text", folder)
    done = vsa(
        prefect_api, "run", folder, "--store", tmp_path / "s", "--config", fake_config, "--json"
    )
    assert done.returncode == 3
    lines = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert len(lines) == 1
    assert str(folder) in lines[0]
    assert len(json.loads(done.stdout)["failures"]) == 1


def test_all_failed_is_1(tmp_path: Path, fake_config: Path, prefect_api: str) -> None:
    bad_media.make("text", tmp_path)
    source = next(tmp_path.glob("*.mp4"))
    done = vsa(prefect_api, "run", source, "--store", tmp_path / "s", "--config", fake_config)
    assert done.returncode == 1
    assert "1 of 1 videos failed" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "nowhere.mp4"], "nowhere.mp4' does not exist"),
        (["run", "ftp://example.org/x"], "give http:// or https://"),
        (["run", "x.mp4", "--profile", "grand"], "no profile is named 'grand'"),
        (["run", "x.mp4", "--config", "missing.yaml"], "missing.yaml cannot be read"),
        (["run"], "SOURCE"),
    ],
)
def test_bad_usage_is_2_in_one_line(
    arguments: list[str], said: str, tmp_path: Path, prefect_api: str
) -> None:
    done = vsa(prefect_api, *arguments, *(["--store", tmp_path / "s"] if arguments[1:] else []))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(
    folder: Path, tmp_path: Path, fake_config: Path
) -> None:
    store = tmp_path / "s"
    environment = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"}
    run = subprocess.Popen(
        [VSA, "run", str(folder), "--store", str(store), "--config", str(fake_config)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal sends Ctrl-C to the whole group
    )
    while run.poll() is None and not (store / "videos").is_dir():
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert "the same command goes on from there" in err
    assert "Traceback" not in out + err


def test_a_server_of_its_own_ends_with_a_killed_run(
    folder: Path, tmp_path: Path, fake_config: Path
) -> None:
    store = tmp_path / "s"
    environment = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"}
    environment["TMPDIR"] = str(tmp_path)
    run = subprocess.Popen(
        [VSA, "run", str(folder), "--store", str(store), "--config", str(fake_config)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while run.poll() is None and not (store / "videos").is_dir():
        time.sleep(0.01)
    run.kill()
    run.wait()
    deadline = time.monotonic() + 30
    while list(tmp_path.glob("vsa-prefect-*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not list(tmp_path.glob("vsa-prefect-*"))
