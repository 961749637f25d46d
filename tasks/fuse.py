"""Learn how to fuse what the models say, label every segment, and close the run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from prefect import task

from tasks.policies import STAGE
from tasks.shards import Failure
from vsa_core import runs
from vsa_core.config import Settings
from vsa_core.errors import UsageError
from vsa_core.fusion import FusionModel, registry
from vsa_core.fusion.comparing import compare
from vsa_core.fusion.resolve import resolve as core_resolve
from vsa_core.fusion.strategies import UNTRAINED
from vsa_core.fusion.train import train_fusion
from vsa_core.progress import Steps
from vsa_core.store import Store, TableRef


@task(name="train", **STAGE)
def train(video_ids: Sequence[str], settings: Settings, root: str) -> FusionModel:
    """The fusion model of these videos."""
    steps = Steps("train")
    store = Store(root)
    backends = runs.backend_ids(settings)
    model = train_fusion(store, video_ids, backends, settings, progress=steps.reach)
    steps.reach(1.0)
    return model


@task(name="current-model", **STAGE)
def current_model(domain: str, settings: Settings, root: str) -> FusionModel | None:
    """The model promoted for a domain; None where none is that fits these backends."""
    return registry.opened(Store(root), domain, runs.backend_ids(settings))


@task(name="chosen-model", **STAGE)
def chosen_model(model_id: str | None, domain: str, settings: Settings, root: str) -> FusionModel:
    """A model by its id, a strategy that learns nothing by its name, else the domain's."""
    store = Store(root)
    if model_id is None:
        found = registry.opened(store, domain, runs.backend_ids(settings))
        if found is None:
            raise UsageError(
                f"no model that fits profile {settings.profile!r} was promoted for domain "
                f"{domain!r}: name a model (`vsa models fusion list`), promote one, or run "
                "adapt-domain"
            )
        return found
    if model_id in UNTRAINED:
        return FusionModel(model_id, None, None)
    return registry.stored(store, model_id)


@task(name="consider", **STAGE)
def consider(
    domain: str,
    candidate: FusionModel,
    video_ids: Sequence[str],
    settings: Settings,
    root: str,
    by: str,
) -> dict[str, Any]:
    """Hold a candidate against late fusion and the current model, and promote it if it is better.

    Returns:
        action, reason, model_id, current_model_id, and `compared`: a row per judge and contender.
    """
    store, backends = Store(root), runs.backend_ids(settings)
    current = registry.opened(store, domain, backends)
    comparison = compare(store, candidate, current, video_ids, backends, settings)
    decision = registry.consider(store, domain, candidate, comparison, by=by)
    return {
        "action": decision.action,
        "reason": decision.reason,
        "model_id": decision.model_id,
        "current_model_id": decision.current_model_id,
        "compared": [asdict(row) for row in comparison.rows],
    }


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
    ref = core_resolve(Store(root), run_id, shard, video_ids, backends, model, settings)
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
    passed_over: Sequence[Failure] = (),
    listed: Collection[str] = (),
) -> dict[str, Any]:
    """The run's row, which makes its labels the current ones, and its summary."""
    return runs.record(
        Store(root),
        run_id,
        sources=sources,
        video_ids=video_ids,
        asked=asked,
        failures=[asdict(failure) for failure in failures],
        model=(model.model_id, model.card, model.reason),
        settings=settings,
        started=started,
        passed_over=[asdict(one) for one in passed_over],
        listed=listed,
    )
