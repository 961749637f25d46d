"""What somebody knows of segments: a file of their sentiments and emotions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vsa_core.bring.files import columns_of
from vsa_core.errors import UsageError
from vsa_core.labels import EMOTIONS, SENTIMENTS

CLASSES = {"sentiment": tuple(map(str, SENTIMENTS)), "emotion": tuple(map(str, EMOTIONS))}
# A column of whatever classes, as `vsa label` writes and reads it.
LABEL = "label"
TARGETS = (*CLASSES, LABEL)
_PLACE = ("video", "video_id"), ("start_ms", "end_ms")


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of r segments.

    Attributes:
        name: `reviews`, or the file's.
        ids: (r,) segments, each once; made of the places where they are not given.
        labels: by target (r,) classes, of the targets that are spoken of; null where nothing is
            known.
        first_at: (r,) when it was first reviewed; None for a file.
        places: r rows of `video`, `start_ms`, `end_ms` where that is what a file gives, and not
            the ids of segments.
        notes: what is odd about it, one line each.
    """

    name: str
    ids: pa.Array
    labels: Mapping[str, pa.Array]
    first_at: pa.Array | None = None
    places: pa.Table | None = None
    notes: tuple[str, ...] = ()


def read_truth(path: str | Path) -> Truth:
    """What a file says of segments, checked.

    Args:
        path: a table, as `bring.files.table_parts`, with `segment_id`, or `video`, `start_ms` and
            `end_ms`; and `sentiment` or `emotion` or both, or `label`. Other columns are not read.

    Raises:
        UsageError: it does not read, lacks a column, has a class that is none or a segment twice.
    """
    columns = columns_of(path, ("segment_id", *_PLACE[0], *TARGETS), (*_PLACE[1], "inclusion"))
    labels = labels_in(columns, str(path))
    video = columns.get("video", columns.get("video_id"))
    places = None
    if "segment_id" in columns:
        ids = columns["segment_id"]
    elif video is not None and all(name in columns for name in _PLACE[1]):
        places = pa.table({"video": video, **{name: columns[name] for name in _PLACE[1]}})
        if missing := sum(column.null_count for column in places.columns):
            raise UsageError(f"{path}: {missing} rows lack their video, start_ms or end_ms")
        times = (pc.cast(columns[n], pa.int64(), safe=False) for n in _PLACE[1])
        ids = pc.binary_join_element_wise(video, *(pc.cast(t, pa.string()) for t in times), "-")
    else:
        raise UsageError(
            f"{path} lacks the column segment_id: it needs that, or video, start_ms and end_ms"
        )
    check_ids(ids, str(path))
    notes = []
    chances = columns.get("inclusion")
    if chances is not None and len(pc.unique(chances.drop_null())) > 1:
        notes.append(
            f"{path}: segments were not chosen with equal chances (inclusion): the figures are of "
            "these, not of all; `vsa label --reviews` makes up for it"
        )
    return Truth(str(path), ids, labels, places=places, notes=tuple(notes))


def labels_in(columns: Mapping[str, pa.Array], name: str) -> dict[str, pa.Array]:
    """The classes of each target that a table speaks of, as they are spelt here.

    A column `label` is of any classes; where they are our sentiments or emotions, it is of these.

    Args:
        columns: of words, null where empty.
        name: of the table, for a complaint.

    Raises:
        UsageError: it speaks of none, or has a class that is none.
    """
    found = {target: columns[target] for target in CLASSES if target in columns}
    if not found and LABEL in columns:
        said = columns[LABEL].drop_null()
        found[LABEL] = columns[LABEL]
        ours = (t for t, classes in CLASSES.items() if not classes_in(said, classes).null_count)
        target = next(ours, None)
        if len(said) and target is not None:
            found[target] = columns[LABEL]
    if not found:
        raise UsageError(
            f"{name} lacks the column sentiment or emotion: it needs one, or both, or label"
        )
    for target in set(found) & set(CLASSES):
        index = classes_in(found[target], CLASSES[target])
        odd = pc.and_(pc.is_valid(found[target]), pc.is_null(index))
        if pc.any(odd).as_py():
            first = found[target].filter(odd)[0].as_py()
            raise UsageError(
                f"{name}: {first!r} is no {target}: write one of {', '.join(CLASSES[target])}, or "
                "leave it empty where nobody says"
            )
        found[target] = pa.array(CLASSES[target], pa.string()).take(index)
    return found


def classes_in(labels: pa.Array, classes: Sequence[str]) -> pa.Array:
    """Index of each label's class; null for null and for what is none.

    Capitals make no difference where the classes differ in more.
    """
    found = pc.index_in(labels, pa.array(classes, pa.string()))
    lower = [name.lower() for name in classes]
    if len(set(lower)) < len(lower):
        return found
    return pc.coalesce(found, pc.index_in(pc.utf8_lower(labels), pa.array(lower, pa.string())))


def check_ids(ids: pa.Array, name: str) -> None:
    """Whether each row has an id of its own.

    Raises:
        UsageError: it has none, or one that another row has.
    """
    if ids.null_count:
        raise UsageError(f"{name}: {ids.null_count} rows have no segment_id: give each one")
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        first = twice[0].as_py()["values"]
        raise UsageError(f"{name} has segment {first!r} more than once: keep one row of it")
