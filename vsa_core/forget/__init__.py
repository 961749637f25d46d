"""Forgetting a person's videos: what a store was told to forget, and a removal not finished yet.

A receipt in `forgotten/` holds a hash of every id: whoever has the video can tell that it was
forgotten, and nobody can tell from the receipt which video it was.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from vsa_core.errors import StoreError
from vsa_core.store import CARD, Store

RECEIPTS, JOURNALS = "forgotten", "forgetting"
_UNFINISHED = "unfinished"


def forgotten(store: Store, ids: Iterable[str]) -> set[str]:
    """Those of some video_ids and source_ids that the store was told to forget.

    For whoever is about to take videos in: the receipts are read once, however many ids.

    Raises:
        StoreError: a receipt does not read.
    """
    known: set[str] = set()
    for name in store.folders(RECEIPTS):
        known.update(_read(store, RECEIPTS, name)["forgotten"])
    return {identity for identity in ids if mark(identity) in known} if known else set()


def returned(store: Store) -> list[str]:
    """Ids of videos that stand in the store again: a run was at work on them meanwhile.

    Raises:
        StoreError: a receipt does not read.
    """
    there = {key for table in ("videos", "segments") for key in store.keys(table)}
    return sorted(forgotten(store, there))


def mark(identity: str) -> str:
    """32 hex digits that stand for a video_id or source_id on a receipt."""
    return hashlib.sha256(f"vsa forgotten {identity}".encode()).hexdigest()[:32]


def sign(store: Store, ids: Iterable[str], said: Mapping[str, Any]) -> str:
    """Write the receipt of a removal, or write it anew.

    Args:
        store: that forgets.
        ids: video_ids and source_ids; only their `mark`s are written.
        said: times and counts, nothing about the videos; JSON-able.

    Returns:
        where it lies.

    Raises:
        StoreError: it cannot be written.
    """
    marks = sorted(map(mark, ids))
    name = hashlib.sha256(" ".join(marks).encode()).hexdigest()[:32]
    text = json.dumps({**said, "forgotten": marks}, indent=1)
    return store.commit_folder(RECEIPTS, name, {CARD: text.encode()})


def unfinished(store: Store) -> str | None:
    """One line about a removal that was cut off, and what to run; None where there is none."""
    if store.folder(JOURNALS, _UNFINISHED) is None:
        return None
    return (
        f"{store.location}: a removal was begun and is not finished: run `vsa forget --store "
        f"{shlex.quote(store.location)}`"
    )


def read_journal(store: Store) -> dict[str, Any] | None:
    """What a removal that is not finished is to remove; None where there is none.

    Raises:
        StoreError: the journal does not read.
    """
    if store.folder(JOURNALS, _UNFINISHED) is None:
        return None
    return _read(store, JOURNALS, _UNFINISHED)


def write_journal(store: Store, removal: Mapping[str, Any]) -> None:
    """Write down what is to be removed, whole or not at all, before anything is."""
    text = json.dumps(removal, indent=1)
    store.commit_folder(JOURNALS, _UNFINISHED, {CARD: text.encode()})


def close_journal(store: Store) -> None:
    """The removal is done and proven: what names the videos goes too."""
    store.remove_folder(JOURNALS, _UNFINISHED)


def _read(store: Store, kind: str, name: str) -> dict[str, Any]:
    try:
        return dict(json.loads(store.read_folder(kind, name, CARD)))
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"{store.location}/{kind}/{name}/{CARD} does not read ({error}): remove that folder "
            "and run `vsa forget` with the same videos again"
        ) from error
