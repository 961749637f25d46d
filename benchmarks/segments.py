"""Segments to fuse, many and wide: text and face, three classes, votes that err at random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vsa_core.fusion.views import Views, views_from_arrays

WIDTHS = {"text": 768, "face": 512}
CLASSES = ("negative", "neutral", "positive")
_SURE = {"text": 1.5, "face": 1.1}  # how far the right class's logit stands out
_PER_VIDEO = 400
_NOISE_ROWS = 65_536  # drawn once: segments far apart share their noise, not their class
_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class Drawn:
    """b segments: ids, videos, truth (b,), per view probabilities (b, K), embeddings (b, d)."""

    ids: NDArray[np.str_]
    videos: NDArray[np.str_]
    truth: NDArray[np.intp]
    probs: list[NDArray[np.float32]]
    embeddings: list[NDArray[np.float32]]


def drawn(segments: int, seed: int = 0) -> Iterator[Drawn]:
    """So many segments, a few at a time; classes are two standard deviations apart."""
    rng = np.random.default_rng(seed)
    k = len(CLASSES)
    prototypes = {
        view: np.sqrt(2) * np.linalg.qr(rng.normal(size=(d, k)))[0].T.astype(np.float32)
        for view, d in WIDTHS.items()
    }
    noise = {view: rng.standard_normal((_NOISE_ROWS, d), np.float32) for view, d in WIDTHS.items()}
    for start in range(0, segments, _AT_ONCE):
        number = np.arange(start, min(start + _AT_ONCE, segments))
        b = len(number)
        y = rng.integers(0, k, b)
        probs, embeddings = [], []
        for view in WIDTHS:
            logits = 1.2 * rng.normal(size=(b, k))
            logits[np.arange(b), y] += _SURE[view]
            p = np.exp(logits)
            probs.append((p / p.sum(axis=1, keepdims=True)).astype(np.float32))
            first = int(rng.integers(0, _NOISE_ROWS - b + 1))
            embeddings.append(noise[view][first : first + b] + prototypes[view][y])
        ids = np.char.mod("segment%08d", number)
        videos = np.char.mod("video%06d", number // _PER_VIDEO)
        yield Drawn(ids, videos, y, probs, embeddings)


def held(segments: int) -> tuple[Views, NDArray[np.intp]]:
    """The views in memory, and the truth (n,)."""
    parts = list(drawn(segments))
    views = views_from_arrays(
        np.concatenate([part.videos for part in parts]),
        np.concatenate([np.stack(part.probs, axis=1) for part in parts]),
        [np.concatenate(x) for x in zip(*(part.embeddings for part in parts), strict=True)],
        names=tuple(WIDTHS),
        classes=CLASSES,
    )
    return views, np.concatenate([part.truth for part in parts])


def write(path: Path, segments: int) -> None:
    """The table that `vsa label` reads, not compressed; each row group holds both modalities."""
    writer = None
    for part in drawn(segments):
        b, views = len(part.ids), len(WIDTHS)
        table = pa.table(
            {
                "segment_id": np.tile(part.ids, views),
                "video_id": np.tile(part.videos, views),
                "modality": np.repeat(list(WIDTHS), b),
                "probs": _lists(part.probs),
                "embedding": _lists(part.embeddings),
            }
        )
        if writer is None:
            writer = pq.ParquetWriter(
                path,
                table.schema,
                compression="none",
                use_dictionary=["segment_id", "video_id", "modality"],
                write_statistics=False,
            )
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _lists(parts: list[NDArray[np.float32]]) -> pa.ListArray:
    lengths = np.concatenate([np.full(len(x), x.shape[1]) for x in parts])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    flat = np.concatenate([x.ravel() for x in parts])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))
