"""Rows for stores whose keeping is tested."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from vsa_core.schemas import table_from_rows
from vsa_core.store import Store


def segment_rows(video: str, count: int = 3, text: str = "words") -> list[dict[str, object]]:
    return [
        {
            "video_id": video,
            "segment_id": f"{video}-{i * 1000}-{i * 1000 + 900}",
            "index": i,
            "start_ms": i * 1000,
            "end_ms": i * 1000 + 900,
            "text": f"{text} {i}",
            "speaker": None,
            "text_source": "captions",
            "language": None,
        }
        for i in range(count)
    ]


def segments(video: str, count: int = 3, text: str = "words") -> pa.Table:
    return table_from_rows("segments", segment_rows(video, count, text))


def review(name: str, video: str = "v1") -> pa.Table:
    row = {
        "review_id": name,
        "video_id": video,
        "segment_id": f"{video}-0-900",
        "sentiment": "positive",
        "emotion": None,
        "reviewer": "me",
        "reviewed_at": datetime(2026, 1, 1, tzinfo=UTC),
        "reason": None,
    }
    return table_from_rows("reviews", [row])


def prediction(video: str) -> dict[str, Any]:
    return {
        "video_id": video,
        "segment_id": f"{video}-0-900",
        "modality": "text",
        "backend": "x@1",
        "status": "ok",
        "sentiment_probs": [0.2, 0.3, 0.5],
        "emotion_probs": None,
        "people": None,
        "track": None,
        "speaks": None,
        "note": None,
    }


def embedding(video: str, width: int = 4) -> dict[str, Any]:
    return {
        "video_id": video,
        "segment_id": f"{video}-0-900",
        "modality": "text",
        "backend": "x@1",
        "embedding": [0.5] * width,
    }


def predicted(store: Store, video: str) -> None:
    """A video with one segment, its prediction and embedding."""
    store.commit("segments", video, segments(video, 1), "a")
    for table, row in (("embeddings", embedding(video)), ("predictions", prediction(video))):
        store.commit(table, video, table_from_rows(table, [row]), "a", part="x-1")


def texts(store: Store, **given: Any) -> list[str]:
    """What is said in all segments, sorted."""
    return sorted(
        f"{row['video_id']} {row['text']}"
        for table in store.scan("segments", **given)
        for row in table.to_pylist()
    )
