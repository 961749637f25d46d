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
    held: dict[str, dict[_Pair, None]] = {file.path: {} for file in files}
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
        ours = sum(current.get(video) == run for run, video in held[file.path])
        if ours and ours == len(held[file.path]):
            whole.append(file)
        elif ours:
            mixed.append(file)
    columns = {"video_id": list(current), "run_id": list(current.values())}
    text = pa.schema([(name, pa.string()) for name in columns])
    return Latest(whole, mixed, pa.table(columns, schema=text))


def _current(held: Iterable[Iterable[_Pair]], finished: Mapping[str, datetime]) -> dict[str, str]:
    """Of each labelled video the run that finished last."""
    latest: dict[str, tuple[datetime, str]] = {}
    for run, video in (pair for own in held for pair in own):
        if run in finished:
            when = finished[run], run
            latest[video] = max(latest.get(video, when), when)
    return {video: run for video, (_, run) in latest.items()}


def _pairs(rows: pa.RecordBatch) -> dict[_Pair, None]:
    """The runs and videos of some labels, each once."""
    run, video = (rows.column(name) for name in _COLUMNS)
    runs, videos = run.dictionary.to_pylist(), video.dictionary.to_pylist()
    of_run, of_video = run.indices.to_numpy(), video.indices.to_numpy()
    # A video's rows lie together: few places are looked at.
    new = np.ones(rows.num_rows, np.bool_)
    new[1:] = (of_run[1:] != of_run[:-1]) | (of_video[1:] != of_video[:-1])
    own = zip(of_run[new].tolist(), of_video[new].tolist(), strict=True)
    return {(runs[r], videos[v]): None for r, v in own}
