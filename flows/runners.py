"""Where a flow's tasks run: threads, processes, Dask or Ray, by the settings, never by the flow.

A runner is started inside the flow, not handed to it: a deployment loads its flow by name, so that
`with_options` could not reach it, and one cluster serves all stages of all batches.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any, Self
from urllib.parse import urlsplit

from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from tasks.policies import share_cores
from vsa_core.config import Run
from vsa_core.errors import ConfigError, VsaError

Runner = TaskRunner[Any]

_ANSWER_S = 8.0
# Refs and ids cross Ray's object store, never bulk data; by default it takes a third of the memory.
_RAY_OBJECTS_BYTES = 100_000_000


@contextmanager
def runner(settings: Run) -> Iterator[Runner]:
    """The task runner of the settings, started; its processes end with the block.

    Args:
        settings: `runner`, `workers` and `address` count.

    Raises:
        ConfigError: its package is not installed, or its cluster does not answer.
        VsaError: it does not start, or worker processes were killed more often than it is tried
            again.
    """
    if settings.address and settings.runner in ("dask", "ray"):
        _reach(settings.runner, settings.address)
    _hush_tracker()
    made = _made(settings)
    deaths = _deaths(settings.runner)
    with ExitStack() as started:
        try:
            started.enter_context(made)
            if settings.runner == "dask":
                with _deaf_to_interrupts():
                    _ = made.client  # type: ignore[attr-defined]  # starts or finds the cluster
        except Exception as error:  # each cluster has its own, down to bare ones
            where = f"at {settings.address}" if settings.address else "on this machine"
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise VsaError(
                f"run.runner {settings.runner} did not start {where} ({said}): try again when "
                "there is less to do there, or use another run.runner"
            ) from error
        try:
            yield made
        except deaths as error:
            raise VsaError(
                f"run.runner {settings.runner}: worker processes were lost, mostly killed for want "
                f"of memory ({type(error).__name__}): what is done is kept, and the same command "
                "goes on from there; fewer run.workers need less memory"
            ) from error


def here(over: Runner) -> bool:
    """Whether a runner's tasks run in this process, where they tell of their progress."""
    return isinstance(over, ThreadPoolTaskRunner)


def _made(settings: Run) -> Runner:
    if settings.runner == "threads":
        return ThreadPoolTaskRunner(max_workers=settings.workers)
    if settings.runner == "processes":
        return _Processes(max_workers=settings.workers, initializer=_begin)
    try:
        if settings.runner == "dask":
            return _dask(settings)
        return _ray(settings)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        raise ConfigError(
            f"run.runner {settings.runner} needs the package {package}: "
            f"pip install 'vsa[{settings.runner}]'"
        ) from error


class _Processes(ProcessPoolTaskRunner):
    """Prefect's pool, with processes that end with this one and leave Ctrl-C to it."""

    def __enter__(self) -> Self:
        self._context = copy_context()
        before = set(multiprocessing.active_children())
        super().__enter__()
        assert self._executor is not None
        with _deaf_to_interrupts():  # all are started here, which the pool does one per call
            for _ in range(self._max_workers):
                self._executor.submit(os.getpid)
        self._children: set[BaseProcess] = set(multiprocessing.active_children()) - before
        return self

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        if exc_type is not None:  # a task in the middle of a video has nothing to lose
            for child in self._children:
                child.kill()
        super().__exit__(exc_type, exc_value, traceback)

    def _forward_subprocess_messages(self) -> None:
        # In a thread of its own that would not know the flow's settings, nor its server.
        self._context.run(super()._forward_subprocess_messages)


def _begin() -> None:
    """Be a process of the pool: end when the flow's is killed, which the pool does not see to."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    share_cores()


def _dask(settings: Run) -> Runner:
    from prefect_dask.task_runners import DaskTaskRunner

    level = _level()
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(level)
    made: Runner
    if settings.address:
        made = DaskTaskRunner(address=settings.address, client_kwargs={"timeout": _ANSWER_S})
        return made
    # One task at a time in a worker: torch computes with one thread per task, and a worker that
    # runs out of memory takes one shard with it, which another worker does again.
    kwargs = {
        "n_workers": settings.workers,
        "threads_per_worker": 1,
        "dashboard_address": "127.0.0.1:0",
        "security": True,  # whoever reaches a scheduler runs code: other users of this machine
        "silence_logs": level,
    }
    made = DaskTaskRunner(cluster_kwargs=kwargs)
    return made


def _ray(settings: Run) -> Runner:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    # Tasks that ask for no GPU see those there are: our models take one where they find it.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray._private.worker as driver
    from prefect_ray.task_runners import RayTaskRunner  # type: ignore[import-untyped]

    # It prints on stdout, whatever log_to_driver says, that a worker died, and tries it again.
    driver._worker_logs_enabled = False

    level = _level()
    logging.getLogger("ray").setLevel(level)
    kwargs = {"log_to_driver": False, "configure_logging": False, "logging_level": level}
    if settings.address is None:
        kwargs |= {
            "num_cpus": settings.workers,
            "include_dashboard": False,
            "object_store_memory": _RAY_OBJECTS_BYTES,
        }
    made: Runner = RayTaskRunner(address=settings.address or "local", init_kwargs=kwargs)
    return made


def _level() -> int:
    """Others' loggers say as much as Prefect's does, but no more than warnings."""
    return max(logging.WARNING, logging.getLogger("prefect").getEffectiveLevel())


def _deaths(name: str) -> tuple[type[BaseException], ...]:
    """What a runner raises when its workers died."""
    if name == "dask":
        from distributed import KilledWorker

        return (KilledWorker, CancelledError)
    if name == "ray":
        from ray import exceptions

        return (
            exceptions.WorkerCrashedError,
            exceptions.OutOfMemoryError,
            exceptions.NodeDiedError,
            exceptions.LocalRayletDiedError,
        )
    return (BrokenProcessPool,)


def _reach(name: str, address: str) -> None:
    """Find out soon whether anybody listens; Dask and Ray try for minutes, with many words."""
    try:
        where = urlsplit(address if "://" in address else f"//{address}")
        if where.hostname is None or where.port is None:
            raise ValueError("write HOST:PORT")
        socket.create_connection((where.hostname, where.port), timeout=_ANSWER_S).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"run.runner {name}: no cluster answers at {address} ({error}): check run.address"
        ) from error


def _hush_tracker() -> None:
    """Start the process that clears away what processes shared after a run that ended abruptly, as
    one interrupted does; it would warn of having to.
    """
    name = "PYTHONWARNINGS"
    before = os.environ.get(name)
    quiet = "ignore::UserWarning:multiprocessing.resource_tracker"
    os.environ[name] = f"{before},{quiet}" if before else quiet
    try:
        resource_tracker.ensure_running()
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Threads and processes started in the block never see Ctrl-C: it is for the flow, which
    ends them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
