"""A table of what anybody's models say of segments, checked and read into views."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vsa_core.bring.embeddings import HELD_BYTES, Rows, list_lengths, read_embeddings
from vsa_core.bring.files import ParquetPart, batches, column_at, parquet_parts, text_column
from vsa_core.errors import UsageError
from vsa_core.fusion.views import Views
from vsa_core.labels import MODALITIES, Status

TARGET = "label"
CLASSES_TAG = b"vsa.classes"  # key of a JSON list in a Parquet file's metadata
_NEEDED = ("segment_id", "video_id", "modality", "probs")
_MOST_VIEWS = 8
_CLASSES = range(2, 21)
_SUM_OFF = 1e-3


@dataclass(frozen=True, slots=True)
class Predictions:
    """A predictions table as the engine takes it.

    Attributes:
        views: sorted by segment_id, so that the same rows in another order are the same input;
            one target, `label`.
        order: (n,) rows of `views` in the order in which the segments come in the table.
    """

    views: Views
    order: NDArray[np.intp]


def read_predictions(
    where: str | Path,
    classes: Sequence[str] | None = None,
    *,
    unnamed: Sequence[str] | None = None,
    held_bytes: int = HELD_BYTES,
) -> Predictions:
    """Read a predictions table: a row per segment and modality, in any order.

    Its columns: `segment_id`, `video_id`, `modality` (2 to 8 of them), `status` (ok, absent or
    error; may be missing), `probs` (a list of K floats, 2 to 20; null abstains), `embedding` (a
    list of floats as long as the modality's others; null or missing: none). An embedding that is
    not finite makes its modality absent on that segment.

    Args:
        where: a Parquet file, a folder of them, or a pattern with `*`.
        classes: names of the K classes in the order of `probs`; None takes the list in the
            metadata `vsa.classes`, else `unnamed`, else "0", "1", …
        unnamed: names to take where nobody gives any and these are K; said in a note.
        held_bytes: embeddings up to this size are held in memory, larger ones in scratch files in
            `tempfile.gettempdir()`, nameless and gone with the process.

    Raises:
        UsageError: the table cannot be used; one line says where and why.
    """
    parts = parquet_parts(where)
    _check_columns(parts)
    segments, videos, names, segment, video, view = _read_ids(parts)
    _check_ids(parts, segments, names, segment, video, view)
    n = len(segments)
    first = np.empty(n, np.intp)
    first[segment[::-1]] = np.arange(len(segment))[::-1]
    used, probs, notes = _read_probs(parts, segments, names, segment, view)
    rows = Rows(parts, segment, view, used)
    checked = read_embeddings(rows, segments, names, held_bytes)
    probs[checked.broken] = np.nan
    for v, count in enumerate(checked.broken.sum(axis=0)):
        if count:
            notes.append(f"{names[v]}: {count} embeddings are not finite: absent there")
    voting = np.isfinite(probs).all(axis=2)
    if not voting.any():
        raise UsageError(f"{where}: no row has probs that can be used: there is nothing to label")
    notes += [f"{names[v]} never votes" for v in np.flatnonzero(~voting.any(axis=0)).tolist()]
    named, numbered = _class_names(parts, classes, probs.shape[2])
    if numbered and unnamed and len(unnamed) == probs.shape[2]:
        named = tuple(unnamed)
        notes.append(f"probs are taken to be of {', '.join(named)}, in this order")
    elif numbered:
        notes.append(f"classes are numbered 0 to {probs.shape[2] - 1} in the order of probs")
    if len(names) == 1:
        notes.append(f"{names[0]} is the only modality: nothing can agree or disagree with it")
    views = Views(
        segments,
        tuple(videos),
        video[first],
        tuple(names),
        voting | checked.embedded,
        checked.embedded,
        checked.embeddings,
        {TARGET: named},
        {TARGET: probs},
        tuple(notes),
    )
    return Predictions(views, np.argsort(first, kind="stable"))


def _check_columns(parts: Sequence[ParquetPart]) -> None:
    for part in parts:
        found = part.schema.names
        missing = [name for name in _NEEDED if name not in found]
        if missing:
            raise UsageError(
                f"{part.path} lacks the column {missing[0]}: it needs {', '.join(_NEEDED)} and "
                f"may have status and embedding; there are {', '.join(found)}"
            )
        for name in (*_NEEDED, "status", "embedding"):
            if found.count(name) > 1:
                raise UsageError(f"{part.path} has the column {name} twice: keep one")


def _read_ids(
    parts: Sequence[ParquetPart],
) -> tuple[
    pa.StringArray, list[str], list[str], NDArray[np.int32], NDArray[np.int32], NDArray[np.int8]
]:
    """Segments, videos and modalities, each sorted, and for each row which of them it is of."""
    chunks: dict[str, list[pa.Array]] = {name: [] for name in _NEEDED[:3]}
    for start, batch in batches(parts, list(chunks)):
        for name, held in chunks.items():
            what = column_at(parts, start, name)
            words = text_column(batch.column(name), what)
            if words.null_count or pc.any(pc.equal(words, "")).as_py():
                empty = pc.fill_null(pc.equal(words, ""), True)
                row = start + pc.index(empty, True).as_py() + 1
                raise UsageError(f"{what} is empty in row {row}: every row needs one")
            held.append(words)
    segments, segment = _coded(chunks.pop("segment_id"))
    videos, video = _coded(chunks.pop("video_id"))
    modalities, modality = _coded(chunks.pop("modality"))
    # Ours in our order, others by name: what a view is called must not depend on the rows' order.
    ours = [str(m) for m in MODALITIES]
    found: list[str] = modalities.to_pylist()
    names = sorted(found, key=lambda m: (ours.index(m) if m in ours else len(ours), m))
    if len(names) > _MOST_VIEWS:
        raise UsageError(
            f"{column_at(parts, 0, 'modality')} has {len(names)} values ({', '.join(names[:9])}, "
            f"…): at most {_MOST_VIEWS} can be fused"
        )
    place = np.array([names.index(name) for name in found], np.int8)
    return segments, videos.to_pylist(), names, segment, video, place[modality]


def _coded(chunks: list[pa.Array]) -> tuple[pa.StringArray, NDArray[np.int32]]:
    """The values, sorted, and for each row the index of its value."""
    coded = pa.chunked_array(chunks).dictionary_encode()
    chunks.clear()
    values = coded.chunk(0).dictionary
    order = pc.array_sort_indices(values)
    place = np.empty(len(values), np.int32)
    place[order.to_numpy()] = np.arange(len(values), dtype=np.int32)
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in coded.chunks])
    return values.take(order), place[codes]


def _check_ids(
    parts: Sequence[ParquetPart],
    segments: pa.StringArray,
    names: Sequence[str],
    segment: NDArray[np.int32],
    video: NDArray[np.int32],
    view: NDArray[np.int8],
) -> None:
    n, count = len(segments), len(names)
    key = segment.astype(np.int64) * count + view
    seen = np.zeros(n * count, np.bool_)
    seen[key] = True
    if seen.sum() < len(key):
        order = np.argsort(key, kind="stable")
        again = order[1:][key[order][1:] == key[order][:-1]].min()
        raise UsageError(
            f"{column_at(parts, again, 'segment_id')}: {segments[int(segment[again])].as_py()!r} "
            f"has two rows for {names[view[again]]}, the second is row "
            f"{_row_in_part(parts, again)}: keep one row per segment and modality"
        )
    of = np.empty(n, np.int32)
    of[segment[::-1]] = video[::-1]
    elsewhere = np.flatnonzero(of[segment] != video)
    if len(elsewhere):
        raise UsageError(
            f"{column_at(parts, elsewhere[0], 'video_id')}: segment "
            f"{segments[int(segment[elsewhere[0]])].as_py()!r} is in two videos, see row "
            f"{_row_in_part(parts, elsewhere[0])}: give every segment an id of its own"
        )


def _row_in_part(parts: Sequence[ParquetPart], row: int) -> int:
    return int(row) - max(part.start for part in parts if part.start <= row) + 1


def _read_probs(
    parts: Sequence[ParquetPart],
    segments: pa.StringArray,
    names: Sequence[str],
    segment: NDArray[np.int32],
    view: NDArray[np.int8],
) -> tuple[NDArray[np.bool_], NDArray[np.float32], list[str]]:
    """Which rows are used, the probabilities (n, V, K), and what was odd."""
    used = np.ones(len(segment), np.bool_)
    unused = np.zeros(len(names), np.intp)
    probs: NDArray[np.float32] | None = None
    for start, batch in batches(parts, ["probs", "status"]):
        part = slice(start, start + batch.num_rows)
        if "status" in batch.schema.names:
            used[part] = _is_ok(batch.column("status"), column_at(parts, start, "status"))
        what = column_at(parts, start, "probs")
        column = batch.column("probs")
        lengths = list_lengths(column, what)
        given = np.flatnonzero(used[part] & (lengths > 0))
        np.add.at(unused, view[part][~used[part] & (lengths > 0)], 1)
        if not len(given):
            continue

        def of(row: np.intp, start: int = start) -> str:
            return f"segment {segments[int(segment[start + row])].as_py()!r}"

        if probs is None:
            k = int(lengths[given[0]])
            if k not in _CLASSES:
                raise UsageError(
                    f"{what}: {of(given[0])} has {k} probabilities: "
                    f"{_CLASSES[0]} to {_CLASSES[-1]} classes can be told apart"
                )
            probs = np.full((len(segments), len(names), k), np.nan, np.float32)
        k = probs.shape[2]
        odd = given[lengths[given] != k]
        if len(odd):
            raise UsageError(
                f"{what}: {of(odd[0])} has {lengths[odd[0]]} probabilities, others {k}: give one "
                "per class, in one order"
            )
        flat = column.take(pa.array(given)).flatten().to_numpy(zero_copy_only=False)
        said = np.asarray(flat, np.float64).reshape(-1, k)
        total = said.sum(axis=1)
        silent = np.isnan(said).all(axis=1)
        for wrong, why in (
            (~np.isfinite(said).all(axis=1), "is not finite: use null where a model abstains"),
            ((said < 0).any(axis=1), "has a negative probability: give shares from 0 to 1"),
            (np.abs(total - 1) > _SUM_OFF, "sums to {:.4g}, not 1: divide by the sum"),
        ):
            bad = np.flatnonzero(wrong & ~silent)
            if len(bad):
                raise UsageError(f"{what}: {of(given[bad[0]])} {why.format(total[bad[0]])}")
        probs[segment[part][given], view[part][given]] = said / total[:, None]
    if probs is None:
        raise UsageError(
            f"{column_at(parts, 0, 'probs')} is null wherever status is ok: there is no vote"
        )
    notes = [
        f"{names[v]}: probs of {unused[v]} rows are passed over: their status is not ok"
        for v in np.flatnonzero(unused).tolist()
    ]
    return used, probs, notes


def _is_ok(column: pa.Array, what: str) -> NDArray[np.bool_]:
    status = pc.fill_null(text_column(column, what), Status.OK.value)
    known = pc.is_in(status, pa.array([s.value for s in Status]))
    if not pc.all(known).as_py():
        odd = status[pc.index(known, False).as_py()].as_py()
        raise UsageError(f"{what} says {odd!r}: use ok, absent or error")
    ok: NDArray[np.bool_] = pc.equal(status, Status.OK.value).to_numpy(zero_copy_only=False)
    return ok


def _class_names(
    parts: Sequence[ParquetPart], given: Sequence[str] | None, k: int
) -> tuple[tuple[str, ...], bool]:
    """Names of the K classes, and whether nobody named them."""
    source = "--classes"
    names = list(given) if given is not None else None
    if names is None:
        for part in parts:
            raw = (part.schema.metadata or {}).get(CLASSES_TAG)
            if raw is None:
                continue
            source = f"{part.path}: metadata {CLASSES_TAG.decode()}"
            try:
                listed = json.loads(raw)
            except ValueError:
                listed = None
            if not isinstance(listed, list) or not all(isinstance(c, str) for c in listed):
                raise UsageError(f"{source} is no JSON list of names: mend it or give --classes")
            if names is not None and names != listed:
                raise UsageError(
                    f"{source} is {', '.join(listed)}, in another file {', '.join(names)}: "
                    "give --classes"
                )
            names = listed
    if names is None:
        return tuple(str(i) for i in range(k)), True
    if len(names) != k:
        raise UsageError(
            f"{source} names {len(names)} classes ({', '.join(names)}), probs has {k}: name each, "
            "in the order of probs"
        )
    if len(set(names)) < k or not all(name.strip() for name in names):
        raise UsageError(f"{source} ({', '.join(names)}): give each class a name of its own")
    return tuple(names), False
