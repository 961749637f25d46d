"""Whose labels are the current ones: of a video's finished runs the latest, told by two columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa

from vsa_core.datasets import TableFiles
from vsa_core.errors import StoreError
from vsa_core.store import Store, StoredFile

_COLUMNS = ["run_id", "video_id"]
_Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Latest:
    """The files of `labels` that hold current labels.

    Attributes:
        whole: every row of these is current.
        mixed: of these, rows of some runs and videos are.
        pairs: `video_id`, `run_id` of all current rows, each pair once.
    """

    whole: list[StoredFile]
    mixed: list[StoredFile]
    pairs: pa.Table


def latest_labels(store: Store, files: Sequence[StoredFile]) -> Latest:
    """Which rows of some files of `labels` are current.

    Of each file the runs and videos are read, a few thousandths of its bytes, so that a question
    need not join every label with the runs.

    Raises:
        StoreError: a file does not read.
    """
    finished = {
        row["run_id"]: row["finished_at"]
        for table in store.scan("runs", columns=["run_id", "finished_at"])
        for row in table.to_pylist()
    }
    held: dict[str, set[_Pair]] = {file.path: set() for file in files}
    try:
        scanner = TableFiles.of("labels", files, store.filesystem).scanner(columns=_COLUMNS)
        for tagged in scanner.scan_batches():
            held[tagged.fragment.path] |= _pairs(tagged.record_batch)
    except (OSError, pa.ArrowException) as error:
        line = " ".join(str(error).split())
        raise StoreError(f"table labels does not read ({line}): see `vsa store verify`") from error
    current = _current(held.values(), finished)
    whole, mixed = [], []
    for file in files:
        own = held[file.path]
        ours = own & current
        if ours == own:
            whole.append(file)
        elif ours:
            mixed.append(file)
    pairs = sorted((video, run) for run, video in current)
    columns = {name: [pair[at] for pair in pairs] for at, name in enumerate(("video_id", "run_id"))}
    text = pa.schema([(name, pa.string()) for name in columns])
    return Latest(whole, mixed, pa.table(columns, schema=text))


def _current(held: Iterable[set[_Pair]], finished: Mapping[str, datetime]) -> set[_Pair]:
    latest: dict[str, tuple[datetime, str]] = {}
    for run, video in (pair for own in held for pair in own):
        if run in finished:
            when = finished[run], run
            latest[video] = max(latest.get(video, when), when)
    return {(run, video) for video, (_, run) in latest.items()}


def _pairs(rows: pa.RecordBatch) -> set[_Pair]:
    """The runs and videos of some labels."""
    if not rows.num_rows:
        return set()
    run, video = (rows.column(name) for name in _COLUMNS)
    number = run.indices.to_numpy().astype(np.int64) * len(video.dictionary)
    number += video.indices.to_numpy()
    # A video's rows lie together: few places are looked at.
    number = np.unique(number[np.flatnonzero(np.diff(number, prepend=-1))])
    runs, videos = run.dictionary.to_pylist(), video.dictionary.to_pylist()
    return {(runs[n // len(videos)], videos[n % len(videos)]) for n in number.tolist()}
