"""Label what is new in some channels: the flow that runs every night."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from prefect import flow

from flows.closing import close
from flows.news import Group, groups, look_at_new
from flows.opening import opened
from tasks.fuse import consider, current_model, train
from tasks.policies import share_cores
from tasks.reports import table
from vsa_core import archive
from vsa_core.fusion import FusionModel
from vsa_core.runs import RunFailedError
from vsa_core.standing import unlabelled
from vsa_core.store import Store


@flow(name="watch-channels")
def watch_channels(
    channels: str = "configs/channels.yaml",
    store: str = "store",
    profile: str | None = None,
    config: str | None = None,
    only: list[str] | None = None,
    retry: bool = False,
) -> list[dict[str, Any]]:
    """Label the videos of some channels that were not labelled before.

    The fusion model promoted for a channel's domain decides. Where none is, one is learned from
    all that the domain's channels have so far, and promoted once it beats late fusion.

    Args:
        channels: YAML file that names the channels.
        store: Folder or s3:// address of the tables.
        profile: Models of channels that name no profile; null for the config's, else `embedded`.
        config: YAML file laid over each profile.
        only: Names of channels to watch; null for all of the file.
        retry: Try again now what was refused or failed too often: after filters, limits, cookies or
            the proxy were changed.

    Returns:
        A summary for each group of channels that had something new.

    Raises:
        ConfigError: channels or settings that make no sense.
        RunFailedError: in a group more failed than `run.max_failed_share` allows; the others were
            labelled.
    """
    share_cores()
    tables = opened(store)
    summaries: list[dict[str, Any]] = []
    failed: list[RunFailedError] = []
    for group in groups(channels, profile, config, only):
        try:
            if (summary := _watched(group, tables.location, retry)) is not None:
                summaries.append(summary)
        except RunFailedError as error:
            failed.append(error)
    shown = (
        "run_id", "status", "videos", "videos_new", "videos_failed", "segments", "labelled",
        "model_id",
    )  # fmt: skip
    rows = [
        {key: summary[key] for key in shown}
        for summary in [*summaries, *(error.summary for error in failed)]
    ]
    table("vsa-watch", rows or [{"new": "nothing"}], "What was new in the channels")
    if failed:
        raise failed[0]
    return summaries


def _watched(group: Group, root: str, retry: bool) -> dict[str, Any] | None:
    """The summary of a group's run; None where nothing is new."""
    started = datetime.now(UTC)
    known = archive.known(Store(root))
    looked, asked = look_at_new(group, root, known, retry=retry)
    # What a run that was cut off looked at, and did not come to label.
    theirs = archive.videos_of(archive.known(Store(root)), group.names)
    left = unlabelled(theirs, group.settings, Store(root))
    left = [video_id for video_id in left if video_id not in looked.video_ids]
    if not asked and not left:
        return None
    asked += len(left)
    looked.video_ids += left
    model = current_model(group.domain, group.settings, root)
    if model is None:
        model = _first(group, root)
    return close(group.names, asked, looked, model, group.settings, root, started)


def _first(group: Group, root: str) -> FusionModel:
    """A model learned from all there is of a domain that has none."""
    videos = archive.videos_of(archive.known(Store(root)), group.names)
    model = train(videos, group.settings, root)
    if model.card is not None:
        consider(group.domain, model, videos, group.settings, root, by="watch-channels")
    return model
