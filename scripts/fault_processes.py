"""Processes that are killed: flow runs and the Prefect server, forked from one that has imported"""

from __future__ import annotations

import multiprocessing
import os
import signal
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

# Importing takes longer than a run of ours: it is done once, in a process that does nothing else.
_IMPORTED = ["scripts.fault_processes", "flows.watch", "flows.label", "prefect.server.api.server"]


class Flows:
    """Flow runs in processes of their own, asked for as `Place` asks for those of deployments.

    Args:
        channels: channels.yaml.
        files: the folder of files.
        config: settings where none are given.
    """

    def __init__(self, channels: Path, files: Path, config: Path) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_IMPORTED)
        self._channels, self._files, self._config = channels, files, config
        self._runs: dict[str, BaseProcess] = {}

    def begin(self, store: Path, flow: str, config: Path | None = None) -> str:
        """Start a run; returns its id."""
        given: dict[str, Any] = {"store": str(store), "config": str(config or self._config)}
        if flow == "watch-channels":
            given["channels"] = str(self._channels)
        else:
            given["sources"] = [str(self._files)]
        process = self._context.Process(target=_flow, args=(flow, given))
        process.start()
        self._runs[str(process.pid)] = process
        return str(process.pid)

    def ended(self, run: str) -> str:
        """The state a run ends in."""
        self._runs[run].join()
        return self.state(run)

    def state(self, run: str) -> str:
        """RUNNING, COMPLETED, FAILED, or CRASHED where it was killed."""
        code = self._runs[run].exitcode
        if code is None:
            return "RUNNING"
        return "COMPLETED" if code == 0 else "CRASHED" if code < 0 else "FAILED"

    def engines(self, run: str) -> list[int]:
        """Its process id, as long as it lives."""
        return [int(run)] if self.state(run) == "RUNNING" else []

    def serve(self, port: int, log: Path) -> BaseProcess:
        """The Prefect server on a port; what it says goes to a file."""
        process = self._context.Process(target=_server, args=(port, log))
        process.start()
        return process

    def close(self) -> None:
        """End what runs still."""
        for process in self._runs.values():
            with suppress(ProcessLookupError):
                if process.exitcode is None and process.pid is not None:
                    os.kill(process.pid, signal.SIGKILL)


def _flow(name: str, given: dict[str, Any]) -> None:
    from flows.label import label_sources
    from flows.watch import watch_channels

    if name == "watch-channels":
        watch_channels(**given)
    else:
        label_sources(**given)


def _server(port: int, log: Path) -> None:
    import uvicorn

    with log.open("ab") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    uvicorn.run(
        "prefect.server.api.server:create_app",
        factory=True,
        host="127.0.0.1",
        port=port,
        log_level="critical",
    )
