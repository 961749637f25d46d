"""Made videos with all that the stages before fusion say of them, from a seed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vsa_core.labels import EMOTIONS, MODALITIES, SENTIMENTS, Modality, total_variation
from vsa_core.predict import made_from_segments
from vsa_core.schemas import TABLES, table_from_rows
from vsa_core.store import Store

BACKENDS = {
    Modality.TEXT: "text-made@000000000001",
    Modality.FACE: "face-made@000000000002",
    Modality.AUDIO: "audio-made@000000000003",
}
WIDTHS = {Modality.TEXT: 384, Modality.FACE: 128, Modality.AUDIO: 96}
_SURE = {Modality.TEXT: 2.0, Modality.FACE: 1.2, Modality.AUDIO: 0.9}
_ABSENT = {Modality.TEXT: 0.0, Modality.FACE: 0.3, Modality.AUDIO: 0.02}
_EMOTION_OF = np.array([5, 4, 3])  # sadness, neutral, joy: the commonest of each sentiment
_CHANNELS = 40
AT_ONCE = 100
_FIRST_DAY = datetime(2023, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is made.

    Attributes:
        videos: how many.
        segments: of each video, on average.
        embedded: share of the videos whose embeddings are kept.
        seed: of everything.
    """

    videos: int = 10_000
    segments: int = 200
    embedded: float = 0.1
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """A batch of videos: its rows by table and part, and what the runs label them with."""

    tables: dict[tuple[str, str], pa.Table]
    labels: pa.Table


def video_ids(size: Size) -> list[str]:
    """The ids of all videos, in the order they were published."""
    draw = random.Random(size.seed)
    return [f"v{draw.getrandbits(64):016x}" for _ in range(size.videos)]


def channel_of(number: int) -> int:
    """The channel of a video."""
    return number * 7919 % _CHANNELS


def published(number: int) -> datetime:
    """When a video was."""
    return _FIRST_DAY + timedelta(hours=2.4 * number)


def write_batch(root: Path, size: Size, start: int) -> pa.Table:
    """Write the tables of some videos, a file each; returns what a run labels them with."""
    made = _made(size, start)
    for (table, part), rows in made.tables.items():
        folder = root / table / part if part else root / table
        folder.mkdir(parents=True, exist_ok=True)
        made_from = "made"
        if table == "predictions":
            made_from = made_from_segments("made", rows["backend"][0].as_py())
        for video, own in by_video(rows):
            facts = {
                "vsa.schema": TABLES[table].tag,
                "vsa.key": video,
                "vsa.fingerprint": made_from,
            }
            # Straight to the disk: a commit of each, checked and flushed, would take minutes more.
            pq.write_table(
                own.replace_schema_metadata(facts),
                folder / f"{video}.parquet",
                compression="zstd",
                write_page_checksum=True,
            )
    return made.labels


def by_video(rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each video, which lie together."""
    runs = rows["video_id"].combine_chunks().dictionary_encode()
    numbers = runs.indices.to_numpy()
    bounds = [*np.flatnonzero(np.diff(numbers, prepend=-1)).tolist(), len(numbers)]
    for first, stop in itertools.pairwise(bounds):
        yield runs[first].as_py(), rows.slice(first, stop - first)


def _made(size: Size, start: int) -> Made:
    """Videos from `start` on, with all their rows."""
    rng = np.random.default_rng([size.seed, start])
    videos = video_ids(size)[start : start + AT_ONCE]
    failed = rng.random(len(videos)) < 0.01
    counts = np.where(failed, 0, rng.poisson(size.segments, len(videos)))
    video = np.repeat(np.arange(len(videos)), counts)
    n = len(video)
    at = np.concatenate([np.arange(c) for c in counts]) if n else np.zeros(0, np.intp)
    begins = at * 4000 + rng.integers(0, 500, n)
    ends = begins + rng.integers(1000, 3500, n)
    named = np.array(videos)[video]
    names = [f"{v}-{a}-{b}" for v, a, b in zip(named, begins.tolist(), ends.tolist(), strict=True)]
    truth = rng.choice(3, n, p=[0.25, 0.45, 0.3])
    texts = _texts(rng, truth)
    about = [_video(size, start + i, v, bool(failed[i])) for i, v in enumerate(videos)]
    tables = {("videos", ""): table_from_rows("videos", about)}
    base = {"video_id": pa.array(named), "segment_id": pa.array(names)}
    span = {"start_ms": pa.array(begins), "end_ms": pa.array(ends), "text": pa.array(texts)}
    spoken = {"text_source": same("captions", n), "language": same("en", n), "speaker": None}
    index = {"index": pa.array(at.astype(np.int32))}
    tables["segments", ""] = _table("segments", {**base, **index, **span, **spoken})
    tables["transcripts", ""] = _table(
        "transcripts",
        {"video_id": base["video_id"], **index, **span, "words": None, **spoken},
    )
    embedded = (rng.random(len(videos)) < size.embedded)[video]
    votes, present = {}, {}
    for modality in MODALITIES:
        probs, here = _votes(rng, truth, modality)
        votes[modality], present[modality] = probs, here
        tables |= _seen(base, modality, probs, here, rng)
        if (some := np.flatnonzero(embedded & here)).size:
            tables |= _vectors(base, modality, truth, some, rng)
    return Made(tables, _labels(base, span, spoken, about, video, votes, present))


def _texts(rng: np.random.Generator, truth: NDArray[np.intp]) -> list[str]:
    """Lines of 6 to 16 words, the common ones far more often."""
    words = _words()
    sizes = rng.integers(6, 17, len(truth))
    flat = np.minimum(rng.zipf(1.2, int(sizes.sum())), len(words)) - 1
    stops = np.cumsum(sizes).tolist()
    chosen = [words[i] for i in flat.tolist()]
    return [" ".join(chosen[a:b]) for a, b in zip([0, *stops], stops, strict=False)]


def _words() -> list[str]:
    draw = random.Random(1)
    letters = "etaoinshrdlucmfwypvbgk"
    return ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(5000)]


def same(value: str, n: int) -> pa.Array:
    """One value n times."""
    return pa.array([value]).take(pa.array(np.zeros(n, np.int32)))


def _table(name: str, columns: dict[str, Any]) -> pa.Table:
    schema = TABLES[name].schema
    n = len(next(iter(columns.values())))
    arrays = [
        pa.nulls(n, field.type)
        if columns[field.name] is None
        else columns[field.name].cast(field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _lists(values: NDArray[np.float32], kind: pa.DataType, valid: NDArray[np.bool_]) -> pa.Array:
    """Rows (n, K) as fixed lists, null where not `valid`."""
    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(values).ravel()), type=kind, mask=pa.array(~valid)
    )


def _softmax(logits: NDArray[np.floating]) -> NDArray[np.float32]:
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(p / p.sum(axis=1, keepdims=True), np.float32)


def _votes(
    rng: np.random.Generator, truth: NDArray[np.intp], modality: Modality
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    n = len(truth)
    logits = rng.normal(size=(n, 3))
    logits[np.arange(n), truth] += _SURE[modality]
    return _softmax(1.5 * logits), rng.random(n) >= _ABSENT[modality]


def _emotions(rng: np.random.Generator, probs: NDArray[np.float32]) -> NDArray[np.float32]:
    logits = rng.normal(size=(len(probs), len(EMOTIONS)))
    logits[np.arange(len(probs)), _EMOTION_OF[probs.argmax(axis=1)]] += 2
    return _softmax(logits)


def _seen(
    base: dict[str, Any],
    modality: Modality,
    probs: NDArray[np.float32],
    here: NDArray[np.bool_],
    rng: np.random.Generator,
) -> dict[tuple[str, str], pa.Table]:
    """The predictions of one backend."""
    n, kind = len(here), TABLES["predictions"].schema
    face = modality is Modality.FACE
    columns: dict[str, Any] = {
        **base,
        "modality": same(modality.value, n),
        "backend": same(BACKENDS[modality], n),
        "status": pa.array(np.where(here, "ok", "absent")),
        "sentiment_probs": _lists(probs, kind.field("sentiment_probs").type, here),
        "emotion_probs": _lists(_emotions(rng, probs), kind.field("emotion_probs").type, here),
        "people": pa.array(here.astype(np.int32)) if face else None,
        "track": pa.array(np.zeros(n, np.int32), mask=~here) if face else None,
        "speaks": pa.array(np.zeros(n, bool), mask=~here) if face else None,
        "note": None,
    }
    return {("predictions", Store.part_of(BACKENDS[modality])): _table("predictions", columns)}


def _vectors(
    base: dict[str, Any],
    modality: Modality,
    truth: NDArray[np.intp],
    rows: NDArray[np.intp],
    rng: np.random.Generator,
) -> dict[tuple[str, str], pa.Table]:
    """The embeddings of some rows: noise around a place of each class."""
    width = WIDTHS[modality]
    places = (
        np.random.default_rng(width).normal(size=(3, width)).astype(np.float32) * 3 / width**0.5
    )
    vectors = rng.standard_normal((len(rows), width), np.float32) + places[truth[rows]]
    offsets = np.arange(0, vectors.size + 1, width, dtype=np.int32)
    columns = {
        **{name: column.take(pa.array(rows)) for name, column in base.items()},
        "modality": same(modality.value, len(rows)),
        "backend": same(BACKENDS[modality], len(rows)),
        "embedding": pa.ListArray.from_arrays(
            pa.array(offsets), pa.array(vectors.ravel()), type=TABLES["embeddings"].schema[4].type
        ),
    }
    return {("embeddings", Store.part_of(BACKENDS[modality])): _table("embeddings", columns)}


def _video(size: Size, number: int, video: str, failed: bool) -> dict[str, Any]:
    channel = channel_of(number)
    return {
        "video_id": video,
        "status": "error" if failed else "ok",
        "note": "it does not open (moov atom not found)" if failed else None,
        "channel_id": f"UC{channel:022d}",
        "channel": f"Channel {channel}",
        "source_url": f"https://video.example/watch?v={number:06d}",
        "title": f"Episode {number}: what happened this week",
        "published_at": published(number),
        "duration_ms": None if failed else 4000 * size.segments,
        "language": "en",
        "media_path": f"/media/{video}.mp4",
        "media_bytes": 50_000_000 + number,
        "media_mtime_ns": 1_700_000_000_000_000_000 + number,
        "captions_kind": None if failed else "captions",
        "sha256": f"{number:064x}",
        "width": 640,
        "height": 360,
        "fps": 25.0,
        "has_video": not failed,
        "has_audio": not failed,
        "sound_track": None,
        "source_id": f"{number:016x}",
        "view_count": 1000 + number,
    }


def _labels(
    base: dict[str, Any],
    span: dict[str, Any],
    spoken: dict[str, Any],
    about: Sequence[dict[str, Any]],
    video: NDArray[np.intp],
    votes: dict[Modality, NDArray[np.float32]],
    present: dict[Modality, NDArray[np.bool_]],
) -> pa.Table:
    """What a run says of the segments: the product of the votes; `run_id` is set by the run."""
    n, schema = len(video), TABLES["labels"].schema
    here = np.stack([present[m] for m in MODALITIES], axis=1)
    logs = [np.where(present[m][:, None], np.log(votes[m]), 0) for m in MODALITIES]
    probs = _softmax(np.sum(logs, axis=0))
    label = probs.argmax(axis=1)
    own = np.stack([votes[m].argmax(axis=1) for m in MODALITIES], axis=1)
    sure = here & np.stack([votes[m].max(axis=1) >= 0.5 for m in MODALITIES], axis=1)
    different = np.array([len(set(v[ok].tolist())) for v, ok in zip(own, sure, strict=True)])
    agreement = np.select(
        [here.sum(axis=1) == 1, sure.sum(axis=1) < 2, different == 1],
        ["single", "uncertain", "agree"],
        "disagree",
    )
    emotion = _softmax(np.eye(len(EMOTIONS))[_EMOTION_OF[label]] * 3)
    from_video = {
        name: pa.array([row[name] for row in about], schema.field(name).type).take(pa.array(video))
        for name in ("channel_id", "title", "published_at")
    }
    columns: dict[str, Any] = {
        "run_id": same("-", n),
        **base,
        **from_video,
        **span,
        **spoken,
        "people": pa.array(present[Modality.FACE].astype(np.int32)),
        "sentiment": pa.array(np.array([s.value for s in SENTIMENTS])[label]),
        "emotion": pa.array(np.array([e.value for e in EMOTIONS])[_EMOTION_OF[label]]),
        "sentiment_probs": _lists(probs, schema.field("sentiment_probs").type, np.ones(n, bool)),
        "emotion_probs": _lists(emotion, schema.field("emotion_probs").type, np.ones(n, bool)),
        "confidence": pa.array(probs.max(axis=1)),
        "emotion_confidence": pa.array(emotion[np.arange(n), _EMOTION_OF[label]]),
        "origin": pa.array(np.where(agreement == "agree", "consensus", "fusion")),
        "agreement": pa.array(agreement),
        "backends": pa.array([list(BACKENDS.values())]).take(pa.array(np.zeros(n, np.int32))),
        "model_id": same("0" * 12, n),
        "config_id": same("0" * 12, n),
    }
    for m in MODALITIES:
        said = np.array([s.value for s in SENTIMENTS])[votes[m].argmax(axis=1)]
        silent = ~present[m] | (votes[m].max(axis=1) < 0.5)
        columns[f"{m}_vote"] = pa.array(said, mask=silent)
        weight = (present[m] / here.sum(axis=1)).astype(np.float32)
        columns[f"{m}_attention"] = pa.array(weight, mask=~present[m])
    apart = total_variation(votes[Modality.FACE], votes[Modality.TEXT])
    both = present[Modality.FACE] & present[Modality.TEXT]
    columns["face_text_distance"] = pa.array(apart, mask=~both)
    return _table("labels", columns)
