"""How every flow that labels ends: labels, the run's row, its artifacts, a tidy store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from flows.stages import Looked
from tasks.fuse import finish, resolve
from tasks.reports import report
from tasks.shards import split
from tasks.upkeep import tidy
from vsa_core.config import Settings
from vsa_core.fusion import FusionModel
from vsa_core.progress import begin
from vsa_core.runs import LABEL_SHARD_VIDEOS, RunFailedError, identify


def close(
    sources: Sequence[str],
    asked: int,
    looked: Looked,
    model: FusionModel,
    settings: Settings,
    root: str,
    started: datetime,
) -> dict[str, Any]:
    """Label the videos that were looked at with a model, and close the run.

    Args:
        sources: what was asked for.
        asked: how many videos and addresses that was.
        looked: what became of them.
        model: who decides.
        settings: of the run.
        root: of the store.
        started: when the run began.

    Returns:
        The run's summary.

    Raises:
        RunFailedError: more videos failed than `run.max_failed_share` allows.
    """
    # In the order of joined files: a shard of labels then reads few of their row groups.
    videos = sorted(looked.video_ids)
    run_id = identify(root, videos, model.model_id, settings)
    shards = split(videos, LABEL_SHARD_VIDEOS)
    begin("label", len(shards))
    for number, shard in enumerate(shards):
        resolve(run_id, number, shard, model, settings, root)
    summary = finish(
        run_id,
        sources,
        asked,
        videos,
        looked.failures,
        model,
        settings,
        root,
        started,
        looked.passed_over,
        looked.listed,
    )
    summary["videos_new"] = looked.new
    report(summary, root)
    tidy(root)
    if summary["status"] == "failed":
        raise RunFailedError(summary)
    return summary
