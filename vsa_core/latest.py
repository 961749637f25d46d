"""Whose labels are the current ones: of a video's finished runs the latest, told by two columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq

from vsa_core.errors import StoreError
from vsa_core.store import Store, StoredFile

_COLUMNS = ["run_id", "video_id"]
_AT_ONCE = 4
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
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        held = list(threads.map(lambda file: _pairs(store.filesystem, file), files))
    current = _current(held, finished)
    whole, mixed = [], []
    for file, own in zip(files, held, strict=True):
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


def _pairs(filesystem: fs.FileSystem, file: StoredFile) -> set[_Pair]:
    """The runs and videos that a file has labels of."""
    try:
        with (
            filesystem.open_input_file(file.path) as source,
            pq.ParquetFile(
                source, read_dictionary=_COLUMNS, page_checksum_verification=True
            ) as opened,
        ):
            rows = opened.read(columns=_COLUMNS, use_threads=False)
            rows = rows.unify_dictionaries().combine_chunks()
    except (OSError, pa.ArrowException) as error:
        line = " ".join(str(error).split())
        raise StoreError(f"table labels does not read ({line}): see `vsa store verify`") from error
    if not rows.num_rows:
        return set()
    run, video = (rows[name].chunk(0) for name in _COLUMNS)
    number = run.indices.to_numpy().astype(np.int64) * len(video.dictionary)
    number += video.indices.to_numpy()
    # A video's rows lie together: few places are looked at.
    number = np.unique(number[np.flatnonzero(np.diff(number, prepend=-1))])
    runs, videos = run.dictionary.to_pylist(), video.dictionary.to_pylist()
    return {(runs[n // len(videos)], videos[n % len(videos)]) for n in number.tolist()}
