"""Where a flow's tasks run: threads, processes, Dask or Ray, by the settings, never by the flow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from tasks.policies import share_cores
from vsa_core.config import Run
from vsa_core.errors import ConfigError

Runner = TaskRunner[Any]


@contextmanager
def runner(settings: Run) -> Iterator[Runner]:
    """The task runner of the settings, started; its processes end with the block.

    Args:
        settings: `runner`, `workers` and `address` count.

    Raises:
        ConfigError: its package is not installed, or its cluster does not answer.
    """
    made = _made(settings)
    try:
        made.__enter__()
    except (OSError, TimeoutError, ConnectionError) as error:
        where = settings.address or "this machine"
        raise ConfigError(
            f"run.runner {settings.runner}: no cluster answers at {where} "
            f"({' '.join(str(error).split()) or type(error).__name__}): check run.address"
        ) from error
    try:
        yield made
    finally:
        made.__exit__(None, None, None)


def _made(settings: Run) -> Runner:
    if settings.runner == "threads":
        return ThreadPoolTaskRunner(max_workers=settings.workers)
    if settings.runner == "processes":
        return ProcessPoolTaskRunner(max_workers=settings.workers, initializer=share_cores)
    try:
        if settings.runner == "dask":
            return _dask(settings)
        return _ray(settings)
    except ImportError as error:
        raise ConfigError(
            f"run.runner {settings.runner} needs the package {error.name}: "
            f"pip install 'vsa[{settings.runner}]'"
        ) from error


def _dask(settings: Run) -> Runner:
    from prefect_dask import DaskTaskRunner

    if settings.address:
        return DaskTaskRunner(address=settings.address)
    # One task at a time in a worker: torch computes with one thread per task, and a worker that
    # runs out of memory takes one shard with it, which another worker does again.
    kwargs = {"n_workers": settings.workers, "threads_per_worker": 1, "dashboard_address": None}
    return DaskTaskRunner(cluster_kwargs=kwargs)


def _ray(settings: Run) -> Runner:
    from prefect_ray import RayTaskRunner

    if settings.address:
        return RayTaskRunner(address=settings.address)
    kwargs = {
        "num_cpus": settings.workers,
        "include_dashboard": False,
        "log_to_driver": False,
        "configure_logging": False,
    }
    return RayTaskRunner(init_kwargs=kwargs)
