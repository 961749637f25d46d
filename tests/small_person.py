"""A store in which two people speak: Anna's channel, fetched and learned from, and somebody else's.

The rows are those of `small_store` under ids as content gives them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.small_store import FACE, TEXT, at, run_row, small_store
from vsa_core.config import NamedModel, Settings
from vsa_core.fusion.train import train_fusion
from vsa_core.labels import Modality
from vsa_core.schemas import TABLES, table_from_rows
from vsa_core.store import Store

BACKENDS = {Modality.TEXT: TEXT, Modality.FACE: FACE}
SETTINGS = Settings(backends={Modality.TEXT: NamedModel(name="fake-text")})
URL = "https://video.example/watch?v=1"
OTHER_URL = "https://video.example/watch?v=12"  # begins as the other does


def digest(text: str) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


ANNA, ANNA_2, BEN, FAILED = (f"v{digest(f'media {i}')[:16]}" for i in range(1, 5))
SOURCE, SOURCE_FAILED, SOURCE_BEN = (digest(f"site:{i}")[:16] for i in ("1", "5", "12"))
IDS = {"v01": ANNA, "v02": ANNA_2, "v03": BEN, "v04": FAILED}


@dataclass(frozen=True)
class World:
    """What was made.

    Attributes:
        store: with Anna's two videos (the first fetched, the second a file of the user's), Ben's
            and one that failed; runs r1 and r2 labelled all of them.
        download: the folder of Anna's first video.
        own: the user's file with Anna's second one.
        model, bens: fusion models that learned from all, and from Ben's alone; in a store
            elsewhere they only say so.
    """

    store: Store
    download: Path
    own: Path
    model: str
    bens: str


def small_person(root: Path, location: str | None = None) -> World:
    """The store in `root/store`, or elsewhere."""
    made = small_store(root / "made")
    store = Store(location or root / "store")
    media = root / "store" / "media"
    download, own = media / SOURCE, root / "clips" / "anna second.mp4"
    _write(download, "1.mp4", "media 1")
    _write(download, "1.en.vtt", "WEBVTT\n\n00:00.000 --> 00:01.500\nI love it\n")
    _write(download, "1.info.json", json.dumps({"webpage_url": URL, "channel": "Phones"}))
    _write(media / f"{SOURCE_FAILED}.part", "5.mp4.part", "half")
    _write(media / SOURCE_BEN, "12.mp4", "media 3")
    _write(own.parent, own.name, "media 2")
    for table in TABLES:
        for part in ["", *made.parts(table)]:
            for key in made.keys(table, part):
                rows = made.read(made.find(table, key, part=part)).to_pylist()
                rows = [_renamed(row) for row in rows]
                if table == "videos":
                    rows = [_described(row, download, own, media) for row in rows]
                key = _renamed(key)
                store.commit(table, key, table_from_rows(table, rows), f"f-{key}", part=part)
    named = run_row(
        "r2", 5, sources=[URL, OTHER_URL, "clips"], failures=[f"{own}: torn", "/clips/x.mp4: torn"]
    )
    store.commit("runs", "r2", table_from_rows("runs", [named]), "f")
    _attempts(store)
    model, bens = (
        train_fusion(store, videos, BACKENDS, SETTINGS).model_id
        if location is None
        else _unlearned(store, videos)
        for videos in ([ANNA, ANNA_2, BEN], [BEN])
    )
    return World(store, download, own, model, bens)


def contents(store: Store) -> dict[str, list[str]]:
    """Every row of every table as text, in one order."""
    return {
        table: sorted(repr(row) for rows in store.scan(table) for row in rows.to_pylist())
        for table in TABLES
    }


def attempt(
    source_id: str, url: str, channel: str, state: str, number: int, video_id: str | None
) -> dict[str, Any]:
    """A row of attempts."""
    return {
        "attempt_id": digest(f"{source_id} {number}"),
        "source_id": source_id,
        "channel": channel,
        "url": url,
        "title": None if video_id is None else "Video 1",
        "published_at": at(number),
        "state": state,
        "kind": None if state == "labelled" else "network",
        "reason": None if state == "labelled" else f"{url}: the server is silent",
        "number": number,
        "video_id": video_id,
        "tried_at": at(number),
    }


def _unlearned(store: Store, videos: list[str]) -> str:
    model_id = digest(" ".join(videos))[:12]
    facts = json.dumps({"folds": dict.fromkeys(videos, 0)}).encode()
    store.commit_folder("models", model_id, {"card.json": b"{}", "fusion.json": facts})
    return model_id


def _attempts(store: Store) -> None:
    rows = [
        attempt(SOURCE, URL, "annas", "failed", 1, None),
        attempt(SOURCE, URL, "annas", "labelled", 2, ANNA),
        attempt(SOURCE_FAILED, "https://video.example/watch?v=5", "annas", "failed", 1, None),
        attempt(SOURCE_BEN, OTHER_URL, "bens", "labelled", 1, BEN),
    ]
    for channel in ("annas", "bens"):
        ours = [row for row in rows if row["channel"] == channel]
        for number, row in enumerate(ours):
            table = table_from_rows("attempts", [row])
            store.commit("attempts", f"{number}-{channel}", table, "a", part=channel)


def _described(row: dict[str, Any], download: Path, own: Path, media: Path) -> dict[str, Any]:
    known: dict[str, dict[str, Any]] = {
        ANNA: {"source_url": URL, "media_path": str(download / "1.mp4"), "source_id": SOURCE},
        ANNA_2: {"source_url": own.as_uri(), "media_path": str(own)},
        BEN: {
            "source_url": OTHER_URL,
            "media_path": str(media / SOURCE_BEN / "12.mp4"),
            "source_id": SOURCE_BEN,
            "channel": "Ben",
            "channel_id": "c2",
        },
        FAILED: {"media_path": "/clips/x.mp4", "source_url": "file:///clips/x.mp4"},
    }
    number = list(IDS.values()).index(row["video_id"]) + 1
    return {**row, "sha256": digest(f"media {number}"), **known[row["video_id"]]}


def _renamed(value: Any) -> Any:
    if isinstance(value, str):
        for before, after in IDS.items():
            value = value.replace(before, after)
        return value
    if isinstance(value, dict):
        return {name: _renamed(item) for name, item in value.items()}
    return [_renamed(item) for item in value] if isinstance(value, list) else value


def _write(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
