"""Every task runner labels alike, is quiet, survives a killed worker and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
import yaml

from tests.fakes import in_children
from tests.flows.test_command import VSA
from tests.flows.test_label import captions, contents, film
from vsa_core.config import Run, load_config
from vsa_core.errors import ConfigError, VsaError
from vsa_core.ingest import Found
from vsa_core.ingest.listing import Item
from vsa_core.store import Store
from vsa_core.verify import verify

_CLIPS = ("when-i-was-little", "first-week-in-three", "the-letter")
_LIMIT_S = 120

# Put in front of a model in every new process: says which process loaded it and which is at work,
# and holds the work until it may go on.
_HELD = """
import os, time
from pathlib import Path
from tests import fakes
from vsa_core.backends import text_minilm

HERE = Path(__file__).parent

def held(loader):
    def load(**options):
        with (HERE / "loads").open("a") as file:
            file.write(f"{os.getpid()}\\n")
        model = loader(**options)
        predict = model.predict
        def wait(samples):
            (HERE / "working" / str(os.getpid())).touch()
            deadline = time.monotonic() + 600
            while not (HERE / "go").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            told = predict(samples)
            with (HERE / "done").open("a") as file:
                file.write(f"{os.getpid()}\\n")
            return told
        model.predict = wait
        return model
    return load

load_minilm, load_fake = held(text_minilm.load), held(fakes.load_text)
"""
_START = """
from tests.fakes import register
from vsa_core.backends import BACKENDS

register()
BACKENDS.loaders["text-minilm"] = "held:load_minilm"
BACKENDS.loaders["fake-text"] = "held:load_fake"
"""


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder in which the text model of new processes tells what it does."""
    folder = tmp_path / "held"
    (folder / "working").mkdir(parents=True)
    (folder / "held.py").write_text(_HELD, encoding="utf-8")
    (folder / "sitecustomize.py").write_text(_START, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{in_children()}")
    monkeypatch.syspath_prepend(folder)  # a pool's processes take it from here
    return folder


def pids(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def at_work(folder: Path, run: threading.Event | subprocess.Popen[str]) -> int:
    """Id of a process in the middle of a task, once there is one."""
    while not (run.is_set() if isinstance(run, threading.Event) else run.poll() is not None):
        if found := list((folder / "working").iterdir()):
            return int(found[0].name)
        time.sleep(0.02)
    said = run.communicate() if isinstance(run, subprocess.Popen) else None
    raise AssertionError(f"it ended before any work began: {said}")


def config(path: Path, name: str, settings: dict[str, Any] | None = None) -> Path:
    run = {"run": {"runner": name, "workers": 2, "shard_videos": 1}}
    path.write_text(yaml.safe_dump({**(settings or {}), **run}), encoding="utf-8")
    return path


# --- the same labels ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, sample_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for name in _CLIPS:
        for file in (sample_dir / "clips").glob(f"{name}.*"):
            shutil.copy(file, folder)
    return folder


def labelled(clips: Path, store: Path, config: Path) -> Any:
    """The flow run's final state."""
    from flows.label import label_sources

    return label_sources([str(clips)], str(store), config=str(config), return_state=True)


def tables(store: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows of a store; the settings that a run was made with say who its runner was."""
    found = contents(store)
    for name, rows in found.items():
        if name.startswith("runs/"):
            for row in rows:
                del row["config"]
    return found


@pytest.fixture(scope="module")
def by_threads(
    clips: Path, tmp_path_factory: pytest.TempPathFactory, prefect_api: str
) -> dict[str, list[dict[str, Any]]]:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    folder = tmp_path_factory.mktemp("threads")
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        labelled(clips, folder / "store", config(folder / "c.yaml", "threads")).result()
    return tables(folder / "store")


@pytest.mark.usefixtures("in_prefect")
@pytest.mark.parametrize("name", ["dask", "ray"])
def test_labels_are_those_of_threads_though_a_worker_is_killed(
    name: str,
    clips: Path,
    by_threads: dict[str, list[dict[str, Any]]],
    held: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    store, over, killed = tmp_path / "store", threading.Event(), []

    def kill_one() -> None:
        victim = at_work(held, over)
        if os.getpid() in {p.pid for p in psutil.Process(victim).parents()}:
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)
        (held / "go").touch()

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        state = labelled(clips, store, config(tmp_path / "c.yaml", name))
    finally:
        over.set()
        killer.join()
    assert tuple(capfd.readouterr()) == ("", "")
    summary = state.result()
    assert len(killed) == 1
    assert summary["status"] == "complete"
    assert tables(store) == by_threads
    assert verify(Store(store)) == []
    loads_once(held)
    assert not set(killed) & set(pids(held / "done"))
    assert set(states(state.state_details.flow_run_id)) == {"COMPLETED"}


def states(flow_run: Any) -> list[str]:
    """Of a flow run's task runs, once the server has heard of all their ends."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run]))
    deadline = time.monotonic() + 20
    with get_client(sync_client=True) as client:
        while True:
            runs = client.read_task_runs(flow_run_filter=wanted)
            found = [run.state_type.value for run in runs if run.state_type]
            if set(found) == {"COMPLETED"} or time.monotonic() > deadline:
                return found
            time.sleep(0.2)


@pytest.mark.usefixtures("in_prefect")
def test_a_killed_pool_is_one_line_and_the_same_command_goes_on(
    channel: Path, held: Path, fake_config: Path, tmp_path: Path
) -> None:
    settings = yaml.safe_load(fake_config.read_text(encoding="utf-8"))
    undisturbed, store = tmp_path / "undisturbed", tmp_path / "store"
    labelled(channel, undisturbed, config(tmp_path / "t.yaml", "threads", settings)).result()
    chosen = config(tmp_path / "c.yaml", "processes", settings)
    over = threading.Event()
    killer = threading.Thread(target=lambda: os.kill(at_work(held, over), signal.SIGKILL))
    killer.start()
    state = labelled(channel, store, chosen)
    over.set()
    killer.join()
    with pytest.raises(VsaError, match=r"lost.*the same command goes on"):
        state.result()
    (held / "go").touch()
    (held / "loads").unlink()
    labelled(channel, store, chosen).result()
    assert tables(store) == tables(undisturbed)
    assert verify(Store(store)) == []
    loads_once(held)


def loads_once(held: Path) -> None:
    """Each process loads a model once, however many shards it looks at."""
    loads, done = Counter(pids(held / "loads")), Counter(pids(held / "done"))
    assert set(loads.values()) == {1}
    assert max(done.values()) > 1


# --- the command --------------------------------------------------------------------------


@pytest.fixture
def channel(tmp_path: Path) -> Path:
    folder = tmp_path / "channel"
    folder.mkdir()
    for i in range(3):
        captions(film(folder / f"talk {i}.mp4", 8 + i))
    return folder


@pytest.fixture(params=["processes", "dask", "ray"])
def command(
    request: pytest.FixtureRequest,
    channel: Path,
    held: Path,
    fake_config: Path,
    tmp_path: Path,
    prefect_api: str,
) -> Iterator[subprocess.Popen[str]]:
    """`vsa run` with each runner, in the middle of a task that it does not finish."""
    settings = yaml.safe_load(fake_config.read_text(encoding="utf-8"))
    chosen = config(tmp_path / "c.yaml", request.param, settings)
    run = subprocess.Popen(
        [VSA, "run", channel, "--store", tmp_path / "store", "--config", chosen],
        env={**os.environ, "PREFECT_API_URL": prefect_api},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal sends Ctrl-C to the whole group
    )
    at_work(held, run)
    yield run
    run.kill()
    run.communicate()


def left(processes: list[psutil.Process]) -> list[str]:
    """What still runs though it was given time to end."""
    _, alive = psutil.wait_procs(processes, timeout=20)
    return [f"{p.pid} {p.name()}" for p in alive if p.status() != psutil.STATUS_ZOMBIE]


def test_ctrl_c_is_one_line_and_leaves_no_process(command: subprocess.Popen[str]) -> None:
    processes = psutil.Process(command.pid).children(recursive=True)
    os.killpg(command.pid, signal.SIGINT)
    out, err = command.communicate(timeout=_LIMIT_S)
    assert command.returncode == 130, err
    assert out == ""
    said = [line for line in err.splitlines() if line and " done in " not in line]
    assert [line.split()[0] for line in said] == ["Starting", "Loading", "Interrupted."], err
    # What other processes did was told, too.
    assert "Opening videos: 3 done in " in err
    assert left(processes) == []


def test_no_worker_outlives_a_killed_run(command: subprocess.Popen[str]) -> None:
    processes = psutil.Process(command.pid).children(recursive=True)
    # Ray's agents, which do no work, look for its server for a minute before they give up.
    workers = [process for process in processes if "Agent" not in process.name()]
    command.kill()
    assert left(workers) == []


# --- what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize(("name", "module"), [("dask", "prefect_dask"), ("ray", "prefect_ray")])
def test_a_missing_extra_says_what_to_install(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.runners import runner

    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"{module}.task_runners", raising=False)
    wanted = rf"runner {name} needs the package {module}: pip install 'vsa\[{name}\]'"
    with pytest.raises(ConfigError, match=wanted), runner(Run(runner=name)):
        pass


@pytest.mark.parametrize("name", ["dask", "ray"])
@pytest.mark.parametrize("scheme", ["", "tcp://", "ray://"])
def test_an_address_where_nobody_listens_is_one_line(name: str, scheme: str) -> None:
    from flows.runners import runner

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{closed.getsockname()[1]}"
    with (
        pytest.raises(ConfigError, match=f"no cluster answers at {address} .*run.address"),
        runner(Run(runner=name, address=address)),
    ):
        pass


def test_an_address_without_a_port_says_how_to_write_it() -> None:
    from flows.runners import runner

    with (
        pytest.raises(ConfigError, match="HOST:PORT"),
        runner(Run(runner="dask", address="scheduler.example")),
    ):
        pass


# --- how many tasks -----------------------------------------------------------------------


class Counting:
    """Runs nothing: every shard went through, and is counted."""

    def __init__(self) -> None:
        self.shards = 0

    def map(self, task: Any, parameters: Any) -> list[Any]:
        from prefect.futures import PrefectConcurrentFuture
        from prefect.states import Completed

        from tasks.ingest import FetchResult
        from tasks.shards import ShardResult

        futures = []
        for shard in parameters["shard"]:
            self.shards += 1
            wrapped: Future[Any] = Future()
            ids = tuple(getattr(one, "video_id", one) for one in shard)
            done = ShardResult(ids, ())
            wrapped.set_result(
                Completed(data=FetchResult(tuple(shard), ()) if task.name == "fetch" else done)
            )
            futures.append(PrefectConcurrentFuture(uuid4(), wrapped))
        return futures


@pytest.mark.parametrize("web", [False, True])
def test_ten_thousand_videos_are_hundreds_of_task_runs(
    web: bool, fake_config: Path, tmp_path: Path
) -> None:
    from flows.stages import look

    settings = load_config(fake_config)
    found = []
    for n in range(10_000):
        url = f"https://example.org/{n}"
        item = Item(url=url, source_id=f"s{n}") if web else None
        found.append(Found(url, url, video_id=f"v{n:011}", item=item))
    over = Counting()
    looked = look(found, settings, str(tmp_path / "store"), over, {})
    assert len(looked.video_ids) == 10_000
    assert 100 < over.shards < 1_000
