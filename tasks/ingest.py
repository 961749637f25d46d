"""Find videos, fetch those of addresses, and open each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prefect import task

from tasks.policies import STAGE
from tasks.shards import FATAL, ShardResult, over_shard
from vsa_core import ingest as core
from vsa_core.config import Settings
from vsa_core.errors import said
from vsa_core.ingest.media_folder import media_folder
from vsa_core.ingest.web import Fetched, Outcome
from vsa_core.ingest.web import fetch as core_fetch
from vsa_core.progress import Steps
from vsa_core.store import Store


@dataclass(frozen=True, slots=True)
class FetchResult:
    """What became of a shard's addresses.

    Attributes:
        found: what is here now, named by content: files as they were, and what was fetched.
        missed: what was not fetched, each with its reason.
    """

    found: tuple[core.Found, ...]
    missed: tuple[Fetched, ...]


@task(name="find", **STAGE)
def find_videos(
    sources: Sequence[str],
    settings: Settings,
    root: str,
    limit: int | None,
    known: Mapping[str, str],
) -> list[core.Found]:
    """Every video of the sources, each content once."""
    return core.find_videos(sources, settings, Store(root), limit, known=known)


# Tagged, so that a limit on the tag (`prefect concurrency-limit create vsa-download 1`) holds for
# all runs together.
@task(name="fetch", tags=["vsa-download"], **STAGE)
def fetch(shard: Sequence[core.Found], settings: Settings, root: str) -> FetchResult:
    """The videos of a shard of addresses, in the media folder."""
    media = media_folder(Store(root).location, settings)
    found: list[core.Found] = []
    missed: list[Fetched] = []
    for one in shard:
        steps = Steps("fetch")
        if one.item is not None:
            try:
                answer = core_fetch(one.item, settings, media)
                if answer.path is not None:
                    found.append(core.fetched(one, answer))
            except FATAL:
                raise
            except Exception as error:  # noqa: BLE001 - one address's, recorded with its reason
                answer = Fetched(one.item, Outcome.FAILED, None, "unexpected", said(error))
            if answer.path is None:
                missed.append(answer)
        steps.reach(1.0)
    return FetchResult(tuple(found), tuple(missed))


@task(name="ingest", **STAGE)
def ingest(shard: Sequence[core.Found], settings: Settings, root: str) -> ShardResult:
    """Rows of the videos table for a shard of found videos."""
    store = Store(root)
    return over_shard(
        "ingest",
        {one.video_id: one for one in shard},
        lambda one, _: core.ingest(one, settings, store),
        lambda one: one.path,
    )
