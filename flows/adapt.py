"""Adapt to a domain: learn from a named set of channels, and take over only if that is better."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from prefect import flow

from flows.closing import close
from flows.news import groups, look_at_new
from flows.opening import opened
from flows.stages import Looked
from tasks.fuse import consider, current_model, train
from tasks.policies import share_cores
from tasks.reports import table
from vsa_core import archive
from vsa_core.errors import ConfigError
from vsa_core.fusion import LATE_FUSION, FusionModel
from vsa_core.standing import predicted
from vsa_core.store import Store


@flow(name="adapt-domain")
def adapt_domain(
    domain: str = "default",
    channels: str = "configs/channels.yaml",
    store: str = "store",
    profile: str | None = None,
    config: str | None = None,
    fetch_new: bool = True,
) -> dict[str, Any]:
    """Learn a fusion model for a domain, compare it, promote it if it is better, and label.

    The candidate is held against late fusion and the domain's current model on consensus that is
    hidden from each, and on what people said of segments. Whichever is the domain's model
    afterwards labels all of the domain's videos.

    Args:
        domain: The set of channels that bear this `domain` in the file.
        channels: YAML file that names the channels.
        store: Folder or s3:// address of the tables.
        profile: Models of channels that name no profile; null for the config's, else `embedded`.
        config: YAML file laid over each profile.
        fetch_new: Fetch and look at what is new in the channels first.

    Returns:
        The run's summary, with the `decision` about the candidate.

    Raises:
        ConfigError: channels or settings that make no sense, channels of one domain with
            different models, nothing labelled to learn from.
        RunFailedError: more videos failed than `run.max_failed_share` allows.
    """
    started = datetime.now(UTC)
    share_cores()
    tables = opened(store)
    root = tables.location
    found = groups(channels, profile, config, domain=domain)
    if len(found) > 1:
        profiles = ", ".join(sorted({group.settings.profile for group in found}))
        raise ConfigError(
            f"channels of domain {domain!r} are labelled with different models ({profiles}): one "
            "fusion model cannot serve them; give each profile a domain of its own"
        )
    [group] = found
    settings = group.settings
    looked, asked = Looked(), 0
    if fetch_new:
        looked, asked = look_at_new(group, root, archive.known(tables))
    videos = archive.videos_of(archive.known(tables), group.names)
    ready = predicted(videos, settings, Store(root))
    if not ready:
        raise ConfigError(
            f"no video of domain {domain!r} was looked at with the models of profile "
            f"{settings.profile!r}: run watch-channels with it first"
        )
    asked += len(set(ready) - set(looked.video_ids))
    looked.video_ids = ready
    candidate = train(ready, settings, root)
    decision: dict[str, Any] | None = None
    if candidate.card is not None:
        decision = consider(domain, candidate, ready, settings, root, by="adapt-domain")
    model = current_model(domain, settings, root) or FusionModel(
        LATE_FUSION, None, candidate.reason or (decision or {}).get("reason")
    )
    summary = close(group.names, asked, looked, model, settings, root, started)
    summary["candidate"] = candidate.model_id
    summary["decision"] = decision
    if decision is not None:
        table("vsa-comparison", decision["compared"], f"{decision['action']}: {decision['reason']}")
    return summary
