"""Label every spoken segment of some sources: files, folders, URLs, channels."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow

from flows.closing import close
from flows.opening import opened
from flows.runners import runner
from flows.stages import look
from tasks.fuse import train
from tasks.ingest import find_videos
from tasks.policies import share_cores
from vsa_core import archive
from vsa_core.config import load_config
from vsa_core.progress import begin


@flow(name="label-sources")
def label_sources(
    sources: list[str],
    store: str = "store",
    profile: str | None = None,
    config: str | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """Label the videos of some sources.

    Args:
        sources: Video files, folders, http(s) addresses (a video, a playlist, a channel, a feed),
            or text files of addresses.
        store: Folder or s3:// address of the tables.
        profile: Name of a profile; null for the config's, else `embedded`.
        config: YAML file laid over the profile.
        limit: Take at most so many videos; null for all.

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
    tables = opened(store)
    root = tables.location
    known = archive.known(tables)
    labelled = {source: one.video_id for source, one in known.items() if one.video_id}
    found = find_videos(sources, settings, root, limit, labelled)
    with runner(settings.run) as over:
        looked = look(found, settings, root, over, known)
    begin("train", 1)
    model = train(looked.video_ids, settings, root)
    return close(sources, len(found), looked, model, settings, root, started)
