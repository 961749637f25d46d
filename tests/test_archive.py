"""What is known of addresses: of several attempts the best counts, whenever it was made."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vsa_core import archive
from vsa_core.archive import Attempt, State
from vsa_core.ingest.listing import Item
from vsa_core.store import Store
from vsa_core.verify import verify


def item(source_id: str) -> Item:
    return Item(
        source_id=source_id,
        url=f"https://example.org/{source_id}",
        title=None,
        published_at=None,
        duration_s=None,
        language=None,
        live_status=None,
        asked=False,
    )


def attempt(state: State, source_id: str = "a" * 16, kind: str | None = None) -> Attempt:
    video = "v0123456789abcdef" if state is State.LABELLED else None
    return Attempt(item(source_id), state, kind or (None if video else "network"), "why", video)


@pytest.mark.parametrize("states", list(itertools.permutations(State)))
def test_the_best_attempt_counts_in_any_order(tmp_path: Path, states: tuple[State, ...]) -> None:
    store = Store(tmp_path)
    for state in states:
        archive.record(store, "one", [attempt(state)], archive.known(store))
    [known] = archive.known(store).values()
    assert (known.state, known.video_id) == (State.LABELLED, "v0123456789abcdef")
    assert known.attempts == 4
    assert verify(store) == []


def test_what_was_forgotten_is_not_labelled_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for state, kind in [
        (State.LABELLED, None),
        (State.REFUSED, archive.FORGOTTEN),
        (State.LABELLED, None),
    ]:
        archive.record(store, "one", [attempt(state, kind=kind)], archive.known(store))
    [known] = archive.known(store).values()
    assert known.state is State.REFUSED
    assert known.settled(99)


def test_a_failed_address_is_let_be_after_some_attempts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in range(1, 4):
        archive.record(store, "one", [attempt(State.FAILED)], archive.known(store))
        [known] = archive.known(store).values()
        assert known.attempts == number
        assert known.settled(3) is (number == 3)


def later(**pause: float) -> datetime:
    """So long from now."""
    return datetime.now(UTC) + timedelta(**pause)


def test_pauses_between_attempts_grow(tmp_path: Path) -> None:
    store = Store(tmp_path)
    due = []
    for number in range(1, 6):
        archive.record(store, "one", [attempt(State.FAILED)], archive.known(store))
        [known] = archive.known(store).values()
        hours = [h for h in range(100) if not known.settled(6, later(hours=h + 0.1))]
        due.append(min(hours))
        assert known.attempts == number
        assert known.settled(number, later(days=999))
        assert not known.settled(6, later(days=-1))  # the clock was turned back
    assert due == [0, 0, 20, 40, 80]


@pytest.mark.parametrize(
    ("kind", "again"),
    [("removed", True), ("private", True), ("no_video", True), ("filtered", False),
     ("too_large", False), (archive.FORGOTTEN, False)],
)  # fmt: skip
def test_what_was_refused_is_asked_for_again_another_day(
    tmp_path: Path, kind: str, again: bool
) -> None:
    store = Store(tmp_path)
    for number in range(1, 4):
        archive.record(store, "one", [attempt(State.REFUSED, kind=kind)], archive.known(store))
        [known] = archive.known(store).values()
        assert known.settled(5)
        assert known.settled(5, later(hours=19 * number))
        assert known.settled(5, later(days=9)) is not (again and number < 3)


def test_a_stream_is_looked_at_again_for_ever(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for _ in range(9):
        archive.record(store, "one", [attempt(State.LATER, kind="live")], archive.known(store))
    [known] = archive.known(store).values()
    assert not known.settled(1)


def test_two_runs_at_once_lose_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = archive.known(store)
    archive.record(store, "one", [attempt(State.LABELLED, "a" * 16)], before)
    archive.record(store, "two", [attempt(State.LABELLED, "a" * 16)], before)
    archive.record(store, "two", [attempt(State.FAILED, "b" * 16)], before)
    known = archive.known(store)
    assert known["a" * 16].channels == {"one", "two"}
    assert set(known) == {"a" * 16, "b" * 16}
    assert archive.videos_of(known, ["one"]) == ["v0123456789abcdef"]
    assert archive.videos_of(known, ["three"]) == []


def test_nothing_tried_writes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    archive.record(store, archive.AD_HOC, [], {})
    assert not (tmp_path / "attempts").exists()
    archive.record(store, archive.AD_HOC, [attempt(State.LATER)], {})
    assert archive.known(store)["a" * 16].channels == {archive.AD_HOC}
