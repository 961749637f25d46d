"""A quiet Prefect server of our own for a run started by hand, gone when the run ends.

Prefect's ephemeral server prints tracebacks at exit and trips over its own database on a new
home; a real one on loopback does not. It runs in a child process that also ends when its parent
is killed. `python -m flows.server HOME PARENT` is that child.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from vsa_core.errors import VsaError
from vsa_core.folders import cache_dir

_START_LIMIT_S = 180.0
_DATABASE = "prefect.db"
# What a run by hand has no use for, and what would call home.
_SERVER_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "true",
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_EVENTS_STREAM_OUT_ENABLED": "false",
}


class LocalServer:
    """A server being started; `wait` for it before the first flow run.

    Args:
        home: its folder, of which nothing is left at the end.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._template = cache_dir() / f"prefect-{version('prefect')}.db"
        if self._template.is_file():
            shutil.copyfile(self._template, home / _DATABASE)
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
            **_SERVER_SETTINGS,
            "PREFECT_HOME": str(home),
        }
        with (home / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flows.server", str(home), str(os.getpid())],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the run, which ends the server itself
            )

    def wait(self) -> str:
        """The address of its API, once it answers.

        Raises:
            VsaError: it ended or did not answer in time; the last line it wrote says why.
        """
        deadline = time.monotonic() + _START_LIMIT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                url = f"http://127.0.0.1:{int((self.home / 'port').read_text())}/api"
                with urlopen(f"{url}/health", timeout=5) as answer:
                    if answer.status == 200:
                        self._keep_template()
                        return url
            except (URLError, OSError, ValueError):
                time.sleep(0.05)
        said = (self.home / "server.log").read_text(errors="replace").strip().splitlines()
        raise VsaError(
            "the Prefect server for this run did not start"
            f" ({said[-1] if said else 'it said nothing'}): start one with `prefect server start`,"
            " set PREFECT_API_URL to its address and run again"
        )

    def stop(self) -> None:
        """End it, and remove its folder."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.home, ignore_errors=True)

    def _keep_template(self) -> None:
        """Keep the new database, still without runs, to spare the next start its migrations."""
        if self._template.is_file():
            return
        self._template.parent.mkdir(parents=True, exist_ok=True)
        mine = self._template.with_name(f"{self._template.name}.{uuid.uuid4().hex}")
        try:
            with sqlite3.connect(self.home / _DATABASE) as source, sqlite3.connect(mine) as target:
                source.backup(target)
            mine.replace(self._template)
        except (OSError, sqlite3.Error):
            mine.unlink(missing_ok=True)  # only slower next time


@contextmanager
def starting_server() -> Iterator[LocalServer | None]:
    """A server of our own, or None where PREFECT_API_URL names one to use.

    Raises:
        VsaError: no folder can be made for it.
    """
    if os.environ.get("PREFECT_API_URL"):
        yield None
        return
    try:
        home = Path(tempfile.mkdtemp(prefix="vsa-prefect-"))
    except OSError as error:
        raise VsaError(f"no temporary folder for the Prefect server: {error}") from error
    server = LocalServer(home)
    try:
        yield server
    finally:
        server.stop()


def _serve(home: Path, parent: int) -> None:
    """Be the server, on a free port of loopback written to `home/port`, as long as parent lives."""
    import uvicorn

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)

    def end_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        shutil.rmtree(home, ignore_errors=True)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=end_with_parent, daemon=True).start()
    config = uvicorn.Config(
        "prefect.server.api.server:create_app", factory=True, log_level="critical"
    )
    (home / "port").write_text(str(listener.getsockname()[1]))
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]))
