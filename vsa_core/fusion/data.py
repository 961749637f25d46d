"""What the backends of a store saw of a set of videos, as the engine takes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vsa_core.errors import StoreError
from vsa_core.fusion.spool import Spool, check_room
from vsa_core.fusion.views import Embedding, Held, Views
from vsa_core.labels import EMOTIONS, MODALITIES, SENTIMENTS, Modality, Status
from vsa_core.store import Store, TableRef

SENTIMENT, EMOTION = "sentiment", "emotion"
CLASSES = {SENTIMENT: tuple(map(str, SENTIMENTS)), EMOTION: tuple(map(str, EMOTIONS))}
# Embeddings of all views together: those that fit are held, the others lie in scratch files.
HELD_BYTES = 512 * 2**20
# A part is listed whole where it has at most so many files per video that is asked for.
_LISTED = 4
_BATCH = 4096


@dataclass(frozen=True, slots=True)
class Segments:
    """n segments of some videos, in order of video and time.

    Attributes:
        ids: (n,) their ids.
        where: by video its rows among the n; no video without segments.
    """

    ids: pa.StringArray
    where: Mapping[str, slice]


def in_order(backends: Mapping[Modality, str]) -> dict[Modality, str]:
    """The same backend ids in the order of `MODALITIES`."""
    return {m: backends[m] for m in MODALITIES if m in backends}


def input_fingerprints(
    store: Store, video_ids: Iterable[str], backends: Mapping[Modality, str]
) -> list[list[str | None]]:
    """Per video the fingerprints of its segments and of what each backend said of them.

    A table that is not there is None.
    """
    videos = list(video_ids)
    parts = [store.part_of(backend) for backend in in_order(backends).values()]
    tables = [("segments", "")] + [(t, p) for p in parts for t in ("predictions", "embeddings")]
    found = [standing_refs(store, table, videos, part=part) for table, part in tables]
    return [
        [refs[video].fingerprint if video in refs else None for refs in found] for video in videos
    ]


def standing_refs(
    store: Store, table: str, video_ids: Sequence[str], *, part: str = ""
) -> Mapping[str, TableRef]:
    """What stands of these videos, and maybe of others, by the cheaper of two ways.

    A listing of the whole part opens every file that is not compacted yet; asking for each video
    opens one a video.
    """
    small = sum(file.part == part and not file.compacted for file in store.files(table))
    if small <= _LISTED * len(video_ids):
        return store.refs(table, part)
    found = ((video, store.find(table, video, part=part)) for video in video_ids)
    return {video: ref for video, ref in found if ref is not None}


def read_views(
    store: Store,
    video_ids: Iterable[str],
    backends: Mapping[Modality, str],
    *,
    targets: Sequence[str] | None = None,
    held_bytes: int = HELD_BYTES,
) -> Views:
    """Everything the backends said of the segments of some videos.

    Args:
        store: where the tables lie.
        video_ids: one that repeats counts once; one without segments adds no row.
        backends: modality → backend id. Where a video has no table of a backend, that view is
            absent from all its segments.
        targets: of `SENTIMENT` and `EMOTION` those to give; None gives the sentiment, and the
            emotion if any view knows one.
        held_bytes: up to this size of all embeddings together they are held in memory, in the
            order of modalities; what does not fit goes to a scratch file.

    Raises:
        StoreError: a table does not read, or one backend's embeddings differ in width.
        UsageError: there is no room for a scratch file.
    """
    segments = _segments(store, list(dict.fromkeys(video_ids)))
    ordered = in_order(backends)
    n, n_views = len(segments.ids), len(ordered)
    probs = {
        target: np.full((n, n_views, len(names)), np.nan, np.float32)
        for target, names in CLASSES.items()
    }
    embedded = np.zeros((n, n_views), np.bool_)
    embeddings: list[Embedding] = []
    notes: list[str] = []
    room = held_bytes
    for v, (modality, backend) in enumerate(ordered.items()):
        of_view = {target: said[:, v] for target, said in probs.items()}
        looked = _read_probs(store, store.part_of(backend), segments, of_view)
        embedding, embedded[:, v], broken = _read_embeddings(store, backend, segments, looked, room)
        if isinstance(embedding, Held):
            room -= embedding.vectors.nbytes
        embeddings.append(embedding)
        if broken.any():
            for said in of_view.values():
                said[broken] = np.nan
            notes.append(
                f"{modality}: {broken.sum()} embeddings are not finite and count as absent"
            )
    voted = np.zeros((n, n_views), np.bool_)
    for said in probs.values():
        voted |= ~np.isnan(said).any(axis=2)
    if targets is None:
        targets = [t for t in probs if t == SENTIMENT or not np.isnan(probs[t]).all()]
    lengths = [where.stop - where.start for where in segments.where.values()]
    return Views(
        segment_ids=segments.ids,
        videos=tuple(segments.where),
        video=np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        names=tuple(map(str, ordered)),
        present=voted | embedded,
        embedded=embedded,
        embeddings=tuple(embeddings),
        classes={target: CLASSES[target] for target in targets},
        probs={target: probs[target] for target in targets},
        notes=tuple(notes),
    )


def _segments(store: Store, videos: Sequence[str]) -> Segments:
    columns = ["video_id", "segment_id"]
    found = list(store.scan("segments", keys=videos, columns=columns))
    if not found:
        return Segments(pa.array([], pa.string()), {})
    data = pa.concat_tables(found)
    number = pc.index_in(data["video_id"].combine_chunks(), value_set=pa.array(videos, pa.string()))
    of_row = number.to_numpy(zero_copy_only=False)
    order = np.argsort(of_row, kind="stable")
    ids = data["segment_id"].combine_chunks().take(pa.array(order))
    present, starts = np.unique(of_row[order], return_index=True)
    bounds = [*starts.tolist(), len(order)]
    where = {
        videos[video]: slice(start, stop)
        for video, start, stop in zip(present.tolist(), bounds, bounds[1:], strict=False)
    }
    return Segments(ids, where)


def _rows(
    store: Store, table: str, part: str, columns: Sequence[str], segments: Segments
) -> Iterator[tuple[NDArray[np.intp], pa.Table]]:
    """The rows of a table that belong to segments, and which they belong to, a few at a time."""
    wanted = ["video_id", "segment_id", *columns]
    for data in store.scan(table, part=part, keys=segments.where, columns=wanted):
        for start in range(0, data.num_rows, _BATCH):
            yield _belonging(data.slice(start, _BATCH), segments)


def _belonging(data: pa.Table, segments: Segments) -> tuple[NDArray[np.intp], pa.Table]:
    # Looked up among the segments of these videos alone: there may be very many others.
    videos = data["video_id"].unique().to_pylist()
    own = [segments.where[video] for video in videos if video in segments.where]
    if not own:
        return np.zeros(0, np.intp), data.slice(0, 0)
    ids = pa.concat_arrays([segments.ids[where] for where in own])
    numbers = np.concatenate([np.arange(where.start, where.stop) for where in own])
    index = pc.index_in(data["segment_id"].combine_chunks(), value_set=ids)
    rows: NDArray[np.intp] = numbers[index.drop_null().to_numpy(zero_copy_only=False)]
    return rows, data.filter(index.is_valid())


def _read_probs(
    store: Store, part: str, segments: Segments, probs: Mapping[str, NDArray[np.float32]]
) -> NDArray[np.bool_]:
    """Fill in one view's probabilities (n, K) per target; returns which segments it looked at."""
    looked = np.zeros(len(segments.ids), np.bool_)
    columns = {target: f"{target}_probs" for target in probs}
    for rows, data in _rows(store, "predictions", part, ["status", *columns.values()], segments):
        ok = pc.equal(data["status"], Status.OK.value)
        data, rows = data.filter(ok), rows[ok.to_numpy()]
        looked[rows] = True
        for target, name in columns.items():
            column = data[name].combine_chunks()
            said = column.is_valid().to_numpy(zero_copy_only=False)
            flat = column.drop_null().flatten().to_numpy(zero_copy_only=False)
            probs[target][rows[said]] = flat.reshape(-1, probs[target].shape[1])
    return looked


def _read_embeddings(
    store: Store, backend: str, segments: Segments, looked: NDArray[np.bool_], room: int
) -> tuple[Embedding, NDArray[np.bool_], NDArray[np.bool_]]:
    """One view's embeddings in the order of segments, held if they take at most `room` bytes.

    Also which of the n segments have one, and where it is broken.
    """
    n, count = len(looked), int(looked.sum())
    finite, broken = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    slot = np.cumsum(looked) - 1
    held, spool = np.zeros((0, 0), np.float32), None
    width = 0
    for rows, vectors in _embeddings(store, store.part_of(backend), segments):
        ours = looked[rows]
        rows, vectors = rows[ours], vectors[ours]
        if not vectors.size:
            continue
        if not width:
            width = vectors.shape[1]
            if 4 * count * width > room:
                check_room(4 * count * width)
                spool = Spool(count, width)
            else:
                held = np.empty((count, width), np.float32)
        if vectors.shape[1] != width:
            raise StoreError(
                f"embeddings of {backend} have several widths "
                f"({sorted({width, vectors.shape[1]})}): remove its folder in embeddings/ and in "
                "predictions/ and run again"
            )
        whole = np.isfinite(vectors).all(axis=1)
        finite[rows[whole]] = True
        broken[rows[~whole]] = True
        if spool is not None:
            spool.put(slot[rows[whole]], vectors[whole])
        else:
            held[slot[rows[whole]]] = vectors[whole]
    at = np.flatnonzero(finite)
    if spool is not None:
        return spool.kept(at, slot[at]), finite, broken
    return Held(at, held if len(at) == len(held) else held[slot[at]]), finite, broken


def _embeddings(
    store: Store, part: str, segments: Segments
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
    """Rows (b,) and vectors (b, d) of one view, as the files hold them."""
    for rows, data in _rows(store, "embeddings", part, ["embedding"], segments):
        lists = data["embedding"].combine_chunks()
        lengths = pc.unique(pc.list_value_length(lists)).to_pylist()
        if len(lengths) > 1:
            raise StoreError(
                f"embeddings/{part}: embeddings of one file differ in width ({sorted(lengths)}): "
                "remove the folder, and that in predictions/, and run again"
            )
        if len(rows):
            flat = lists.flatten().to_numpy(zero_copy_only=False)
            yield rows, flat.reshape(len(rows), -1)
