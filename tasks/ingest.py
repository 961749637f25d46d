"""Find videos, and open each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import task

from tasks.policies import STAGE
from tasks.shards import Failure, ShardResult
from vsa_core import ingest as core
from vsa_core.config import Settings
from vsa_core.errors import MediaError
from vsa_core.progress import Steps
from vsa_core.store import Store


@task(name="find", **STAGE)
def find_videos(
    sources: Sequence[str], settings: Settings, root: str, limit: int | None
) -> list[core.Found]:
    """Every video of the sources, each content once; sweeps what killed runs left behind."""
    store = Store(Path(root))
    store.sweep()
    return core.find_videos(sources, settings, store, limit)


@task(name="ingest", **STAGE)
def ingest(found: Sequence[core.Found], settings: Settings, root: str) -> ShardResult:
    """Rows of the videos table for a shard of found videos."""
    store = Store(Path(root))
    done: list[str] = []
    failures: list[Failure] = []
    for item in found:
        steps = Steps("ingest")
        try:
            core.ingest(item, settings, store)
            done.append(item.video_id)
        except MediaError as error:
            failures.append(Failure(item.video_id, item.path, str(error)))
        steps.reach(1.0)
    return ShardResult(tuple(done), tuple(failures))
