"""A site, a Prefect server, a worker and stores in which faults are tried, and what stands there"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import yaml

from scripts.fault_processes import Flows
from tests import bad_media
from tests.fakes import in_children
from tests.small_site import Site, film
from vsa_core import archive
from vsa_core.ingest.media_folder import UNFINISHED, media_file
from vsa_core.query import ask
from vsa_core.schemas import TABLES
from vsa_core.store import Store
from vsa_core.verify import verify

REPO = Path(__file__).parent.parent
LIMIT_S = 240.0
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
TALKS, FILES = 8, 4
# A clock's reading, and what names the run.
_VARY = {
    "videos": ("media_mtime_ns",),
    "labels": ("run_id",),
}
_DERIVED = ("videos", "transcripts", "segments", "predictions", "embeddings", "faces")
_SERVER = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "true",
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
    # Nothing here is scheduled, late, paused or limited.
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_CLIENT_MAX_RETRIES": "8",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "OMP_NUM_THREADS": "1",
}

_T = TypeVar("_T")
Standing = dict[tuple[str, str, str], tuple[str, int]]


class Place:
    """A folder with all that runs are made of.

    Args:
        folder: an empty one.
        site: to be filled.
    """

    def __init__(self, folder: Path, site: Site) -> None:
        self.folder, self.site = folder, site
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.api = f"http://127.0.0.1:{self.port}/api"
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        self.environment = {
            **clean,
            **_SERVER,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}",
            "PWD": str(folder),
            "PYTHONPATH": in_children(),
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self.api,
        }
        self.bodies = [film(folder, 3 + n / 10, f"talk{n}.mp4") for n in range(TALKS)]
        self.feed = f"{site.address}/feed.xml"
        self.serve()
        self.files = folder / "files"
        self.files.mkdir()
        for n in range(FILES):
            self._file(self.files / f"talk {n}.mp4", 6 + n)
        (folder / "channels.yaml").write_text(
            yaml.safe_dump({"channels": [{"name": "talks", "url": self.feed}]}), encoding="utf-8"
        )
        self.config = self._config("learned")
        self.plain = self._config("plain", strategy="late-mean")
        self.flows = Flows(folder / "channels.yaml", self.files, self.config)
        self.server: BaseProcess | None = None
        self.worker: subprocess.Popen[bytes] | None = None
        self._ids: dict[str, str] = {}

    def serve(self) -> None:
        """Put every page of the site as it should be."""
        items = []
        for n, body in enumerate(self.bodies):
            words = f"I {'love' if n % 2 else 'hate'} talk {n}."
            url = self.site.talk(f"/talk{n}", body, words, f"Talk {n}")
            items.append((f"Talk {n}", f"Mon, {n + 1:02} Jun 2026 12:00:00 +0000", url))
        self.site.rss("/feed.xml", items)

    def _file(self, path: Path, seconds: int) -> None:
        bad_media.write(path, bad_media.film(seconds * bad_media.FPS), bad_media.sweep(seconds))
        cues = "".join(
            f"00:00:{i * 1.5:06.3f} --> 00:00:{i * 1.5 + 1.2:06.3f}\nLine {i} of {path.stem}.\n\n"
            for i in range(4)
        )
        path.with_suffix(".vtt").write_text(f"WEBVTT\n\n{cues}", encoding="utf-8")

    def _config(self, name: str, **fusion: Any) -> Path:
        settings = {
            "transcripts": {"transcriber": None},
            "backends": {m: {"name": f"fake-{m}"} for m in ("text", "face", "audio")},
            "fusion": {"min_consensus": 4, "max_epochs": 10, **fusion},
            "run": {"shard_videos": 1},
            "sources": {"allow_private_addresses": True},
            "download": {"backoff_s": 0.01, "timeout_s": 5, "retries": 1, "batch_videos": 3},
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        return path

    # --- services ---------------------------------------------------------------------------

    def start_server(self) -> None:
        """The server, on the port it always has; returns once it answers."""
        # `prefect server start` runs this application in a child; here it is the process itself,
        # so that what is killed is the server.
        self.server = self.flows.serve(self.port, self.folder / "server.log")
        waited(lambda: self._healthy() or None, "the server answers")

    def start_worker(self) -> None:
        """The worker of the pool."""
        self.worker = self._spawn("worker", ["prefect", "worker", "start", "--pool", "vsa"])

    def kill_server(self) -> None:
        """SIGKILL, and nothing else."""
        if self.server is not None:
            self.server.kill()
            self.server.join()

    def kill_worker(self) -> None:
        """SIGKILL to the worker alone, not to what it started."""
        if self.worker is not None:
            self.worker.kill()
            self.worker.wait()

    def deploy(self) -> None:
        """The deployments of prefect.yaml, over this place's site and settings."""
        made = yaml.safe_load((REPO / "prefect.yaml").read_text(encoding="utf-8"))
        ours = []
        for deployment in made["deployments"]:
            if deployment["name"] in ("nightly", "on-demand"):
                # Without the limit runs overlap: what it hides is what is tried here.
                deployment.pop("concurrency_limit", None)
                deployment["schedules"] = []
                ours.append(deployment)
        made["deployments"] = ours
        (self.folder / "prefect.yaml").write_text(yaml.safe_dump(made), encoding="utf-8")
        self.said("prefect", "work-pool", "create", "vsa", "--type", "process")
        self.said("prefect", "deploy", "--all")
        for flow, name in (("watch-channels", "nightly"), ("label-sources", "on-demand")):
            self._ids[flow] = self.ask(f"deployments/name/{flow}/{name}")["id"]

    def close(self) -> None:
        """End everything that was started here."""
        self.kill_worker()
        self.flows.close()
        for process in self.engines():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.kill_server()

    def said(self, *command: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Exit code and output of a command."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        return done.returncode, done.stdout

    def _spawn(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )

    def _healthy(self) -> bool:
        try:
            return bool(urlopen(f"{self.api}/health", timeout=5).status == 200)
        except OSError:
            return False

    # --- runs -------------------------------------------------------------------------------

    def ask(self, path: str, body: object | None = None) -> Any:
        """The server's answer; asked again while it is away or busy."""
        request = Request(
            f"{self.api}/{path}",
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )

        def answer() -> Any:
            try:
                with urlopen(request, timeout=30) as said:
                    return json.load(said)
            except HTTPError as error:
                if error.code != 503:  # its database is busy
                    raise
            except OSError:
                return None

        return waited(answer, f"{path} answers")

    def begin(self, store: Path, flow: str = "watch-channels", config: Path | None = None) -> str:
        """Ask for a run of a deployment; returns its id."""
        given: dict[str, Any] = {"store": str(store), "config": str(config or self.config)}
        if flow == "watch-channels":
            given["channels"] = str(self.folder / "channels.yaml")
        else:
            given["sources"] = [str(self.files)]
        made = self.ask(f"deployments/{self._ids[flow]}/create_flow_run", {"parameters": given})
        return str(made["id"])

    def state(self, run: str) -> str:
        """The type of a run's state, as the server has it."""
        return str(self.ask(f"flow_runs/{run}")["state"]["type"])

    def ended(self, run: str) -> str:
        """The state a run ends in."""

        def final() -> str | None:
            state = self.state(run)
            return state if state in ENDED else None

        return waited(final, f"run {run} ends")

    def engines(self, run: str | None = None) -> list[int]:
        """Process ids of the flow runs that this place's worker started."""
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                with suppress(OSError):
                    told = (process / "environ").read_bytes()
                    ours = f"PREFECT_API_URL={self.api}".encode() in told
                    name = f"PREFECT__FLOW_RUN_ID={run or ''}".encode()
                    if ours and name in told:
                        found.append(int(process.name))
        return found

    def vsa(self, store: Path, *sources: str, config: Path | None = None) -> subprocess.Popen[str]:
        """`vsa run`, at work."""
        return subprocess.Popen(
            ["vsa", "run", *sources, "--store", str(store), "--config", str(config or self.config)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def waited(look: Callable[[], _T | None], what: str, every_s: float = 0.1) -> _T:
    """What `look` finds, once it finds something."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(every_s)
    raise TimeoutError(f"{what}: not within {LIMIT_S:.0f} s")


def standing(root: Path) -> Standing:
    """(table, part, key) → (fingerprint, rows) of all that is committed."""
    store = Store(root)
    return {
        (table, part, key): (ref.fingerprint, ref.rows)
        for table in TABLES
        for part in ["", *store.parts(table)]
        for key, ref in store.refs(table, part).items()
    }


def stamps(root: Path) -> dict[str, int]:
    """Inode of every file of a store by name: a file written again has another."""
    found = {}
    for path in root.rglob("*.parquet"):
        with suppress(FileNotFoundError):
            found[str(path.relative_to(root))] = path.stat().st_ino
    return found


def tables(root: Path) -> dict[str, list[str]]:
    """The rows of a store that follow from its sources, one by one as text, in one order."""
    store = Store(root)
    found: dict[str, list[str]] = {}
    for table in _DERIVED:
        rows = (row for data in store.scan(table) for row in data.to_pylist())
        found[table] = _texts(rows, _VARY.get(table, ()))
    found["labels"] = _texts(ask(store, "SELECT * FROM labels").rows(), _VARY["labels"])
    found["sources"] = sorted(
        f"{source} {one.state} {one.video_id}" for source, one in archive.known(store).items()
    )
    return found


def _texts(rows: Any, left_out: tuple[str, ...]) -> list[str]:
    texts = []
    for row in rows:
        kept = {key: value for key, value in dict(row).items() if key not in left_out}
        if "media_path" in kept:  # a store that was copied names the first one's
            kept["media_path"] = Path(kept["media_path"]).name
        texts.append(repr(kept))
    return sorted(texts)


def doubled(root: Path) -> int:
    """Rows and videos that are there twice; attempts are a log of tries, and may be."""
    store = Store(root)
    count = 0
    for table in _DERIVED:
        ids = TABLES[table].id
        rows = [
            tuple(row[name] for name in ids)
            for data in store.scan(table, columns=list(ids))
            for row in data.to_pylist()
        ]
        count += len(rows) - len(set(rows))
    labels = [row["segment_id"] for row in ask(store, "SELECT segment_id FROM labels").rows()]
    return count + len(labels) - len(set(labels))


def half_written(root: Path, bodies: list[bytes]) -> int:
    """Downloads taken for whole that are not what the site sent."""
    whole = {hashlib.sha256(body).hexdigest() for body in bodies}
    count = 0
    media = root / "media"
    for folder in media.iterdir() if media.is_dir() else ():
        if not folder.name.endswith(UNFINISHED) and (path := media_file(folder)) is not None:
            count += hashlib.sha256(path.read_bytes()).hexdigest() not in whole
    return count


def problems(root: Path) -> list[str]:
    """What `vsa store verify` says."""
    return verify(Store(root))
