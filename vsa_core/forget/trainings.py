"""Models outside a store that learned from its videos: noted as they are trained, named when asked

A note holds a hash of every video and media file, as a receipt does, and says where the model and
the decoded pictures and sounds lie.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from vsa_core.errors import StoreError
from vsa_core.forget import mark
from vsa_core.store import CARD, Store

TRAININGS = "trainings"


@dataclass(frozen=True, slots=True)
class NotedTraining:
    """A training that learned from videos of a store.

    Attributes:
        host: the machine it ran on.
        folder: of the training and its model, there.
        features: folder of the pictures and sounds it decoded, there.
        marks: `mark`s of the videos and media files it learned from, stopped by or was scored on.
    """

    host: str
    folder: str
    features: str
    marks: frozenset[str]


def note_training(
    store: Store, folder: Path, features: Path, learned: Iterable[str], init: Path | None = None
) -> None:
    """Note a training before it begins, so that one which is cut off is known too.

    Args:
        store: whose videos it learns from.
        folder: of the training and its model.
        features: folder of what it decodes.
        learned: ids of videos, and paths of media files.
        init: the model it begins from, which hands on what it learned from.

    Raises:
        StoreError: it cannot be written.
    """
    host, where = socket.gethostname(), str(folder.absolute())
    marks = set(map(mark, learned))
    # What stands in the folder, and a model to begin from, learned from something before.
    before = [init.absolute()] if init is not None else []
    before += [folder.absolute()] if folder.exists() else []
    for noted in trainings(store):
        if noted.host == host and any(one.is_relative_to(noted.folder) for one in before):
            marks |= noted.marks
    card = {
        "host": host,
        "folder": where,
        "features": str(features.absolute()),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "learned": sorted(marks),
    }
    name = hashlib.sha256(f"{host} {where}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
    store.commit_folder(TRAININGS, name, {CARD: json.dumps(card, indent=1).encode()})


def trainings(store: Store) -> Iterator[NotedTraining]:
    """What was noted.

    Raises:
        StoreError: a note does not read.
    """
    for name in store.folders(TRAININGS):
        try:
            said = json.loads(store.read_folder(TRAININGS, name, CARD))
            marks = frozenset(map(str, said["learned"]))
            yield NotedTraining(
                str(said["host"]), str(said["folder"]), str(said["features"]), marks
            )
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{store.location}/{TRAININGS}/{name}/{CARD} does not read ({error}): remove that "
                "folder; the model it was about may have learned from anything in the store"
            ) from error


def trained_on(store: Store, ids: Iterable[str]) -> list[NotedTraining]:
    """Those that learned from one of some videos or media files.

    Raises:
        StoreError: a note does not read.
    """
    wanted = set(map(mark, ids))
    return [noted for noted in trainings(store) if wanted & noted.marks]
