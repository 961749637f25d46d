"""How Prefect runs our stages: the only place for caching, retries and task options."""

from __future__ import annotations

from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from vsa_core.errors import ModelError, VsaError


def may_pass(error: BaseException) -> bool:
    """Whether trying again may help: not for what we say ourselves is wrong, but for a model that
    failed.
    """
    return not isinstance(error, VsaError) or isinstance(error, ModelError)


def worth_retrying(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether trying a task again may help."""
    try:
        state.result()
    except Exception as error:  # noqa: BLE001 - that is the question
        return may_pass(error)
    return False


def share_cores() -> None:
    """One torch and one OpenCV thread per task: tasks run side by side, and threads that wait for
    one another on a busy machine cost tens of times what they gain. Results do not depend on the
    number of cores then.
    """
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


# The store is the cache: a stage whose output stands does nothing. A second cache, or results
# persisted beside it, could only disagree with it.
STAGE: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "persist_result": False,
    "log_prints": False,
    "retries": 2,
    "retry_delay_seconds": [1, 10],
    "retry_condition_fn": worth_retrying,
}
