"""What is new in a channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prefect import task

from tasks.policies import STAGE
from tasks.shards import FATAL, Failure
from vsa_core.archive import Known
from vsa_core.channels import Channel
from vsa_core.config import Settings
from vsa_core.errors import said
from vsa_core.ingest import Found
from vsa_core.ingest.addresses import shown
from vsa_core.ingest.listing import Item, listed


@dataclass(frozen=True, slots=True)
class News:
    """What a channel's listing says.

    Attributes:
        channel: its name.
        listed: how many addresses it has that the filters let through.
        found: those of them that need another attempt.
        problems: why a part of it, or all, could not be listed.
    """

    channel: str
    listed: int
    found: tuple[Found, ...]
    problems: tuple[Failure, ...]


@task(name="list-channel", **STAGE)
def list_channel(
    channel: Channel, settings: Settings, known: Mapping[str, Known], retry: bool
) -> News:
    """The addresses of a channel that were not labelled, refused, or tried too often.

    With `retry` those that were refused or tried too often are taken too.
    """
    most = settings.download.max_attempts
    settled = {
        source for source, one in known.items() if (one.done if retry else one.settled(most))
    }
    items: dict[str, Item] = {}
    problems: list[Failure] = []
    for url in channel.urls:
        try:
            items.update(
                (item.source_id, item) for item in listed(url, settings, settled, channel=True)
            )
        except FATAL:
            raise
        except Exception as error:  # noqa: BLE001 - one address's, recorded with its reason
            problems.append(Failure("", shown(url), said(error)))
    new = [item for source, item in items.items() if source not in settled]
    found = tuple(Found(item.shown, item.shown, item=item) for item in new)
    return News(channel.name, len(items), found, tuple(problems))
