"""Learn how to fuse what the models say, label every segment, and close the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from prefect import task

from tasks.policies import STAGE
from tasks.shards import Failure
from vsa_core import runs
from vsa_core.config import Settings
from vsa_core.fusion import FusionModel
from vsa_core.fusion.resolve import resolve as core_resolve
from vsa_core.fusion.train import train_fusion
from vsa_core.progress import Steps
from vsa_core.store import Store, TableRef


@task(name="train", **STAGE)
def train(video_ids: Sequence[str], settings: Settings, root: str) -> FusionModel:
    """The fusion model of these videos."""
    steps = Steps("train")
    store = Store(Path(root))
    backends = runs.backend_ids(settings)
    model = train_fusion(store, video_ids, backends, settings, progress=steps.reach)
    steps.reach(1.0)
    return model


@task(name="label", **STAGE)
def resolve(
    run_id: str,
    shard: int,
    video_ids: Sequence[str],
    model: FusionModel,
    settings: Settings,
    root: str,
) -> TableRef:
    """The labels of one shard of videos."""
    steps = Steps("label")
    backends = runs.backend_ids(settings)
    ref = core_resolve(Store(Path(root)), run_id, shard, video_ids, backends, model, settings)
    steps.reach(1.0)
    return ref


@task(name="finish", **STAGE)
def finish(
    run_id: str,
    sources: Sequence[str],
    asked: int,
    video_ids: Sequence[str],
    failures: Sequence[Failure],
    model: FusionModel,
    settings: Settings,
    root: str,
    started: datetime,
) -> dict[str, Any]:
    """The run's row, which makes its labels the current ones, and its summary."""
    return runs.record(
        Store(Path(root)),
        run_id,
        sources=sources,
        video_ids=video_ids,
        asked=asked,
        failures=[asdict(failure) for failure in failures],
        model=(model.model_id, model.card, model.reason),
        settings=settings,
        started=started,
    )
