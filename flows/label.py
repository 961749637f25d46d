"""Label every spoken segment of some sources: files, folders, URLs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import Task, flow, unmapped
from prefect.task_runners import ThreadPoolTaskRunner

from tasks.fuse import finish, resolve, train
from tasks.ingest import find_videos, ingest
from tasks.policies import share_cores
from tasks.predict import predict
from tasks.reports import report
from tasks.segment import segment
from tasks.shards import ShardResult, split
from tasks.transcribe import transcribe
from vsa_core.backends import BACKENDS
from vsa_core.config import Settings, load_config
from vsa_core.labels import Modality
from vsa_core.progress import begin
from vsa_core.runs import LABEL_SHARD_VIDEOS, RunFailedError, identify
from vsa_core.transcripts.asr import TRANSCRIBERS

# The slowest first: what is left at the end is short then.
_ORDER = (Modality.FACE, Modality.TEXT, Modality.AUDIO)


@flow(name="label-sources", task_runner=ThreadPoolTaskRunner(max_workers=2))  # type: ignore[arg-type]
def label_sources(
    sources: list[str],
    store: str = "store",
    profile: str | None = None,
    config: str | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """Label the videos of some sources.

    Args:
        sources: video files, folders or http(s) URLs.
        store: folder of the tables.
        profile: name of a profile; null for the config's, else `embedded`.
        config: YAML file laid over the profile.
        limit: take at most so many videos; null for all.

    Returns:
        The run's summary, as `vsa run --json` prints it.

    Raises:
        SourceError: a source that is not there.
        ConfigError: settings that make no sense.
        RunFailedError: more videos failed than `run.max_failed_share` allows; its `summary` says
            which.
    """
    started = datetime.now(UTC)
    share_cores()
    settings = load_config(Path(config) if config else None, profile)
    root = str(Path(store).absolute())
    found = find_videos(sources, settings, root, limit)

    opened = _over_shards([ingest], found, settings, root)
    spoken = _over_shards([transcribe], opened.done, settings, root)
    TRANSCRIBERS.unload()  # the memory of one stage's models is the next one's
    cut = _over_shards([segment], spoken.done, settings, root)

    looking = [predict[modality] for modality in _ORDER if modality in settings.backends]
    # What one modality fails at, the others still label.
    seen = _over_shards(looking, cut.done, settings, root)
    BACKENDS.unload()

    begin("train", 1)
    model = train(cut.done, settings, root)
    run_id = identify(root, cut.done, model.model_id, settings)
    shards = split(cut.done, LABEL_SHARD_VIDEOS)
    begin("label", len(shards))
    for number, shard in enumerate(shards):
        resolve(run_id, number, shard, model, settings, root)
    failures = [*opened.failures, *spoken.failures, *cut.failures, *seen.failures]
    summary = finish(
        run_id, sources, len(found), cut.done, failures, model, settings, root, started
    )
    report(summary)
    if summary["status"] == "failed":
        raise RunFailedError(summary)
    return summary


def _over_shards(
    stages: Sequence[Task[..., ShardResult]], items: Sequence[Any], settings: Settings, root: str
) -> ShardResult:
    """Stages that do not need one another, each mapped over all items in shards."""
    for stage in stages:
        begin(stage.name, len(items))
    shards = split(items, settings.run.shard_videos)
    futures = [
        future
        for stage in stages
        for future in stage.map(shards, unmapped(settings), unmapped(root))
    ]
    results = [future.result() for future in futures]
    failures = {(f.video_id, f.reason): f for result in results for f in result.failures}
    done = dict.fromkeys(video_id for result in results for video_id in result.done)
    return ShardResult(tuple(done), tuple(failures.values()))
