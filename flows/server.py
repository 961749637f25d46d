"""A quiet Prefect server of our own for a run started by hand, gone when the run ends.

Prefect's ephemeral server prints tracebacks at exit and trips over its own database on a new
home; a real one on loopback does not. It runs in a child process that also ends when its parent
is killed. `python -m flows.server HOME PARENT` is that child.
"""

from __future__ import annotations

import errno
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from vsa_core.errors import VsaError
from vsa_core.folders import cache_dir

_START_LIMIT_S = 180.0
_DATABASE = "prefect.db"
# Its database at first, with room for what a run of some thousand tasks writes.
_LEAST_ROOM_MB = 32
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
# The user's own, of no account to a server of our own: they may not read, or name another server.
_USERS = ("PREFECT_HOME", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH")


class LocalServer:
    """A server being started; `wait` for it before the first flow run.

    Args:
        home: its folder, of which nothing is left at the end.

    Raises:
        OSError: nothing can be written there.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._stopped = False
        self._template = cache_dir() / f"prefect-{version('prefect')}.db"
        if os.access(self._template, os.R_OK):
            shutil.copyfile(self._template, home / _DATABASE)
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
            **_SERVER_SETTINGS,
            "PREFECT_HOME": str(home),
            "HOME": str(home),  # the user's may not be there
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

    def wait(self, lost: Callable[[str], object] | None = None) -> str:
        """The address of its API, once it answers.

        Args:
            lost: called, in a thread of its own, with a line that says so, should the server end
                before it is stopped.

        Raises:
            VsaError: it ended or did not answer in time; the last line it wrote says why.
        """
        loopback = build_opener(ProxyHandler({}))
        deadline = time.monotonic() + _START_LIMIT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                url = f"http://127.0.0.1:{int((self.home / 'port').read_text())}/api"
                with loopback.open(f"{url}/health", timeout=5):
                    pass
            except (OSError, ValueError):
                time.sleep(0.05)
            else:
                self._keep_template()
                if lost is not None:
                    threading.Thread(target=self._watch, args=(lost,), daemon=True).start()
                return url
        raise VsaError(
            f"the Prefect server for this run did not start ({self._last_words()}): start one with "
            "`prefect server start`, set PREFECT_API_URL to its address and run again"
        )

    def stop(self) -> None:
        """End it, and remove its folder; killed, for nothing of it is kept."""
        self._stopped = True
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self.home, ignore_errors=True)

    def _watch(self, lost: Callable[[str], object]) -> None:
        self._process.wait()
        if not self._stopped:
            why = self._last_words()
            shutil.rmtree(self.home, ignore_errors=True)
            lost(
                f"the Prefect server of this run ended ({why}): what is done is kept; run the same "
                "command again"
            )

    def _last_words(self) -> str:
        try:
            said = (self.home / "server.log").read_text(errors="replace").strip().splitlines()
        except OSError:
            said = []
        return said[-1] if said else "it said nothing"

    def _keep_template(self) -> None:
        """Keep the new database, still without runs, to spare the next start its migrations."""
        mine = self._template.with_name(f"{self._template.name}.{uuid.uuid4().hex}")
        try:
            if self._template.exists():
                return
            mine.parent.mkdir(parents=True, exist_ok=True)
            with sqlite3.connect(self.home / _DATABASE) as source, sqlite3.connect(mine) as target:
                source.backup(target)
            mine.replace(self._template)
        except (OSError, sqlite3.Error):  # only slower next time
            with suppress(OSError):
                mine.unlink()


@contextmanager
def starting_server() -> Iterator[LocalServer | None]:
    """A server of our own, or None where PREFECT_API_URL names one to use.

    With one of our own this process's Prefect has its home there too, and no profile of the
    user's; so it has a home for a while where the user's cannot be used.

    Raises:
        VsaError: no folder can be made for it, or there is no room.
    """
    own = not os.environ.get("PREFECT_API_URL")
    if not own and _has_home():
        yield None
        return
    try:
        home = Path(tempfile.mkdtemp(prefix="vsa-prefect-"))
    except OSError as error:
        raise VsaError(f"no temporary folder for Prefect: {_advice(error)}") from error
    server = None
    try:
        if own:
            if (free := shutil.disk_usage(home).free / 1e6) < _LEAST_ROOM_MB:
                why = f"{free:.0f} MB are left of {_LEAST_ROOM_MB} at least"
                raise OSError(errno.ENOSPC, why, str(home.parent))
            server = LocalServer(home)
    except OSError as error:
        shutil.rmtree(home, ignore_errors=True)
        raise VsaError(f"the Prefect server for this run cannot start: {_advice(error)}") from error
    try:
        with at_home(home):
            yield server
    finally:
        # Interrupted, this process ends: threads of it still use the folder, and the server, which
        # ends with it, removes it then.
        if not (own and isinstance(sys.exception(), KeyboardInterrupt)):
            if server is not None:
                server.stop()
            shutil.rmtree(home, ignore_errors=True)


@contextmanager
def at_home(home: Path) -> Iterator[None]:
    """Prefect's home for this process, if it is imported in the block; no profile of the user's."""
    users = {name: os.environ.pop(name, None) for name in _USERS}
    homes = {"PREFECT_HOME": str(home)}
    if not _is_somebody():
        homes["HOME"] = str(home)
    os.environ.update(homes)
    try:
        yield
    finally:
        for name in homes:
            del os.environ[name]
        os.environ.update({name: value for name, value in users.items() if value is not None})


def _is_somebody() -> bool:
    """Whether this user has a home at all, be it one that cannot be written."""
    return not os.path.expanduser("~").startswith("~")  # noqa: PTH111 - pathlib raises


def _has_home() -> bool:
    """Whether Prefect can keep its things where the user's are."""
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect")
    try:
        home = home.expanduser()
        home.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return False
    return os.access(home, os.R_OK | os.W_OK | os.X_OK)


def _advice(error: OSError) -> str:
    where = error.filename or tempfile.tempdir or "no temporary folder"
    return (
        f"{where}: {error.strerror or error}; set TMPDIR to a folder with room that can be written"
    )


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
