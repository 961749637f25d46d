"""What flows over channels share: channels that belong together, and what is new in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefect import Task, unmapped

from flows.runners import runner
from flows.stages import Looked, look
from tasks.channels import News, list_channel
from tasks.shards import Failure
from vsa_core.archive import Known, State
from vsa_core.channels import Channel, load_channels
from vsa_core.config import Settings, load_config
from vsa_core.errors import ConfigError
from vsa_core.ingest import Found
from vsa_core.standing import failed
from vsa_core.store import Store


@dataclass(frozen=True, slots=True)
class Group:
    """Channels of one domain that are labelled with the same settings, and together.

    Attributes:
        domain: whose fusion model labels them.
        settings: of all of them; filters are each channel's own.
        channels: in the order of the file.
    """

    domain: str
    settings: Settings
    channels: tuple[Channel, ...]

    @property
    def names(self) -> list[str]:
        """Of the channels."""
        return [channel.name for channel in self.channels]


def groups(
    file: str,
    profile: str | None,
    config: str | None,
    only: Sequence[str] | None = None,
    domain: str | None = None,
) -> list[Group]:
    """The channels of a file, in groups.

    Args:
        file: channels.yaml.
        profile: for channels that name none.
        config: YAML file laid over each profile.
        only: names of the channels wanted; None for all.
        domain: only those of it; None for all.

    Raises:
        ConfigError: the file is wrong, or holds no channel of these names or this domain.
    """
    channels = load_channels(Path(file)).channels
    if unknown := sorted(set(only or ()) - {channel.name for channel in channels}):
        known = ", ".join(channel.name for channel in channels)
        raise ConfigError(f"{file} names no channel {', '.join(unknown)}; there are: {known}")
    wanted = [
        channel
        for channel in channels
        if (not only or channel.name in only) and domain in (None, channel.domain)
    ]
    if not wanted:
        known = ", ".join(sorted({channel.domain for channel in channels}))
        raise ConfigError(f"{file} holds no channel of domain {domain!r}; there are: {known}")
    overlay = Path(config) if config else None
    found: dict[tuple[str, str], Group] = {}
    for channel in wanted:
        settings = load_config(overlay, channel.profile or profile)
        key = (channel.domain, settings.fingerprint())
        group = found.get(key, Group(channel.domain, settings, ()))
        found[key] = replace(group, channels=(*group.channels, channel))
    return list(found.values())


def look_at_new(
    group: Group, root: str, known: Mapping[str, Known], *, retry: bool = False
) -> tuple[Looked, int]:
    """Every stage before fusion over what is new in a group's channels.

    Args:
        group: the channels.
        root: of the store.
        known: what the archive knows of addresses.
        retry: also what was refused or tried too often.

    Returns:
        What became of it, and how many addresses that was; a channel that cannot be listed is a
        failure, and counts as an address.
    """
    # Labelled, but not by every model: tried again as what failed is.
    broken = failed(group.settings, Store(root))
    listed = {
        source: replace(one, state=State.FAILED)
        if one.state is State.LABELLED and one.video_id in broken
        else one
        for source, one in known.items()
    }
    with runner(group.settings.run) as over:
        filtered = [channel.settings(group.settings) for channel in group.channels]
        listing: Task[..., Any] = list_channel
        futures = over.map(
            listing,
            {
                "channel": list(group.channels),
                "settings": filtered,
                "known": unmapped(listed),
                "retry": unmapped(retry),
            },
        )
        news: list[News] = [future.result() for future in futures]
        found: dict[str, Found] = {}
        channels: dict[str, str] = {}
        problems: list[Failure] = []
        for one in news:
            for new in one.found:
                if new.item is not None and new.item.source_id not in found:
                    found[new.item.source_id] = new
                    channels[new.item.source_id] = one.channel
            problems += one.problems
        looked = look(list(found.values()), group.settings, root, over, known, channels)
    looked.failures += problems
    return looked, len(found) + len(problems)
