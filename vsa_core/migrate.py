"""A store of an older version brought to the present tables, file by file.

Rows keep their key, and their fingerprint where a run would make them again in the same way. A
migration that is cut off goes on where it stopped: what is done has the new tag.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vsa_core.errors import StoreError
from vsa_core.labels import EMOTIONS, SENTIMENTS, Modality, total_variation
from vsa_core.schemas import TABLES
from vsa_core.store import Store

Convert = Callable[[pa.Table, Store], pa.Table]
MadeFrom = Callable[[pa.Table, str], str]


@dataclass(frozen=True, slots=True)
class Step:
    """From one version of a table to the next.

    Attributes:
        convert: the rows of the older version, as those of the next; the store has what else is
            known, in the present version of the tables that come before in `TABLES`.
        made_anew: why the next run makes the rows again all the same; None where it does not.
        made_from: the fingerprint of the next version's rows, from what they had.
    """

    convert: Convert
    made_anew: str | None = None
    made_from: MadeFrom | None = None


def _added(*columns: tuple[str, pa.DataType], after: str) -> Convert:
    """The same rows with columns of nulls behind the one named `after`.

    Types are given and not looked up, because a later version may change them once more.
    """

    def convert(data: pa.Table, _: Store) -> pa.Table:
        for name, kind in reversed(columns):
            data = _put(data, after, name, pa.nulls(data.num_rows, kind))
        return data

    return convert


def _put(data: pa.Table, after: str, name: str, values: pa.Array) -> pa.Table:
    if after not in data.column_names:
        raise StoreError(f"no column {after!r}, which its version has: was it written by vsa?")
    return data.add_column(data.column_names.index(after) + 1, name, values)


def _with_distance(data: pa.Table, store: Store) -> pa.Table:
    """Labels with how far apart face and text are, by what their models said of the segments."""
    said = {
        m.value: np.full((data.num_rows, len(SENTIMENTS)), np.nan, np.float32)
        for m in (Modality.FACE, Modality.TEXT)
    }
    columns = ["segment_id", "modality", "sentiment_probs"]
    videos, ids = data["video_id"].unique().to_pylist(), data["segment_id"].combine_chunks()
    for backend in pc.list_flatten(data["backends"]).unique().to_pylist():
        part = store.part_of(backend)
        for rows in store.scan("predictions", part=part, keys=videos, columns=columns):
            if not rows.num_rows:
                continue
            probs = said.get(rows["modality"][0].as_py())
            if probs is None:  # a model of another modality
                break
            known = pc.is_valid(rows["sentiment_probs"])
            rows = rows.filter(pc.and_(known, pc.is_in(rows["segment_id"], value_set=ids)))
            at = pc.index_in(rows["segment_id"], value_set=ids).to_numpy()
            own = pc.list_flatten(rows["sentiment_probs"]).to_numpy()
            probs[at] = own.reshape(len(at), len(SENTIMENTS))
    apart = total_variation(said[Modality.FACE], said[Modality.TEXT])
    distance = pa.array(apart, mask=np.isnan(apart))
    return _put(data, "audio_vote", "face_text_distance", distance)


def _without_errors(data: pa.Table, made_from: str) -> str:
    """Rows that are errors do not stand since."""
    from vsa_core.predict import made_from_rows

    return made_from_rows(made_from, data.select(["segment_id", "status"]).to_pylist())


def _with_emotion_confidence(data: pa.Table, _: Store) -> pa.Table:
    """Labels with how probable each emotion is."""
    probs = np.array(pc.fill_null(pc.list_value_length(data["emotion_probs"]), 0), np.int64) > 0
    at = pc.index_in(data["emotion"], pa.array(map(str, EMOTIONS), pa.string()))
    at = np.asarray(pc.fill_null(at, -1).to_numpy(), np.int64)
    known = probs & (at >= 0)
    sure = np.zeros(data.num_rows, np.float32)
    flat = pc.list_flatten(data["emotion_probs"]).to_numpy().reshape(-1, len(EMOTIONS))
    sure[known] = flat[(np.cumsum(probs) - 1)[known], at[known]]
    return _put(data, "confidence", "emotion_confidence", pa.array(sure, mask=~known))


_LOOKS_AGAIN = "a run looks again, because segments are cut and models read otherwise since"

_READS_AGAIN = "a run reads captions again: it reads more kinds of them, and says who speaks"

# By table and the version that its files have. Whoever raises a table's version adds the step.
STEPS: Mapping[tuple[str, int], Step] = {
    ("videos", 1): Step(
        _added(("source_id", pa.string()), ("view_count", pa.int64()), after="has_audio")
    ),
    ("videos", 2): Step(_added(("sound_track", pa.int32()), after="has_audio")),
    ("transcripts", 1): Step(_added(("speaker", pa.string()), after="text"), _READS_AGAIN),
    ("segments", 1): Step(_added(("speaker", pa.string()), after="text")),
    ("predictions", 1): Step(
        _added(
            ("people", pa.int32()),
            ("track", pa.int32()),
            ("speaks", pa.bool_()),
            after="emotion_probs",
        ),
        _LOOKS_AGAIN,
    ),
    ("predictions", 2): Step(
        lambda data, _: data,
        "a run looks again at the segments that a model failed at, and at no others",
        _without_errors,
    ),
    ("faces", 1): Step(_added(("speaking", pa.float32()), after="score"), _LOOKS_AGAIN),
    ("labels", 1): Step(
        _added(("language", pa.string()), ("people", pa.int32()), after="text_source"),
        "a run labels anew, under a run of its own; these stay as its history",
    ),
    ("labels", 2): Step(_with_distance),
    ("labels", 3): Step(
        _with_emotion_confidence, "a run labels anew: an improbable emotion is no longer given"
    ),
}


def converted(store: Store, data: pa.Table, tag: str) -> pa.Table:
    """The rows of a file of an older version, as the present one has them.

    Args:
        store: it is of.
        data: all columns of its version, in order.
        tag: `<table>/<version>` as the file bears it.

    Raises:
        StoreError: no way leads from that version to the present one.
    """
    table, version = _split(tag)
    if table not in TABLES or version > TABLES[table].version:
        raise StoreError(f"{tag} is of a newer vsa: install that one")
    if not data.num_rows:  # a key without rows in a compacted file has no columns of its own
        return TABLES[table].schema.empty_table()
    for number in range(version, TABLES[table].version):
        step = STEPS.get((table, number))
        if step is None:
            raise StoreError(f"no way leads from {tag} to {TABLES[table].tag}: run `vsa run` anew")
        data = step.convert(data, store)
    return data


def migrate(store: Store) -> dict[str, list[str]]:
    """Bring every file of an older version to the present one, atomically one by one.

    Returns:
        table → the older tags that were found in it; empty where nothing was to do.

    Raises:
        StoreError: a file does not read, has a version no way leads from, or the disk is full;
            what was done until then stays.
    """
    outdated = store.outdated()
    for table in outdated:
        store.rewrite(table, partial(_rewritten, store))
    return outdated


def _rewritten(store: Store, data: pa.Table, tag: str, made_from: str) -> tuple[pa.Table, str]:
    data = converted(store, data, tag)
    table, version = _split(tag)
    for number in range(version, TABLES[table].version):
        step = STEPS[table, number]
        made_from = made_from if step.made_from is None else step.made_from(data, made_from)
    return data, made_from


def made_anew(outdated: Mapping[str, list[str]]) -> dict[str, str]:
    """Table → why the next run makes its migrated rows again, for those of `migrate`."""
    return {
        table: reason
        for table, tags in outdated.items()
        for version in [min(_split(tag)[1] for tag in tags)]
        for number in reversed(range(version, TABLES[table].version))  # the oldest says most
        if (reason := STEPS[table, number].made_anew) is not None
    }


def check(store: Store) -> None:
    """Refuse a store whose tables are of another version; cheap, for the start of a run.

    Raises:
        StoreError: with the command to run.
    """
    outdated = store.outdated()
    if outdated:
        tags = ", ".join(tag for found in outdated.values() for tag in found)
        raise StoreError(
            f"{store.location} was written by an older vsa ({tags}): run `vsa store migrate "
            f"--store {shlex.quote(store.location)}`, which keeps what is in it"
        )


def _split(tag: str) -> tuple[str, int]:
    table, _, version = tag.partition("/")
    if not version.isdecimal():
        raise StoreError(f"{tag!r} is no version of a table")
    return table, int(version)
