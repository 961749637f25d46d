"""A store as years of runs leave it, made from a seed: `python -m benchmarks.big_store FOLDER`."""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.big_videos import (
    AT_ONCE,
    BACKENDS,
    Size,
    by_video,
    channel_of,
    published,
    same,
    video_ids,
    write_batch,
)
from vsa_core.labels import SENTIMENTS
from vsa_core.schemas import TABLES, table_from_rows
from vsa_core.store import Store

_SHARD_VIDEOS = 500
_NIGHTS = 30


def write_files(root: Path, size: Size, workers: int = 2) -> None:
    """Every table as runs leave it: a file per video and backend, labels by shard and run."""
    ids = video_ids(size)
    starts = range(0, len(ids), AT_ONCE)
    with ProcessPoolExecutor(workers) as pool:
        made = pool.map(write_batch, [root] * len(starts), [size] * len(starts), starts)
        labels = dict(zip(starts, made, strict=True))
    _write_runs(Store(root), size, ids, labels)
    _write_attempts(Store(root), size, ids)


def _write_runs(store: Store, size: Size, ids: Sequence[str], labels: dict[int, pa.Table]) -> None:
    """A first run over most, one a night over the rest, a second one over a part; reviews."""
    nightly = max(1, size.videos * 3 // (10 * _NIGHTS))
    first = len(ids) - nightly * _NIGHTS
    spans = [
        (0, first),
        *((first + nightly * i, first + nightly * (i + 1)) for i in range(_NIGHTS)),
    ]
    spans.append((first // 2, first // 2 + max(1, size.videos // 20)))
    whole = pa.concat_tables(labels[start] for start in sorted(labels))
    where = {video: (own, n) for video, own, n in _places(whole)}
    draw = random.Random(size.seed)
    for number, (begin, end) in enumerate(spans):
        run_id = f"r{number:012x}"
        counts: Counter[tuple[str, str]] = Counter()
        for shard, at in enumerate(range(begin, end, _SHARD_VIDEOS)):
            own = [where[v] for v in ids[at : min(at + _SHARD_VIDEOS, end)] if v in where]
            if not own:
                continue
            rows = pa.concat_tables(whole.slice(first, n) for first, n in own).combine_chunks()
            rows = rows.set_column(0, TABLES["labels"].schema[0], same(run_id, rows.num_rows))
            rows = rows.cast(TABLES["labels"].schema)  # joining forgets what elements are called
            store.commit("labels", f"{shard:04d}", rows, "made", part=run_id)
            counts.update(
                zip(rows["agreement"].to_pylist(), rows["origin"].to_pylist(), strict=True)
            )
            if shard % 4 == 0:
                _write_reviews(store, f"{run_id}-{shard}", rows, number, draw)
        _write_run(store, run_id, number, end - begin, counts)


def _places(rows: pa.Table) -> Iterator[tuple[str, int, int]]:
    at = 0
    for video, own in by_video(rows):
        yield video, at, own.num_rows
        at += own.num_rows


def _write_reviews(store: Store, key: str, rows: pa.Table, day: int, draw: random.Random) -> None:
    given = []
    for i in sorted(draw.sample(range(rows.num_rows), min(20, rows.num_rows))):
        [row] = rows.slice(i, 1).select(["video_id", "segment_id"]).to_pylist()
        given.append(
            {
                **row,
                "review_id": f"{key}-{i}",
                "sentiment": draw.choice(SENTIMENTS).value,
                "emotion": None,
                "reviewer": "ann",
                "reviewed_at": datetime(2026, 2, 1, tzinfo=UTC) + timedelta(days=day, hours=12),
                "reason": None,
            }
        )
    store.commit("reviews", key, table_from_rows("reviews", given), "made")


def _write_run(
    store: Store, run_id: str, day: int, videos: int, counts: Counter[tuple[str, str]]
) -> None:
    finished = datetime(2026, 2, 1, 3, tzinfo=UTC) + timedelta(days=day)
    by_agreement: Counter[str] = Counter()
    by_origin: Counter[str] = Counter()
    for (agreement, origin), n in counts.items():
        by_agreement[agreement] += n
        by_origin[origin] += n
    curve = [
        {"threshold": i / 20, "coverage": 1 - i / 25, "risk": 0.1 / (i + 1)} for i in range(20)
    ]
    estimate = {"value": 0.83, "low": 0.8, "high": 0.86, "level": 0.95, "method": "agreement",
                "reviewed": 0}  # fmt: skip
    metrics = {
        "strategy": "crossview-attention",
        "notes": [],
        "targets": {"sentiment": {"decides": "experts", "votes_association_z": 900.0}},
        "knowing": {"targets": {"sentiment": {"estimate": estimate, "curve": curve}},
                    "warnings": []},
    }  # fmt: skip
    row = {
        "run_id": run_id,
        "status": "complete",
        "started_at": finished - timedelta(hours=2),
        "finished_at": finished,
        "seconds": 7200.0,
        "sources": ["channels.yaml"],
        "profile": "standard",
        "config": json.dumps({"backends": {m.value: {"name": b} for m, b in BACKENDS.items()}}),
        "config_id": "0" * 12,
        "fingerprint": run_id[1:],
        "backends": list(BACKENDS.values()),
        "model_id": "0" * 12,
        "model_card": f"models/{'0' * 12}/card.json",
        "videos": videos,
        "videos_failed": 0,
        "segments": by_origin.total(),
        "counts": json.dumps({"foreign": 0, "agreement": by_agreement, "origins": by_origin}),
        "metrics": json.dumps(metrics),
        "failures": [],
        "version": "0",
    }
    store.commit("runs", run_id, table_from_rows("runs", [row]), run_id[1:])


def _write_attempts(store: Store, size: Size, ids: Sequence[str]) -> None:
    """A first pass over each channel, and one a night."""
    nightly = max(1, size.videos * 3 // (10 * _NIGHTS))
    first = len(ids) - nightly * _NIGHTS
    batches: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for number, video in enumerate(ids):
        night = 0 if number < first else 1 + (number - first) // nightly
        channel = channel_of(number)
        batches.setdefault((channel, night), []).append(
            {
                "attempt_id": f"{number:016x}-1",
                "source_id": f"{number:016x}",
                "channel": f"channel-{channel}",
                "url": f"https://video.example/watch?v={number:06d}",
                "title": f"Episode {number}: what happened this week",
                "published_at": published(number),
                "state": "labelled",
                "kind": None,
                "reason": None,
                "number": 1,
                "video_id": video,
                "tried_at": datetime(2026, 2, 1, tzinfo=UTC) + timedelta(days=night),
            }
        )
    for (channel, night), rows in batches.items():
        key = f"channel-{channel}-{night}"
        store.commit("attempts", key, table_from_rows("attempts", rows), "made")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--videos", type=int, default=10_000)
    arguments.add_argument("--seed", type=int, default=0)
    chosen = arguments.parse_args()
    write_files(chosen.folder, Size(videos=chosen.videos, seed=chosen.seed))
