"""The contract of `vsa run`: what it prints where, its exit codes, Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from flows.server import starting_server
from tests import bad_media
from tests.conftest import REPO
from tests.flows.test_label import captions, film
from vsa_core.config import load_config
from vsa_core.errors import VsaError
from vsa_core.standing import is_idle
from vsa_core.store import Store
from vsa_core.verify import verify

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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_acknowledged_at_once_and_ends_cleanly(
    number: signal.Signals, folder: Path, tmp_path: Path, fake_config: Path
) -> None:
    store = tmp_path / "s"
    (tmp_path / "tmp").mkdir()
    with alone(folder, store, fake_config, TMPDIR=str(tmp_path / "tmp")) as run:
        while run.poll() is None and not (store / "videos").is_dir():
            time.sleep(0.01)
        os.killpg(run.pid, number)
        heard = time.monotonic()
        assert run.stderr is not None
        said = iter(run.stderr.readline, "")
        assert any("Interrupted. Stopping …" in line for line in said)
        assert time.monotonic() - heard < 3
        out, err = run.communicate(timeout=60)
    assert run.returncode == 128 + number, err
    assert err.strip() == ""  # nothing after it, least of all a traceback
    assert out == ""
    assert verify(Store(str(store))) == []
    deadline = time.monotonic() + 30
    while list((tmp_path / "tmp").iterdir()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("line", ["Starting …", "Loading the models"])
def test_a_signal_is_heard_before_anything_has_begun(
    line: str, folder: Path, tmp_path: Path, fake_config: Path
) -> None:
    with alone(folder, tmp_path / "s", fake_config) as run:
        assert run.stderr is not None
        assert any(line in said for said in iter(run.stderr.readline, ""))
        os.killpg(run.pid, signal.SIGINT)
        _, err = run.communicate(timeout=60)
    assert run.returncode == 130
    said = [each for each in err.splitlines() if each]
    assert said[-1].startswith("Interrupted. Stopping …")
    assert "Traceback" not in err
    assert not (tmp_path / "s" / "videos").exists()


def test_a_second_signal_ends_at_once() -> None:
    """Whatever the first one still waits for."""
    script = (
        "import os, signal, time\n"
        "from vsa_core.cli.stopping import Stop\n"
        "with Stop('here') as stop:\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT); time.sleep(60)\n"
        "    except KeyboardInterrupt:\n"
        "        os.kill(os.getpid(), signal.SIGINT); time.sleep(60)\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr.count("Stopping") == 1
    assert time.monotonic() - began < 30


@contextmanager
def alone(
    folder: Path, store: Path, config: Path, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """`vsa run` with a server of its own, in a group of its own as a terminal makes one."""
    clean = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"}
    run = subprocess.Popen(
        [VSA, "run", str(folder), "--store", str(store), "--config", str(config)],
        env=clean | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal sends Ctrl-C to the whole group
    )
    try:
        yield run
    finally:
        run.kill()
        run.communicate()


# Python runs this in every process of the run: what leaves loopback, or asks for a name, is noted.
_WATCH = """
import os, sys
def note(event, args):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = args[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(args[1], tuple):
        host = args[1][0]
    else:
        return
    if isinstance(host, bytes):
        host = host.decode()
    with open(os.environ["VSA_NOTED"], "a") as noted:
        noted.write(f"{event} {host}\\n")
sys.addaudithook(note)
"""


def watched(tmp_path: Path, *command: object, **more: str) -> tuple[str, set[str]]:
    """What a command that ends well shows on a terminal, and the hosts it turns to, in a new home
    where nothing tells libraries to be silent.
    """
    watch, noted, home = tmp_path / "watch", tmp_path / "noted", tmp_path / "home"
    watch.mkdir()
    home.mkdir()
    noted.touch()
    fakes = "from tests.fakes import register\nregister()\n" if command[0] == VSA else ""
    (watch / "sitecustomize.py").write_text(_WATCH + fakes)
    off = ("CI", "GITHUB", "GITLAB", "DO_NOT_TRACK", "PREFECT_", "NO_PROXY", "no_proxy")
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(off)},
        "HOME": str(home),
        "VSA_NOTED": str(noted),
        "PYTHONPATH": os.pathsep.join([str(watch), str(REPO)]),
        **more,
    }
    ours, theirs = pty.openpty()
    run = subprocess.Popen(
        [*map(str, command)],
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # EIO: the other end is closed
        while read := os.read(ours, 65536):
            shown += read
    os.close(ours)
    screen = shown.decode(errors="replace")
    assert run.wait(60) == 0, screen
    return screen, {line.partition(" ")[2] for line in noted.read_text().splitlines()}


_HERE = {"127.0.0.1", "localhost", "::1", "None"}


def test_a_run_turns_to_nobody(folder: Path, tmp_path: Path, fake_config: Path) -> None:
    """Behind a proxy too, and with no cache that can be written."""
    (tmp_path / "file").touch()
    proxy = "http://192.0.2.1:9"
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), proxy)
    odd = {"ALL_PROXY": "socks://192.0.2.1:9", "all_proxy": "socks5://192.0.2.1:9"}
    command = [VSA, "run", folder, "--store", tmp_path / "s", "--config", fake_config]
    cache = str(tmp_path / "file" / "cache")
    screen, hosts = watched(tmp_path, *command, VSA_CACHE_DIR=cache, **proxies, **odd)
    assert "127.0.0.1" in hosts  # it does watch
    assert hosts <= _HERE
    for theirs in ("telemetry", "EventsWorker", "WARNING", "Traceback"):
        assert theirs not in screen


@pytest.mark.parametrize("module", ["flows.label", "tasks.predict"])
def test_a_worker_that_loads_a_flow_turns_to_nobody(module: str, tmp_path: Path) -> None:
    """Prefect tells an analytics host of its first import, at once or when the process ends."""
    screen, hosts = watched(tmp_path, sys.executable, "-c", f"import {module}")
    assert hosts <= _HERE
    assert screen == ""


def test_a_run_with_nothing_to_do_starts_no_server(
    folder: Path, tmp_path: Path, fake_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says the same, of the same run; one new file, and there is something to do."""
    store = tmp_path / "s"
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))
    (tmp_path / "file").touch()
    command = ["run", folder, "--store", store, "--config", fake_config, "--json"]
    first, again = vsa("", *command), vsa("", *command)
    assert "starting Prefect" in first.stderr
    said = again.stderr.splitlines()
    assert [line.split()[0] for line in said] == ["Starting", "Finding", "Learning", "Labelling:"]
    was, now = json.loads(first.stdout), json.loads(again.stdout)
    changing = ("seconds", "times_real_time", "videos_new")
    assert {k: v for k, v in was.items() if k not in changing} == {
        k: v for k, v in now.items() if k not in changing
    }
    assert (was["videos_new"], now["videos_new"]) == (3, 0)
    assert verify(Store(str(store))) == []
    captions(film(folder / "new.mp4", 5))
    settings, tables = load_config(fake_config), Store(str(store))
    assert not is_idle([str(folder)], settings, tables, None)
    assert is_idle([str(folder / "talk 0.mp4")], settings, tables, None)
    assert not is_idle([str(folder / "talk 0.mp4"), "https://192.0.2.1/"], settings, tables, None)
    (folder / "talk 0.en.vtt").write_text("WEBVTT\n\n00:00.000 --> 00:02.000\nNo.\n")
    assert not is_idle([str(folder / "talk 0.mp4")], settings, tables, None)


def test_a_server_that_is_not_there_is_told_soon_with_both_ways_out(
    folder: Path, tmp_path: Path, fake_config: Path
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/api"
    done = vsa(url, "run", folder, "--store", tmp_path / "s", "--config", fake_config)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(
        f"vsa: the Prefect server at {url} (PREFECT_API_URL) does not answer"
    )
    assert "`prefect server start`" in lines[1]
    assert "unset PREFECT_API_URL" in lines[1]
    assert not (tmp_path / "s" / "videos").exists()


def test_a_proxy_that_prefect_cannot_use_is_one_line(
    folder: Path, tmp_path: Path, fake_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a server elsewhere the user's proxy counts."""
    monkeypatch.setenv("ALL_PROXY", "socks://192.0.2.1:9")
    done = vsa("http://192.0.2.2:4200/api", "run", folder, "--store", tmp_path / "s")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "vsa: Prefect cannot be reached through the proxy"
    )
    assert "unexpected" not in done.stderr


def test_a_server_of_its_own_that_is_lost_is_one_line(
    folder: Path, tmp_path: Path, fake_config: Path
) -> None:
    store = tmp_path / "s"
    with alone(folder, store, fake_config) as run:
        while run.poll() is None and not (store / "videos").is_dir():
            time.sleep(0.01)
        [server] = [
            child
            for child in psutil.Process(run.pid).children()
            if "flows.server" in child.cmdline()
        ]
        server.kill()
        _, err = run.communicate(timeout=30)
    assert run.returncode == 1, err
    last = err.splitlines()[-1]
    assert last.startswith("vsa: the Prefect server of this run ended")
    assert last.endswith("run the same command again")
    assert "EventsWorker" not in err
    assert "Traceback" not in err


def test_a_temporary_folder_without_room_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    room = shutil.disk_usage("/")._replace(free=1_000_000)
    monkeypatch.setattr("flows.server.shutil.disk_usage", lambda _path: room)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(VsaError, match=r"1 MB are left of .* set TMPDIR"), starting_server():
        pass


def test_no_temporary_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file" / "tmp"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(VsaError, match=r"file/tmp.*set TMPDIR"), starting_server():
        pass


def test_prefect_has_a_home_where_the_users_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the user's again afterwards."""
    (tmp_path / "file").touch()
    own = str(tmp_path / "file" / "prefect")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("PREFECT_HOME", own)
    with starting_server() as server:
        assert server is None
        assert Path(os.environ["PREFECT_HOME"]).is_dir()
    assert os.environ["PREFECT_HOME"] == own


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
