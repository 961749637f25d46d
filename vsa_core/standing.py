"""Which videos have all that the settings ask for, told from fingerprints, without opening one.

A run over ten thousand videos of which none is new must not start ten thousand tasks to hear so.
The answer is exact: what a stage would skip is skipped here, and nothing else.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vsa_core.config import Settings
from vsa_core.errors import CaptionError
from vsa_core.ingest import URL_LISTS, Found, find_videos
from vsa_core.ingest import standing as row_stands
from vsa_core.ingest.folder import videos_in
from vsa_core.labels import Modality
from vsa_core.predict import has_errors, made_from_segments
from vsa_core.runs import backend_ids
from vsa_core.segment import made_from_transcript
from vsa_core.store import Store
from vsa_core.transcripts import standing as transcript_stands
from vsa_core.transcripts.caption_files import key_of, listed

_KNOWN = ("media_path", "media_bytes", "media_mtime_ns")
_COLUMNS = (
    "video_id", "status", "media_path", "language", "captions_kind", "sha256", "has_audio",
    "sound_track",
)  # fmt: skip


def standing(
    found: Sequence[Found], settings: Settings, store: Store, backends: Mapping[Modality, str]
) -> set[str]:
    """Ids of the videos for which no stage before fusion has anything to do.

    Of a file all is compared that the stages look at: the file, its captions, its info.json. Of
    an address that was labelled before and whose download is gone, what is said in it is taken as
    it was read then.

    Args:
        found: the videos asked for.
        settings: of the run.
        store: where their tables lie.
        backends: modality → backend id.

    Raises:
        BackendError: the transcriber cannot be loaded.
        StoreError: a table does not read.
    """
    ids = {one.video_id for one in found if one.video_id}
    if not ids:
        return set()
    rows = store.refs("videos")
    transcripts, segments = store.refs("transcripts"), store.refs("segments")
    predictions = [
        (backend, store.refs("predictions", store.part_of(backend)))
        for backend in backends.values()
    ]
    videos: dict[str, dict[str, Any]] = {}
    for table in store.scan("videos", columns=_COLUMNS):
        videos.update((row["video_id"], row) for row in table.to_pylist() if row["video_id"] in ids)
    folders = _Folders()

    def stands(one: Found) -> bool:
        video, row = videos.get(one.video_id), rows.get(one.video_id)
        transcript, cut = transcripts.get(one.video_id), segments.get(one.video_id)
        if video is None or row is None or transcript is None or cut is None:
            return False
        if video["status"] != "ok" or not video["captions_kind"]:
            return False
        if cut.fingerprint != made_from_transcript(transcript.fingerprint, settings):
            return False
        for backend, refs in predictions:
            seen = refs.get(one.video_id)
            wanted = made_from_segments(cut.fingerprint, backend)
            if seen is None or seen.fingerprint != wanted:
                return False
        if one.item is not None:
            return True
        beside = folders.beside(Path(one.path))
        if beside is None:
            return False
        has_info = f"{Path(one.path).stem}.info.json" in beside
        try:
            return row_stands(one, row.fingerprint, settings, has_info) and transcript_stands(
                video, transcript.fingerprint, settings, beside
            )
        except CaptionError:
            return False

    return {one.video_id for one in found if one.video_id and stands(one)}


def is_idle(sources: Sequence[str], settings: Settings, store: Store, limit: int | None) -> bool:
    """Whether no stage before fusion has anything to do for any video of the sources.

    False as soon as one file is new or changed, before any is hashed or a model is loaded; and
    where an address is among them, for it has to be asked.

    Raises:
        SourceError: a folder without a video.
        StoreError: a table does not read.
        BackendError: a model cannot be loaded.
    """
    if any("://" in source or source.lower().endswith(URL_LISTS) for source in sources):
        return False
    known = {
        tuple(row[name] for name in _KNOWN)
        for table in store.scan("videos", columns=list(_KNOWN))
        for row in table.to_pylist()
    }
    if not known:
        return False
    for source in sources:
        for path, problem in videos_in(Path(source), settings.sources.extensions):
            if problem is not None or not path.is_file():
                return False
            status = path.stat()
            if (str(path), status.st_size, status.st_mtime_ns) not in known:
                return False
    found = find_videos(sources, settings, store, limit)
    stand = standing(found, settings, store, backend_ids(settings))
    return all(one.video_id in stand for one in found)


class _Folders:
    """Names of the files beside a video; a folder of ten thousand videos is listed once."""

    def __init__(self) -> None:
        self._listed: dict[Path, list[tuple[str, str]] | None] = {}

    def beside(self, video: Path) -> list[str] | None:
        """Names that begin as the video's does, in order; None where the folder is not listed."""
        folder = video.parent
        if folder not in self._listed:
            try:
                self._listed[folder] = sorted((key_of(name), name) for name in listed(folder))
            except CaptionError:
                self._listed[folder] = None
        names = self._listed[folder]
        if names is None:
            return None
        stem = key_of(video.stem)
        first = bisect.bisect_left(names, (stem,))
        return sorted(
            name for _, name in takewhile(lambda one: one[0].startswith(stem), names[first:])
        )


def predicted(wanted: Sequence[str] | None, settings: Settings, store: Store) -> list[str]:
    """Ids of the videos that every backend of the settings has looked at, in order.

    Args:
        wanted: only these; None for all of the store.
        settings: whose backends.
        store: where the tables lie.

    Raises:
        BackendError: a backend cannot be loaded.
    """
    ready = set(store.refs("segments"))
    for backend in backend_ids(settings).values():
        ready &= store.refs("predictions", store.part_of(backend)).keys()
    return sorted(ready if wanted is None else ready & set(wanted))


def failed(settings: Settings, store: Store) -> set[str]:
    """Ids of the videos at which, or at segments of which, a model of the settings failed.

    Raises:
        BackendError: a backend cannot be loaded.
        StoreError: a table does not read.
    """
    found: set[str] = set()
    for table in store.scan("videos", columns=["video_id", "status"]):
        broken = table.filter(pc.not_equal(table["status"], "ok"))
        found.update(broken["video_id"].to_pylist())
    for backend in backend_ids(settings).values():
        refs = store.refs("predictions", store.part_of(backend))
        found.update(video_id for video_id, ref in refs.items() if has_errors(ref.fingerprint))
    return found


def unlabelled(wanted: Sequence[str], settings: Settings, store: Store) -> list[str]:
    """Ids of the videos that were looked at, hold speech, and are labelled by no finished run.

    Args:
        wanted: only these.
        settings: whose backends looked.
        store: where the tables lie.

    Raises:
        BackendError: a backend cannot be loaded.
        StoreError: a table does not read.
    """
    runs = {
        run_id
        for table in store.scan("runs", columns=["run_id"])
        for run_id in table["run_id"].to_pylist()
    }
    labelled: set[str] = set()
    for table in store.scan("labels", columns=["run_id", "video_id"]):
        finished = pc.is_in(table["run_id"], value_set=pa.array(sorted(runs), pa.string()))
        labelled.update(pc.unique(table.filter(finished)["video_id"]).to_pylist())
    spoken = {video_id for video_id, ref in store.refs("segments").items() if ref.rows}
    return [
        video_id
        for video_id in predicted(wanted, settings, store)
        if video_id in spoken and video_id not in labelled
    ]
