"""One row of the videos table: how stages look a video up, and note on it what they found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsa_core.errors import StoreError
from vsa_core.media import SAMPLE_RATE_HZ, Frame, Media
from vsa_core.progress import Steps
from vsa_core.schemas import table_from_rows
from vsa_core.store import Store

_BETWEEN = "; "


def read_video(store: Store, video_id: str) -> dict[str, Any]:
    """The video's row.

    Raises:
        StoreError: no such video in the store.
    """
    ref = store.find("videos", video_id)
    if ref is None:
        raise StoreError(
            f"video {video_id} is not in {store.location}: run `vsa run` on its source"
        )
    row: dict[str, Any] = store.read(ref).to_pylist()[0]
    return row


def name_of(row: Mapping[str, Any]) -> str:
    """What people know a video by: the address that it was fetched from, else its file."""
    name: str = row["media_path"] if row["source_id"] is None else row["source_url"]
    return name


@dataclass(frozen=True)
class _ReportingMedia(Media):
    """Media that tells how far it was read, so that a long video shows progress and can stop."""

    steps: Steps | None = None

    def frames(
        self,
        per_s: float,
        max_side_px: int | None = None,
        start_ms: int = 0,
        end_ms: int | None = None,
    ) -> Iterator[Frame]:
        for frame in Media.frames(self, per_s, max_side_px, start_ms, end_ms):
            self._reach(frame.time_ms)
            yield frame

    def audio(self, block_s: float = 10.0) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for first, samples in Media.audio(self, block_s):
            self._reach(first * 1000 / SAMPLE_RATE_HZ)
            yield first, samples

    def _reach(self, time_ms: float) -> None:
        if self.steps is not None and self.duration_ms:
            self.steps.reach(0.98 * time_ms / self.duration_ms)


def media_of(row: dict[str, Any], steps: Steps | None = None) -> Media:
    """The media behind a video's row; reading it advances the steps."""
    return _ReportingMedia(
        path=Path(row["media_path"]),
        duration_ms=row["duration_ms"] or 0,
        width=row["width"],
        height=row["height"],
        fps=row["fps"],
        has_video=row["has_video"],
        has_audio=row["has_audio"],
        sound_track=row["sound_track"],
        steps=steps,
    )


def note_on_video(
    store: Store,
    video_id: str,
    *notes: str,
    captions_kind: str | None = None,
    failed: bool = False,
) -> None:
    """Write into the video's row what a stage found out about it.

    Args:
        store: where the row lies.
        video_id: whose row.
        notes: added to the row's note, each once.
        captions_kind: where its words come from; None leaves what is there.
        failed: set the status to `error`.

    Raises:
        StoreError: no such video in the store.
    """
    ref = store.find("videos", video_id)
    if ref is None:
        raise StoreError(
            f"video {video_id} is not in {store.location}: run `vsa run` on its source"
        )
    row = store.read(ref).to_pylist()[0]
    noted = row["note"].split(_BETWEEN) if row["note"] else []
    row["note"] = _BETWEEN.join(dict.fromkeys([*noted, *notes])) or None
    row["captions_kind"] = captions_kind or row["captions_kind"]
    row["status"] = "error" if failed else row["status"]
    store.commit("videos", video_id, table_from_rows("videos", [row]), ref.fingerprint)
