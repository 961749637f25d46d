"""A table of what anybody's models say of segments, checked and read into views."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vsa_core.agree import has_vote
from vsa_core.bring.embeddings import HELD_BYTES, Rows, list_lengths, read_embeddings
from vsa_core.bring.files import (
    TablePart,
    batches,
    column_at,
    number_column,
    number_lists,
    table_parts,
    text_column,
)
from vsa_core.errors import UsageError
from vsa_core.fusion.views import Views
from vsa_core.labels import MODALITIES, Status
from vsa_core.truths import CLASSES

TARGET = "label"
CLASSES_TAG = b"vsa.classes"  # key of a JSON list in a Parquet file's metadata
_NEEDED = ("segment_id", "video_id", "modality", "probs")
_MOST_VIEWS = 8
_CLASSES = range(2, 21)
_SUM_OFF = 1e-3
_ROUNDED = 1e-6  # so far below zero what should be zero may come out of a sum
# Such a share of rows that are all the same, and so many, is no accident where the others differ.
_CONSTANT_SHARE, _CONSTANT_ROWS = 0.1, 10


@dataclass(frozen=True, slots=True)
class Predictions:
    """A predictions table as the engine takes it.

    Attributes:
        views: sorted by segment_id, so that the same rows in another order are the same input;
            one target, `label`.
        order: (n,) rows of `views` in the order in which the segments come in the table.
        warnings: what is odd and costs accuracy, one line each.
    """

    views: Views
    order: NDArray[np.intp]
    warnings: tuple[str, ...] = ()


def read_predictions(
    where: str | Path,
    classes: Sequence[str] | None = None,
    *,
    unnamed: Sequence[str] | None = None,
    drop_constant: bool = False,
    held_bytes: int = HELD_BYTES,
) -> Predictions:
    """Read a predictions table: a row per segment and modality, in any order.

    Its columns: `segment_id`, `video_id`, `modality` (2 to 8 of them), `status` (ok, absent or
    error; may be missing), `probs` (a list of K floats, 2 to 20; null abstains) or instead of it a
    column of each class, `embedding` (a list of floats as long as the modality's others; null or
    missing: none). An embedding that is not finite makes its modality absent on that segment.

    Args:
        where: as `files.table_parts`.
        classes: names of the K classes in the order of `probs`; None takes the list in the
            metadata `vsa.classes`, else `unnamed`, else "0", "1", …
        unnamed: names to take where nobody gives any and these are K; said in a note.
        drop_constant: take rows for absent that repeat one constant, which is else a warning.
        held_bytes: embeddings up to this size are held in memory, larger ones in scratch files in
            `tempfile.gettempdir()`, nameless and gone with the process.

    Raises:
        UsageError: the table cannot be used; one line says where and why.
    """
    parts = table_parts(where)
    columns = _check_columns(parts, classes or unnamed)
    segments, videos, names, segment, video, view = _read_ids(parts)
    again, stood = _check_ids(parts, segments, names, segment, video, view)
    n = len(segments)
    first = np.empty(n, np.intp)
    first[segment[::-1]] = np.arange(len(segment))[::-1]
    used, probs, voted, notes = _read_probs(parts, columns, segments, names, segment, view)
    rows = Rows(parts, segment, view, used)
    checked = read_embeddings(rows, segments, names, held_bytes)
    marks = voted + 1j * checked.marks
    if len(differing := again[marks[again] != marks[stood]]):
        raise _twice(parts, segments, names, segment, view, differing.min())
    if len(again):
        notes.append(f"{len(again)} rows stand in the table twice, all the same: once will do")
    constant, alike = _constants(rows, probs, marks, names)
    if drop_constant and constant.any():
        probs[segment[constant], view[constant]] = np.nan
        checked = read_embeddings(replace(rows, used=used & ~constant), segments, names, held_bytes)
        notes += [f"{line}: taken for absent" for line in alike]
        alike = []
    probs[checked.broken] = np.nan
    for v, count in enumerate(checked.broken.sum(axis=0)):
        if count:
            notes.append(f"{names[v]}: {count} embeddings are not finite: absent there")
    voting = has_vote(probs)
    if not voting.any():
        raise UsageError(f"{where}: no row has probs that can be used: there is nothing to label")
    notes += [f"{names[v]} never votes" for v in np.flatnonzero(~voting.any(axis=0)).tolist()]
    notes += _odd_votes(probs, voting, names)
    given = classes if columns == ("probs",) else columns
    named, numbered = _class_names(parts, given, probs.shape[2])
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
    advice = "as if nothing was seen there; give null or status absent, or --drop-constant"
    warnings = tuple(f"{line}, {advice}" for line in alike)
    return Predictions(views, np.argsort(first, kind="stable"), warnings)


def _check_columns(parts: Sequence[TablePart], classes: Sequence[str] | None) -> tuple[str, ...]:
    """The columns of the probabilities: `probs`, or one of each class."""
    ours = next((known for known in CLASSES.values() if _all_have(parts, known)), ())
    of_each = tuple(ours if classes is None else classes)
    wide = of_each and _all_have(parts, of_each) and not _all_have(parts, ("probs",))
    columns = of_each if wide else ("probs",)
    needed = (*_NEEDED[:3], *columns)
    for part in parts:
        missing = [name for name in needed if name not in part.names]
        if missing:
            hint = ""
            if missing[0] == "probs":
                hint = " (or a column of each class: name them with --classes)"
            raise UsageError(
                f"{part.path} lacks the column {missing[0]}{hint}: it needs {', '.join(_NEEDED)} "
                f"and may have status and embedding; there are {', '.join(part.names)}"
            )
        for name in (*needed, "status", "embedding"):
            if part.names.count(name) > 1:
                raise UsageError(f"{part.path} has the column {name} twice: keep one")
    return columns


def _all_have(parts: Sequence[TablePart], columns: Sequence[str]) -> bool:
    return all(set(columns) <= set(part.names) for part in parts)


def _read_ids(
    parts: Sequence[TablePart],
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
    parts: Sequence[TablePart],
    segments: pa.StringArray,
    names: Sequence[str],
    segment: NDArray[np.int32],
    video: NDArray[np.int32],
    view: NDArray[np.int8],
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of a segment and modality that had one before, and that row for each."""
    n = len(segments)
    key = segment.astype(np.int64) * _MOST_VIEWS + view
    order = np.argsort(key, kind="stable")
    same = np.flatnonzero(key[order][1:] == key[order][:-1])
    again, stood = order[1:][same], order[:-1][same]
    if len(differing := again[video[again] != video[stood]]):
        raise _twice(parts, segments, names, segment, view, differing.min())
    of = np.empty(n, np.int32)
    of[segment[::-1]] = video[::-1]
    elsewhere = np.flatnonzero(of[segment] != video)
    if len(elsewhere):
        raise UsageError(
            f"{column_at(parts, elsewhere[0], 'video_id')}: segment "
            f"{segments[int(segment[elsewhere[0]])].as_py()!r} is in two videos, see row "
            f"{_row_in_part(parts, elsewhere[0])}: give every segment an id of its own"
        )
    return again, stood


def _twice(
    parts: Sequence[TablePart],
    segments: pa.StringArray,
    names: Sequence[str],
    segment: NDArray[np.int32],
    view: NDArray[np.int8],
    row: np.intp,
) -> UsageError:
    """What is wrong with a row that says something else of what had a row before."""
    return UsageError(
        f"{column_at(parts, int(row), 'segment_id')}: {segments[int(segment[row])].as_py()!r} has "
        f"two rows for {names[view[row]]}, the second is row {_row_in_part(parts, int(row))}: keep "
        "one row per segment and modality"
    )


def _row_in_part(parts: Sequence[TablePart], row: int) -> int:
    return int(row) - max(part.start for part in parts if part.start <= row) + 1


def _read_probs(
    parts: Sequence[TablePart],
    columns: Sequence[str],
    segments: pa.StringArray,
    names: Sequence[str],
    segment: NDArray[np.int32],
    view: NDArray[np.int8],
) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float64], list[str]]:
    """Which rows are used, the probabilities (n, V, K), marks of the rows, and what was odd.

    Rows (N,) that say the same have the same mark; 0 says nothing.
    """
    used = np.ones(len(segment), np.bool_)
    marks = np.zeros(len(segment))
    unused = np.zeros(len(names), np.intp)
    probs: NDArray[np.float32] | None = None
    for start, batch in batches(parts, [*columns, "status"]):
        part = slice(start, start + batch.num_rows)
        if "status" in batch.schema.names:
            used[part] = _is_ok(batch.column("status"), column_at(parts, start, "status"))
        what = column_at(parts, start, columns[0])
        column = _lists(batch, columns, what)
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
        speaks = ~np.isnan(said).all(axis=1)
        for v in np.unique(view[part][given]):
            mine = np.flatnonzero(speaks & (view[part][given] == v))
            wrong = _misfit(said[mine])
            if wrong is not None:
                first, why = wrong
                raise UsageError(f"{what}: {of(given[mine[first]])} ({names[v]}) {why}")
        said = np.where(said < 0, 0, said)
        total = said.sum(axis=1)
        probs[segment[part][given], view[part][given]] = said / total[:, None]
        weighed = (said * np.random.default_rng(0).random(k)).sum(axis=1)
        marks[start + given] = np.nan_to_num(weighed)
    if probs is None:
        raise UsageError(
            f"{column_at(parts, 0, columns[0])} is null wherever status is ok: there is no vote"
        )
    notes = [
        f"{names[v]}: probs of {unused[v]} rows are passed over: their status is not ok"
        for v in np.flatnonzero(unused).tolist()
    ]
    return used, probs, marks, notes


def _lists(batch: pa.RecordBatch, columns: Sequence[str], what: str) -> pa.Array:
    """The probabilities of each row as a list; null where there is none."""
    if len(columns) == 1:
        return number_lists(batch.column(columns[0]), what)
    each = [number_column(batch.column(name), what) for name in columns]
    flat = np.stack([column.to_numpy(zero_copy_only=False) for column in each], axis=1)
    silent = pa.array(np.isnan(flat).all(axis=1))
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), len(columns), mask=silent)


def _misfit(said: NDArray[np.float64]) -> tuple[int, str] | None:
    """The first of a view's rows (r, K) that holds no probabilities, and what to do about it."""
    finite = has_vote(said)
    total = said.sum(axis=1)
    below: NDArray[np.bool_] = np.asarray((said < -_ROUNDED).any(axis=1))
    bad = ~finite | below | ~(np.abs(total - 1) <= _SUM_OFF)
    if not bad.any():
        return None
    zeros = (said == 0).all(axis=1)
    first, numbers = int(bad.argmax()), finite & ~zeros
    # One odd row is a slip; where most are, they are something else than probabilities.
    if 2 * bad[numbers].sum() > numbers.sum() and (kind := _kind(said[numbers])):
        return first, f"and others {kind}"
    if zeros[first]:
        return first, (
            "is all zeros: where there is nothing to look at leave probs null, or let status say "
            "absent"
        )
    if not finite[first]:
        return first, "is not finite: use null where a model abstains"
    if below[first]:
        return first, "has a negative probability: give shares from 0 to 1"
    return first, f"sums to {total[first]:.4g}, not 1: divide by the sum"


def _kind(said: NDArray[np.float64]) -> str | None:
    """What rows (r, K) seem to be that are no probabilities, and what makes some of them."""
    total = said.sum(axis=1)
    with np.errstate(over="ignore"):
        if (said <= 0).all() and (np.abs(np.exp(said).sum(axis=1) - 1) < 0.01).all():
            return "look like log-probabilities: give exp of each"
    if (said >= 0).all() and (np.abs(total - 100) < 1).all():
        return "sum to 100, percent it seems: divide by 100"
    if (said >= 0).all() and (said == np.round(said)).all():
        return "look like counts of votes: divide each row by its sum"
    if (said >= 0).all() and (said <= 1).all():
        if (np.abs(total - 1) < 0.05).all():
            return None  # rounded
        return (
            "are from 0 to 1 but do not sum to 1, as each class's own yes or no: give "
            "probabilities of which one class is true, such as a softmax of the logits"
        )
    if (said >= 0).all() and np.ptp(total) <= _SUM_OFF * total.mean():
        return f"sum to {total.mean():.4g}: divide each row by its sum"
    return "look like logits: give the softmax of each row"


def _constants(
    rows: Rows, probs: NDArray[np.float32], marks: NDArray[np.complex128], names: Sequence[str]
) -> tuple[NDArray[np.bool_], list[str]]:
    """Which rows (N,) repeat one constant, as a missing face may be written, and a line a view."""
    constant, lines = np.zeros(len(marks), np.bool_), []
    for v, name in enumerate(names):
        at = np.flatnonzero(rows.used & (rows.view == v) & (marks != 0))
        if not len(at):
            continue
        values, of, counts = np.unique(marks[at], return_inverse=True, return_counts=True)
        top = int(counts.argmax())
        alike, others = int(counts[top]), len(at) - int(counts[top])
        enough = alike >= max(_CONSTANT_ROWS, _CONSTANT_SHARE * len(at))
        # Of hard or coarse votes many are alike by their nature.
        if not enough or 2 * (len(values) - 1) < others or not others:
            continue
        mine = at[of == top]
        constant[mine] = True
        said = probs[rows.segment[mine[0]], v]
        shown = ", ".join(f"{x:.2g}" for x in said)
        what = f"probs {shown}" if marks[mine[0]].real else "null probs"
        what += " and one embedding" if marks[mine[0]].imag else ""
        lines.append(
            f"{name}: {alike} of {len(at)} rows ({alike / len(at):.0%}) are all the same ({what})"
        )
    return constant, lines


def _odd_votes(
    probs: NDArray[np.float32], voting: NDArray[np.bool_], names: Sequence[str]
) -> list[str]:
    """Notes on views that say nothing, or are too sure to be weighed."""
    notes = []
    for v, name in enumerate(names):
        said = probs[voting[:, v], v]
        if not len(said):
            continue
        even = int((np.ptp(said, axis=1) < 1e-6).sum())
        if even:
            notes.append(f"{name}: {even} rows find all classes alike: no vote there")
        if len(said) > even and (said.max(axis=1) > 0.9999).all():
            notes.append(f"{name}: probs are all 0 or 1: nothing tells how sure it is")
    return notes


def _is_ok(column: pa.Array, what: str) -> NDArray[np.bool_]:
    status = pc.fill_null(text_column(column, what), Status.OK.value)
    known = pc.is_in(status, pa.array([s.value for s in Status]))
    if not pc.all(known).as_py():
        odd = status[pc.index(known, False).as_py()].as_py()
        raise UsageError(f"{what} says {odd!r}: use ok, absent or error")
    ok: NDArray[np.bool_] = pc.equal(status, Status.OK.value).to_numpy(zero_copy_only=False)
    return ok


def _class_names(
    parts: Sequence[TablePart], given: Sequence[str] | None, k: int
) -> tuple[tuple[str, ...], bool]:
    """Names of the K classes, and whether nobody named them."""
    source = "--classes"
    names = list(given) if given is not None else None
    if names is None:
        for part in parts:
            raw = part.metadata.get(CLASSES_TAG)
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
