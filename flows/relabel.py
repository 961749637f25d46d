"""Label anew with another fusion model, from what the store holds: no video is opened."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow

from flows.closing import close
from flows.opening import opened
from flows.stages import Looked
from tasks.fuse import chosen_model
from tasks.policies import share_cores
from vsa_core import archive
from vsa_core.config import load_config
from vsa_core.errors import UsageError
from vsa_core.standing import predicted


@flow(name="relabel")
def relabel(
    store: str = "store",
    model: str | None = None,
    domain: str = "default",
    channels: list[str] | None = None,
    profile: str | None = None,
    config: str | None = None,
) -> dict[str, Any]:
    """Label stored videos with a fusion model, from the stored predictions alone.

    Args:
        store: Folder or s3:// address of the tables.
        model: Id of a model of the store, or a strategy that learns nothing (`late-mean`); null
            for the one promoted for the domain.
        domain: Whose promoted model, where no model is named.
        channels: Names of channels, as in channels.yaml; null for every video of the store.
        profile: Whose models' predictions; null for the config's, else `embedded`.
        config: YAML file laid over the profile.

    Returns:
        The run's summary.

    Raises:
        UsageError: no such model, none promoted, or no video with such predictions.
        StoreError: a table or the model does not read, or does not fit the predictions.
    """
    started = datetime.now(UTC)
    share_cores()
    settings = load_config(Path(config) if config else None, profile)
    tables = opened(store)
    root = tables.location
    fusion = chosen_model(model, domain, settings, root)
    wanted = archive.videos_of(archive.known(tables), channels) if channels else None
    videos = predicted(wanted, settings, tables)
    if not videos:
        raise UsageError(
            f"{tables.location} holds no video with predictions of profile {settings.profile!r}"
            + (f" in channels {', '.join(channels)}" if channels else "")
            + ": look at them first (`vsa run`, watch-channels)"
        )
    looked = Looked(video_ids=videos, listed=set(videos))
    sources = channels or [tables.location]
    return close(sources, len(videos), looked, fusion, settings, root, started)
