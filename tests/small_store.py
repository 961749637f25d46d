"""A small store as runs write it: four videos, three runs, and two reviews of one segment."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vsa_core.schemas import table_from_rows
from vsa_core.store import Store

TEXT, FACE, AUDIO = "text-a@1", "face-b@2", "audio-c@3"
MODALITY = {TEXT: "text", FACE: "face", AUDIO: "audio"}
JOY = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
BY_SIGN = {
    "negative": [0.75, 0.15, 0.1],
    "neutral": [0.2, 0.6, 0.2],
    "positive": [0.05, 0.15, 0.8],
}

# start of the segment, its words, what text and face say (None: absent), run 2's label and origin
SEGMENTS: dict[str, list[tuple[int, str, str | None, str | None, str | None, str]]] = {
    "v01": [
        (0, "I love it", "positive", "positive", "positive", "consensus"),
        (4_000, "it is a phone", "neutral", "positive", "neutral", "fusion"),
        (65_000, "oh great, it broke", "positive", "negative", "negative", "fusion"),
    ],
    "v02": [
        (1_000, 'terrible, =1+1 "quoted"\nline, née 😀', "negative", None, "negative", "single")
    ],
    "v03": [(0, "", None, None, None, "none")],
}
FAILED = "v04"


def at(day: int) -> datetime:
    """A day of January 2026."""
    return datetime(2026, 1, day, 12, tzinfo=UTC)


def small_store(root: Path) -> Store:
    """The store under `root`: run `r2` is current, `r1` older, `r3` did not finish."""
    store = Store(root)
    for number, video_id in enumerate([*SEGMENTS, FAILED], start=1):
        _put(store, "videos", video_id, [video_row(number, video_id)])
    for video_id, spans in SEGMENTS.items():
        rows = [_segment(video_id, n, start, text) for n, (start, text, *_) in enumerate(spans)]
        _put(store, "segments", video_id, rows)
        for backend in MODALITY:
            _put_predictions(store, video_id, backend)
    _put_labels(store, "r1", day=3, sentiment="neutral")
    _put_labels(store, "r2", day=5)
    _put_labels(store, "r3", day=None, sentiment="neutral")
    _put(store, "reviews", "b1", [review("p1", "v01", 4_000, 6, "negative", None)])
    _put(store, "reviews", "b2", [review("p2", "v01", 4_000, 7, None, "fear")])
    return store


def segment_id(video_id: str, start_ms: int) -> str:
    """The id of the segment of three seconds that starts there."""
    return f"{video_id}-{start_ms}-{start_ms + 3_000}"


def review(
    review_id: str,
    video_id: str,
    start_ms: int,
    day: int,
    sentiment: str | None,
    emotion: str | None,
) -> dict[str, Any]:
    """A row of reviews."""
    return {
        "review_id": review_id,
        "video_id": video_id,
        "segment_id": segment_id(video_id, start_ms),
        "sentiment": sentiment,
        "emotion": emotion,
        "reviewer": "ann",
        "reviewed_at": at(day),
        "reason": None,
    }


def run_row(run_id: str, day: int, **changed: Any) -> dict[str, Any]:
    """A row of runs."""
    return {
        "run_id": run_id,
        "status": "partial",
        "started_at": at(day),
        "finished_at": at(day),
        "seconds": 12.5,
        "sources": ["clips"],
        "profile": "embedded",
        "config": "{}",
        "config_id": "c",
        "fingerprint": run_id,
        "backends": list(MODALITY),
        "model_id": "late-mean",
        "model_card": None,
        "videos": 4,
        "videos_failed": 1,
        "segments": 5,
        "counts": "{}",
        "metrics": "{}",
        "failures": [f"/clips/{FAILED}.mp4: it is empty (0 bytes)"],
        "version": "0",
        **changed,
    }


def _put(store: Store, table: str, key: str, rows: list[dict[str, Any]], part: str = "") -> None:
    store.commit(table, key, table_from_rows(table, rows), "f", part=part)


def video_row(number: int, video_id: str) -> dict[str, Any]:
    """A row of `videos`."""
    failed = video_id == FAILED
    return {
        "video_id": video_id,
        "status": "error" if failed else "ok",
        "note": "it is empty (0 bytes)" if failed else None,
        "channel_id": "c1" if number < 3 else None,
        "channel": "Phones" if number < 3 else None,
        "source_url": {
            1: "https://video.example/watch?v=1",
            2: "https://video.example/2",
        }.get(number, f"file:///clips/{video_id}.mp4"),
        "title": f"Video {number}",
        "published_at": at(number) if number < 3 else None,
        "duration_ms": None if failed else 70_000,
        "language": "en",
        "media_path": f"/clips/{video_id}.mp4",
        "media_bytes": 1_000,
        "media_mtime_ns": 1,
        "captions_kind": None if failed else "captions",
        "sha256": "0" * 64,
        "width": 640,
        "height": 360,
        "fps": 25.0,
        "has_video": not failed,
        "has_audio": not failed,
        "sound_track": None,
        "source_id": None,
        "view_count": None,
    }


def _segment(video_id: str, index: int, start_ms: int, text: str) -> dict[str, Any]:
    return {
        "video_id": video_id,
        "segment_id": segment_id(video_id, start_ms),
        "index": index,
        "start_ms": start_ms,
        "end_ms": start_ms + 3_000,
        "text": text,
        "speaker": None,
        "text_source": "captions",
        "language": "en",
    }


def _put_predictions(store: Store, video_id: str, backend: str) -> None:
    modality = MODALITY[backend]
    predictions, embeddings = [], []
    for start_ms, _, text_says, face_says, *_ in SEGMENTS[video_id]:
        said = {"text": text_says, "face": face_says, "audio": None}[modality]
        present = said is not None or modality == "audio"
        ids = {
            "video_id": video_id,
            "segment_id": segment_id(video_id, start_ms),
            "modality": modality,
            "backend": backend,
        }
        predictions.append(
            {
                **ids,
                "status": "ok" if present else "absent",
                "sentiment_probs": BY_SIGN[said] if said else None,
                "emotion_probs": JOY if said and modality == "face" else None,
                "people": int(present) if modality == "face" else None,
                "track": 0 if present and modality == "face" else None,
                "speaks": False if present and modality == "face" else None,
                "note": None,
            }
        )
        if present:
            embeddings.append({**ids, "embedding": [1.0, 2.0]})
    part = store.part_of(backend)
    _put(store, "predictions", video_id, predictions, part)
    if embeddings:
        _put(store, "embeddings", video_id, embeddings, part)
    if modality == "face":
        _put(store, "faces", video_id, [_face(video_id)] if video_id == "v01" else [], part)


def _face(video_id: str) -> dict[str, Any]:
    return {
        "video_id": video_id,
        "backend": FACE,
        "time_ms": 500,
        "track": 0,
        "x_px": 10,
        "y_px": 20,
        "width_px": 100,
        "height_px": 110,
        "score": 0.9,
        "speaking": None,
        "emotion_probs": JOY,
    }


def _put_labels(store: Store, run_id: str, day: int | None, sentiment: str | None = None) -> None:
    """The labels of a run, all of one sentiment where one is given; finished where a day is."""
    rows = [
        _label(run_id, video_id, *span, given=sentiment)
        for video_id, spans in SEGMENTS.items()
        for span in spans
    ]
    _put(store, "labels", "shard-0", rows, part=run_id)
    if day is not None:
        _put(store, "runs", run_id, [run_row(run_id, day)])


def _distance(text_says: str | None, face_says: str | None) -> float | None:
    if text_says is None or face_says is None:
        return None
    pairs = zip(BY_SIGN[text_says], BY_SIGN[face_says], strict=True)
    return sum(abs(one - other) for one, other in pairs) / 2


def _label(
    run_id: str,
    video_id: str,
    start_ms: int,
    text: str,
    text_says: str | None,
    face_says: str | None,
    sentiment: str | None,
    origin: str,
    *,
    given: str | None,
) -> dict[str, Any]:
    if given is not None and sentiment is not None:
        sentiment, origin = given, "fusion"
    both = text_says is not None and face_says is not None
    agreement = (
        "absent"
        if text_says is None
        else "single"
        if not both
        else ("agree" if text_says == face_says else "disagree")
    )
    number = int(video_id.removeprefix("v"))
    return {
        "run_id": run_id,
        "video_id": video_id,
        "segment_id": segment_id(video_id, start_ms),
        "channel_id": "c1" if number < 3 else None,
        "title": f"Video {number}",
        "published_at": at(number) if number < 3 else None,
        "start_ms": start_ms,
        "end_ms": start_ms + 3_000,
        "text": text,
        "text_source": "captions",
        "language": "en",
        "people": int(face_says is not None),
        "sentiment": sentiment,
        "emotion": None if sentiment is None else "joy",
        "sentiment_probs": BY_SIGN[sentiment] if sentiment else None,
        "emotion_probs": JOY if sentiment else None,
        "confidence": max(BY_SIGN[sentiment]) if sentiment else None,
        "emotion_confidence": 1.0 if sentiment else None,
        "origin": origin,
        "agreement": agreement,
        "text_vote": text_says,
        "face_vote": face_says,
        "audio_vote": None,
        "face_text_distance": _distance(text_says, face_says),
        "text_attention": 0.5 if both else None,
        "face_attention": 0.5 if both else None,
        "audio_attention": None,
        "backends": list(MODALITY),
        "model_id": "late-mean",
        "config_id": "c",
    }
