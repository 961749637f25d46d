"""Which addresses were tried, and what became of them: what is not here is new in a channel.

A row is written only after the video's own tables, so that what was cut off is tried again. Rows
are never changed: two runs at once, or a clock that is turned back, lose nothing, because of
several attempts at an address the best one counts, whenever it was made.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from vsa_core.config import fingerprint
from vsa_core.ingest.listing import Item
from vsa_core.schemas import table_from_rows
from vsa_core.store import Store

AD_HOC = "-"  # the channel of addresses that were asked for by themselves


class State(StrEnum):
    """What became of an address, the one that counts most first."""

    LABELLED = "labelled"
    REFUSED = "refused"
    FAILED = "failed"
    LATER = "later"


_RANK = {state.value: rank for rank, state in enumerate(State)}
# Of the refused: a person's wish, which no later attempt can undo.
FORGOTTEN = "forgotten"
# Of the refused: what only other settings can change.
_OURS = ("not_web", "filtered", "too_long", "too_large", "private_address")
# Sites have bad nights and change their minds. What failed is tried in this many runs, then with
# a pause, doubled each time; what was refused with such pauses only, and this many times at most.
_AT_ONCE = 3
_MOST_REFUSED = 3
_PAUSE = timedelta(hours=20)  # less than a day, for nights are not all as long


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one address.

    Attributes:
        state: of its best attempt.
        video_id: the video it was, if it was labelled.
        attempts: how many there were.
        kind: why it was not labelled, in a word; None if it was.
        channels: names of the channels it was tried for.
        tried_at: when it was tried last.
    """

    state: State
    video_id: str | None
    attempts: int
    kind: str | None
    channels: frozenset[str]
    tried_at: datetime

    @property
    def done(self) -> bool:
        """Whether another attempt would be wrong: it is labelled, or was to be forgotten."""
        return self.state is State.LABELLED or self.kind == FORGOTTEN

    def settled(self, max_attempts: int, now: datetime | None = None) -> bool:
        """Whether it needs no further attempt, or not yet."""
        if self.done or self.state is State.LATER or self.kind in _OURS:
            return self.state is not State.LATER
        refused = self.state is State.REFUSED
        if self.attempts >= (min(max_attempts, _MOST_REFUSED) if refused else max_attempts):
            return True
        pauses = self.attempts - (1 if refused else _AT_ONCE)
        ago = (now or datetime.now(UTC)) - self.tried_at
        # A clock that was turned back is no reason to wait.
        return pauses >= 0 and timedelta(0) <= ago < _PAUSE * 2 ** min(pauses, 10)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of one address in a run.

    Attributes:
        item: the address.
        state: what became of it.
        kind: why it was not labelled, in a word; None if it was.
        reason: the same in one line.
        video_id: the video, where one was fetched.
    """

    item: Item
    state: State
    kind: str | None = None
    reason: str | None = None
    video_id: str | None = None


def known(store: Store) -> dict[str, Known]:
    """What is known of every address that was ever tried, by source id.

    Raises:
        StoreError: the table does not read.
    """
    found: dict[str, Known] = {}
    columns = ["source_id", "channel", "state", "kind", "number", "video_id", "tried_at"]
    for table in store.scan("attempts", columns=columns):
        for row in table.to_pylist():
            before = found.get(row["source_id"])
            one = Known(
                State(row["state"]),
                row["video_id"],
                row["number"],
                row["kind"],
                frozenset({row["channel"]}),
                row["tried_at"],
            )
            if before is not None:
                one = replace(
                    one if _outranks(row, before) else before,
                    attempts=max(one.attempts, before.attempts),
                    channels=one.channels | before.channels,
                    tried_at=max(one.tried_at, before.tried_at),
                )
            found[row["source_id"]] = one
    return found


def _outranks(row: Mapping[str, object], before: Known) -> bool:
    if FORGOTTEN in (row["kind"], before.kind):
        return before.kind != FORGOTTEN
    return _RANK[str(row["state"])] < _RANK[before.state]


def record(
    store: Store, channel: str, attempts: Sequence[Attempt], before: Mapping[str, Known]
) -> None:
    """Write down what became of some addresses.

    Args:
        store: where.
        channel: name of the channel, or `AD_HOC`.
        attempts: one by address.
        before: as `known` gave it.

    Raises:
        StoreError: the disk is full.
    """
    if not attempts:
        return
    now = datetime.now(UTC)
    rows = [
        {
            "attempt_id": uuid.uuid4().hex,
            "source_id": attempt.item.source_id,
            "channel": channel,
            "url": attempt.item.shown,
            "title": attempt.item.title,
            "published_at": attempt.item.published_at,
            "state": attempt.state.value,
            "kind": attempt.kind,
            "reason": attempt.reason,
            "number": 1 + _attempts(before.get(attempt.item.source_id)),
            "video_id": attempt.video_id,
            "tried_at": now,
        }
        for attempt in attempts
    ]
    store.commit(
        "attempts",
        uuid.uuid4().hex,
        table_from_rows("attempts", rows),
        fingerprint("attempts/1"),
        part="ad-hoc" if channel == AD_HOC else channel,
    )


def _attempts(known_before: Known | None) -> int:
    return 0 if known_before is None else known_before.attempts


def videos_of(known_before: Mapping[str, Known], channels: Iterable[str]) -> list[str]:
    """Ids of the labelled videos of some channels, in order."""
    wanted = set(channels)
    return sorted(
        {
            one.video_id
            for one in known_before.values()
            if one.state is State.LABELLED and one.video_id and wanted & one.channels
        }
    )
