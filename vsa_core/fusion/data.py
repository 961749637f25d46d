"""What the backends saw of a set of videos, as arrays: the input of training and resolving."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vsa_core.errors import StoreError
from vsa_core.labels import EMOTIONS, MODALITIES, SENTIMENTS, Modality, Status
from vsa_core.store import Store, TableRef


@dataclass(frozen=True, slots=True)
class Views:
    """n segments seen by V views (modalities); rows in order of video and time.

    Attributes:
        segment_ids, video_ids: (n,) str.
        modalities: the V views, in the order of `MODALITIES`.
        embeddings: per view (n, d) float32, 0 where it is absent; d is 0 for a view that is
            absent from every segment.
        present: (n, V) bool; a view is present when its backend gave a finite embedding.
        sentiment_probs: (n, V, 3) float32, NaN where a view is absent or does not vote.
        emotion_probs: (n, V, 7) float32, NaN where a view is absent or knows no emotions.
        notes: what was odd, one line each.
    """

    segment_ids: NDArray[np.str_]
    video_ids: NDArray[np.str_]
    modalities: tuple[Modality, ...]
    embeddings: tuple[NDArray[np.float32], ...]
    present: NDArray[np.bool_]
    sentiment_probs: NDArray[np.float32]
    emotion_probs: NDArray[np.float32]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.segment_ids)


@dataclass(frozen=True, slots=True)
class Consensus:
    """The agreeing segments as a training set of c rows, with folds by whole videos.

    Attributes:
        rows: (c,) where they stand in the views.
        sentiment: (c,) index into `SENTIMENTS`.
        emotion: (c,) index into `EMOTIONS`; without meaning where `has_emotion` is False.
        has_emotion: (c,) the emotion votes of at least two views agree, and suit the sentiment.
        folds: (c,) fold of the segment's video, from 0.
        fold_of: fold by video id.
    """

    rows: NDArray[np.intp]
    sentiment: NDArray[np.intp]
    emotion: NDArray[np.intp]
    has_emotion: NDArray[np.bool_]
    folds: NDArray[np.intp]
    fold_of: dict[str, int]

    def __len__(self) -> int:
        return len(self.rows)


def in_order(backends: Mapping[Modality, str]) -> dict[Modality, str]:
    """The same backend ids in the order of `MODALITIES`."""
    return {m: backends[m] for m in MODALITIES if m in backends}


def input_fingerprints(
    store: Store, video_ids: Iterable[str], backends: Mapping[Modality, str]
) -> list[list[str | None]]:
    """Per video the fingerprints of its segments and of what each backend said of them.

    A table that is not there is None.
    """
    return [
        [ref.fingerprint if ref else None for ref in _refs(store, video, backends)]
        for video in video_ids
    ]


def _refs(store: Store, video: str, backends: Mapping[Modality, str]) -> list[TableRef | None]:
    parts = [store.part_of(backend) for backend in in_order(backends).values()]
    return [
        store.find("segments", video),
        *(store.find(t, video, part=p) for p in parts for t in ("predictions", "embeddings")),
    ]


def read_views(store: Store, video_ids: Iterable[str], backends: Mapping[Modality, str]) -> Views:
    """Everything the backends said of the segments of some videos.

    Args:
        store: where the tables lie.
        video_ids: one that repeats counts once; one without segments adds no row.
        backends: modality → backend id. Where a video has no table of a backend, that view is
            absent from all its segments.

    Raises:
        StoreError: a table does not read, or one backend's embeddings differ in width.
    """
    videos = list(dict.fromkeys(video_ids))
    segments = [(video, _segment_ids(store, video)) for video in videos]
    starts = np.cumsum([0, *(len(ids) for _, ids in segments)])
    modalities = tuple(in_order(backends))
    n, n_views = int(starts[-1]), len(modalities)
    sentiment = np.full((n, n_views, len(SENTIMENTS)), np.nan, np.float32)
    emotion = np.full((n, n_views, len(EMOTIONS)), np.nan, np.float32)
    present = np.zeros((n, n_views), np.bool_)
    embeddings: list[NDArray[np.float32]] = []
    notes: list[str] = []
    for view, (modality, backend) in enumerate(in_order(backends).items()):
        part = store.part_of(backend)
        found: list[tuple[NDArray[np.intp], NDArray[np.float32]]] = []
        for (video, ids), start in zip(segments, starts[:-1], strict=True):
            stop = start + len(ids)
            ok = _read_probs(
                store.find("predictions", video, part=part),
                store, ids, sentiment[start:stop, view], emotion[start:stop, view],
            )  # fmt: skip
            rows, vectors = _read_embeddings(store.find("embeddings", video, part=part), store, ids)
            found.append((rows[ok[rows]] + start, vectors[ok[rows]]))
        wide, seen, note = _joined(found, n, backend)
        embeddings.append(wide)
        present[:, view] = seen
        notes.extend([f"{modality}: {note}"] if note else [])
    sentiment[~present] = np.nan
    emotion[~present] = np.nan
    return Views(
        segment_ids=np.array([i for _, ids in segments for i in ids.to_pylist()], np.str_),
        video_ids=np.repeat([v for v, _ in segments], np.diff(starts)).astype(np.str_),
        modalities=modalities,
        embeddings=tuple(embeddings),
        present=present,
        sentiment_probs=sentiment,
        emotion_probs=emotion,
        notes=tuple(notes),
    )


def standardisation(
    embedding: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and scale (d,) that give embeddings (n, d) mean 0 and variance 1.

    A column that does not vary, or no row at all, has scale 1.
    """
    if not len(embedding):
        dim = embedding.shape[1]
        return np.zeros(dim, np.float32), np.ones(dim, np.float32)
    wide = embedding.astype(np.float64)
    mean, scale = wide.mean(axis=0), wide.std(axis=0)
    flat = scale <= 1e-6 * (np.abs(mean) + 1e-6)
    return mean.astype(np.float32), np.where(flat, 1, scale).astype(np.float32)


def _segment_ids(store: Store, video: str) -> pa.Array:
    ref = store.find("segments", video)
    if ref is None:
        return pa.array([], pa.string())
    return store.read(ref, columns=["segment_id"])["segment_id"].combine_chunks()


def _read_probs(
    ref: TableRef | None,
    store: Store,
    ids: pa.Array,
    sentiment: NDArray[np.float32],
    emotion: NDArray[np.float32],
) -> NDArray[np.bool_]:
    """Fill in the probabilities of a video's segments; returns which have status `ok`."""
    ok = np.zeros(len(ids), np.bool_)
    if ref is None:
        return ok
    data = store.read(ref, columns=["segment_id", "status", "sentiment_probs", "emotion_probs"])
    data = data.filter(pc.equal(data["status"], Status.OK.value))
    rows, data = _rows_of(data, ids)
    ok[rows] = True
    for name, target in (("sentiment_probs", sentiment), ("emotion_probs", emotion)):
        column = data[name].combine_chunks()
        said = column.is_valid().to_numpy(zero_copy_only=False)
        probs = column.drop_null().flatten().to_numpy(zero_copy_only=False)
        target[rows[said]] = probs.reshape(-1, target.shape[1])
    return ok


def _read_embeddings(
    ref: TableRef | None, store: Store, ids: pa.Array
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Rows (k,) among a video's segments and their vectors (k, d)."""
    if ref is None:
        return np.zeros(0, np.intp), np.zeros((0, 0), np.float32)
    rows, data = _rows_of(store.read(ref, columns=["segment_id", "embedding"]), ids)
    column = data["embedding"].combine_chunks()
    widths = set(pc.list_value_length(column).to_pylist())
    if len(widths) > 1:
        raise StoreError(
            f"{ref.table}/{ref.part}/{ref.key}: embeddings differ in width ({sorted(widths)}): "
            "remove the file and run again"
        )
    vectors = column.flatten().to_numpy(zero_copy_only=False)
    return rows, vectors.reshape(len(rows), -1) if len(rows) else np.zeros((0, 0), np.float32)


def _rows_of(data: pa.Table, ids: pa.Array) -> tuple[NDArray[np.intp], pa.Table]:
    """The rows of a table that belong to these segments, and which segment each belongs to."""
    index = pc.index_in(data["segment_id"].combine_chunks(), value_set=ids)
    data = data.filter(index.is_valid())
    return index.drop_null().to_numpy(zero_copy_only=False).astype(np.intp), data


def _joined(
    found: list[tuple[NDArray[np.intp], NDArray[np.float32]]], n: int, backend: str
) -> tuple[NDArray[np.float32], NDArray[np.bool_], str | None]:
    """One view's (n, d) embeddings, which are finite (n,), and a note on those that are not."""
    widths = {vectors.shape[1] for rows, vectors in found if len(rows)}
    if len(widths) > 1:
        raise StoreError(
            f"embeddings of {backend} have several widths ({sorted(widths)}): remove its folder "
            "in embeddings/ and in predictions/ and run again"
        )
    wide = np.zeros((n, widths.pop() if widths else 0), np.float32)
    present = np.zeros(n, np.bool_)
    broken = 0
    for rows, vectors in found:
        if len(rows):
            finite = np.isfinite(vectors).all(axis=1)
            wide[rows[finite]] = vectors[finite]
            present[rows[finite]] = True
            broken += int((~finite).sum())
    note = f"{broken} embeddings are not finite and count as absent" if broken else None
    return wide, present, note
