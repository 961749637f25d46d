"""What somebody knows of some segments: a file of segment_id and label, held against the views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vsa_core.bring.files import columns_of, table_parts
from vsa_core.errors import UsageError
from vsa_core.evaluate import confusion_by_video
from vsa_core.fusion.strategies import Known
from vsa_core.fusion.views import Views
from vsa_core.labels import SENTIMENTS
from vsa_core.truths import CLASSES, classes_in

INCLUSION = "inclusion"
# What makes another order of the classes plain: so many segments, so much more accuracy.
_ENOUGH, _FAR = 30, 0.25


@dataclass(frozen=True, slots=True)
class Said:
    """What a file says of segments.

    Attributes:
        known: the labels of those among the views.
        inclusion: (r,) how probable each was to be reviewed, in (0, 1]; None where it is not told.
        elsewhere: (x,) labels of segments that are not among the views.
        notes: what was odd, one line each.
    """

    known: Known
    inclusion: NDArray[np.float64] | None
    elsewhere: NDArray[np.intp]
    notes: tuple[str, ...]


def read_said(where: str | Path, views: Views) -> Said:
    """Labels of some of the segments.

    Args:
        where: a table, as `table_parts`, with `segment_id` and `label` (or `sentiment` or `emotion`
            where the classes are such), and `inclusion` as `vsa label --ask` writes it; a row
            without a label says nothing.
        views: the segments; the labels are classes of their only target.

    Raises:
        UsageError: it does not read, a label is no class, a segment has two labels, no segment is
            known, or an inclusion is no number above 0 and up to 1.
    """
    [(target, classes)] = views.classes.items()
    ids, labels, inclusion = _columns(where, classes)
    said = pc.is_valid(labels)
    notes = []
    if unlabelled := said.false_count:
        rows = "row has" if unlabelled == 1 else "rows have"
        notes.append(f"{where}: {unlabelled} {rows} no label: passed over")
    ids, labels = ids.filter(said), labels.filter(said)
    if not len(ids):
        raise UsageError(f"{where}: no row has a label: write what each segment is")
    if ids.null_count:
        raise UsageError(f"{where}: {ids.null_count} rows have no segment_id: give each one")
    label = classes_in(labels, classes)
    if label.null_count:
        odd = pc.index(pc.is_null(label), True).as_py()
        raise UsageError(
            f"{where}: label {labels[odd].as_py()!r} of segment {ids[odd].as_py()!r} is none of "
            f"the classes ({', '.join(classes)}): {_hint(labels, classes)}"
        )
    row = pc.index_in(ids, views.segment_ids)
    known = pc.is_valid(row)
    if strange := known.false_count:
        first = ids[pc.index(known, False).as_py()].as_py()
        if strange == len(known):
            raise UsageError(
                f"{where}: none of its {strange} segments is among the predictions, {first!r} for "
                "one: give the labels of these segments"
            )
        notes.append(
            f"{where}: {strange} of {len(known)} segments are not among the predictions, "
            f"{first!r} for one"
        )
    rows = row.filter(known).to_numpy().astype(np.intp)
    of = label.filter(known).to_numpy().astype(np.intp)
    found, first = _once(where, views, classes, target, rows, of)
    chance = None
    if inclusion is not None:
        chance = inclusion.filter(said).filter(known).to_numpy(zero_copy_only=False)[first]
        # Also false for NaN, which is what a row without one comes to.
        bad = np.flatnonzero(~((chance > 0) & (chance <= 1)))
        if len(bad):
            segment = views.segment_ids[int(found.rows[bad[0]])].as_py()
            raise UsageError(
                f"{where}: {INCLUSION} of segment {segment!r} is no number above 0 and up to 1: "
                "leave the column as `--ask` wrote it, or take it out"
            )
    elsewhere = label.filter(pc.invert(known)).to_numpy().astype(np.intp)
    return Said(found, chance, elsewhere, tuple(notes))


def other_order(
    truth: NDArray[np.integer], said: NDArray[np.integer], classes: Sequence[str]
) -> str | None:
    """What another order of a model's classes would come to, if that were far better.

    Args:
        truth: (n,) index of the class; -1 where it is not known.
        said: (n,) index of the class the model says; -1 for none.
        classes: K names.
    """
    from scipy.optimize import linear_sum_assignment

    both = (truth >= 0) & (said >= 0)
    counts = confusion_by_video(
        truth[both], said[both], np.zeros(int(both.sum()), np.int64), len(classes)
    ).sum(axis=0)[:, :-1]
    true, taken = linear_sum_assignment(counts, maximize=True)
    total = max(int(counts.sum()), 1)
    right, best = np.trace(counts) / total, counts[true, taken].sum() / total
    # Far more than a choice among few orders gains by chance.
    if total < _ENOUGH or best < 0.5 or best - right < _FAR:
        return None
    order = ", ".join(classes[true[np.flatnonzero(taken == c)[0]]] for c in range(len(classes)))
    return (
        f"is right in {right:.0%}, and in {best:.0%} if its probs are in the order {order}: check "
        "the order of its classes"
    )


def _once(
    where: str | Path,
    views: Views,
    classes: Sequence[str],
    target: str,
    rows: NDArray[np.intp],
    labels: NDArray[np.intp],
) -> tuple[Known, NDArray[np.intp]]:
    """One label per segment, in the order of the segments, and which row each comes from."""
    kept, first = np.unique(rows, return_index=True)
    said = np.full(len(views), -1)
    said[kept] = labels[first]
    differing = np.flatnonzero(said[rows] != labels)
    if len(differing):
        row = rows[differing[0]]
        raise UsageError(
            f"{where}: segment {views.segment_ids[int(row)].as_py()!r} is "
            f"{classes[said[row]]} and {classes[labels[differing[0]]]}: keep one label for it"
        )
    return Known(target, kept, labels[first]), first


def _columns(
    where: str | Path, classes: Sequence[str]
) -> tuple[pa.Array, pa.Array, pa.Array | None]:
    """Ids and labels as words, and inclusions where the file has them."""
    found = columns_of(where, ("segment_id", "label", *CLASSES), (INCLUSION,))
    # Where the classes are our sentiments or emotions, a truth of `vsa evaluate` will do.
    ours = next((target for target, known in CLASSES.items() if set(classes) <= set(known)), "")
    label = found.get("label", found.get(ours))
    if "segment_id" not in found or label is None:
        there = dict.fromkeys(name for part in table_parts(where) for name in part.names)
        raise UsageError(
            f"{where} lacks the column {'label' if 'segment_id' in found else 'segment_id'}: it "
            f"needs segment_id and label; there are {', '.join(there)}"
        )
    return found["segment_id"], label, found.get(INCLUSION)


def _hint(labels: pa.Array, classes: Sequence[str]) -> str:
    """What to do about labels that are no classes."""
    if list(classes) != [str(i) for i in range(len(classes))]:
        return "correct it, or name the classes with --classes"
    named = sorted(set(pc.unique(labels).to_pylist()))
    ours = [str(s) for s in SENTIMENTS]
    order = ours if len(classes) == len(ours) and set(named) <= set(ours) else named
    return (
        f"name them in the order of probs with --classes, such as --classes {','.join(order)}"
        if len(order) == len(classes)
        else "name them in the order of probs with --classes"
    )
