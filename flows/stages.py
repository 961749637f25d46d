"""What every flow that looks at videos does: fetch, open, hear, cut, and let the models look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import Task, unmapped

from flows.runners import Runner
from tasks.ingest import FetchResult, fetch, ingest
from tasks.predict import predict
from tasks.reports import Progress
from tasks.segment import segment
from tasks.shards import Failure, ShardResult, split
from tasks.transcribe import transcribe
from vsa_core.archive import AD_HOC, Attempt, Known, State, record
from vsa_core.backends import BACKENDS
from vsa_core.config import Settings
from vsa_core.ingest import Found
from vsa_core.ingest.media_folder import evict, make_room, media_folder
from vsa_core.ingest.web import Fetched, Outcome
from vsa_core.labels import Modality
from vsa_core.progress import begin
from vsa_core.runs import backend_ids
from vsa_core.standing import standing
from vsa_core.store import Store
from vsa_core.transcripts.asr import TRANSCRIBERS

# The slowest first: what is left at the end is short then.
_ORDER = (Modality.FACE, Modality.TEXT, Modality.AUDIO)
_STATES = {
    Outcome.REFUSED: State.REFUSED,
    Outcome.FAILED: State.FAILED,
    Outcome.LATER: State.LATER,
}


@dataclass(slots=True)
class Looked:
    """What became of the videos that were asked for.

    Attributes:
        video_ids: that went through every stage, now or before, in the order they were found.
        new: how many of them were not there before.
        failures: the videos that failed, and the addresses that could not be fetched though
            another day they might.
        passed_over: addresses that are left alone, with the reason: private, removed, live …
    """

    video_ids: list[str] = field(default_factory=list)
    new: int = 0
    failures: list[Failure] = field(default_factory=list)
    passed_over: list[Failure] = field(default_factory=list)


def look(
    found: Sequence[Found],
    settings: Settings,
    root: str,
    over: Runner,
    known: Mapping[str, Known],
    channels: Mapping[str, str] | None = None,
) -> Looked:
    """Every stage before fusion over some videos, in batches whose downloads fit on the disk.

    Args:
        found: files and addresses, as `find_videos` gives them.
        settings: of the run.
        root: of the store.
        over: where the tasks run.
        known: what the archive knows of addresses.
        channels: by source id the channel it is tried for; others were asked for by themselves.

    Raises:
        BackendError: a model cannot be loaded.
        StoreError: a table does not read, the disk is full.
    """
    store = Store(root)
    stand = standing(found, settings, store, backend_ids(settings))
    todo = [one for one in found if one.video_id not in stand]
    looked = Looked()
    done = {one.video_id for one in found} & stand
    # A shard is one task per stage; however many videos, there are about `max_shards` of them.
    size = max(settings.run.shard_videos, -(-len(todo) // settings.run.max_shards))
    stages = 3 + len(settings.backends)
    progress = Progress(len(todo) * stages)
    files = [one for one in todo if one.item is None]
    web = split([one for one in todo if one.item is not None], settings.download.batch_videos)
    by_source: dict[str, str] = {}
    for batch in [*([files] if files else []), *web]:
        batch_done = _batch(batch, settings, root, over, size, progress, looked, known, channels)
        by_source |= batch_done
        done |= set(batch_done.values())
        looked.new += len(set(batch_done.values()) - stand)
    ids = [by_source.get(_key(one), one.video_id) for one in found]
    looked.video_ids = [video_id for video_id in dict.fromkeys(ids) if video_id in done]
    progress.close()
    return looked


def _key(found: Found) -> str:
    return found.item.source_id if found.item else found.path


def _batch(
    batch: Sequence[Found],
    settings: Settings,
    root: str,
    over: Runner,
    size: int,
    progress: Progress,
    looked: Looked,
    known: Mapping[str, Known],
    channels: Mapping[str, str] | None,
) -> dict[str, str]:
    """All stages over one batch; returns the video's id by address or path of what went through."""
    store = Store(root)
    missed: list[Fetched] = []
    if any(one.item is not None for one in batch):
        media = media_folder(store.location, settings)
        make_room(media, settings, store)
        answers: list[FetchResult] = _mapped([fetch], batch, settings, root, over, size)
        batch = [one for answer in answers for one in answer.found]
        missed = [one for answer in answers for one in answer.missed]
    through = _stages(batch, settings, root, over, size, progress, looked)
    done = {_key(one): one.video_id for one in batch if one.video_id in through}
    _archive(store, batch, through, missed, looked, known, channels or {})
    if not settings.download.keep_media:
        for one in batch:
            if one.item is not None and one.video_id in through:
                evict(media_folder(store.location, settings), Path(one.path))
    return done


def _stages(
    batch: Sequence[Found],
    settings: Settings,
    root: str,
    over: Runner,
    size: int,
    progress: Progress,
    looked: Looked,
) -> set[str]:
    """Ids of the videos of a batch that every stage went through."""
    # The same content at two addresses is one video.
    unique = list({one.video_id: one for one in batch}.values())

    def stage(tasks: Sequence[Task[..., ShardResult]], items: Sequence[Any]) -> list[str]:
        results: list[ShardResult] = _mapped(
            tasks, items, settings, root, over, size, progress.advance
        )
        for result in results:
            looked.failures += [f for f in result.failures if f not in looked.failures]
        done = dict.fromkeys(video_id for result in results for video_id in result.done)
        order = [getattr(item, "video_id", item) for item in items]
        return [video_id for video_id in order if video_id in done]

    opened = stage([ingest], unique)
    spoken = stage([transcribe], opened)
    TRANSCRIBERS.unload()  # the memory of one stage's models is the next one's
    cut = stage([segment], spoken)
    # What one modality fails at, the others still label.
    stage([predict[modality] for modality in _ORDER if modality in settings.backends], cut)
    BACKENDS.unload()
    return set(cut)


def _mapped(
    stages: Sequence[Task[..., Any]],
    items: Sequence[Any],
    settings: Settings,
    root: str,
    over: Runner,
    size: int,
    tell: Callable[[int], None] | None = None,
) -> list[Any]:
    """Results of stages that do not need one another, each mapped over all items in shards."""
    shards = split(items, size)
    if not shards:
        return []
    for stage in stages:
        begin(stage.name, len(items))
    arguments = {"shard": shards, "settings": unmapped(settings), "root": unmapped(root)}
    futures = [future for stage in stages for future in over.map(stage, arguments)]
    results = []
    for number, future in enumerate(futures):
        results.append(future.result())
        if tell is not None:
            tell(len(shards[number % len(shards)]))
    return results


def _archive(
    store: Store,
    batch: Sequence[Found],
    through: set[str],
    missed: Sequence[Fetched],
    looked: Looked,
    known: Mapping[str, Known],
    channels: Mapping[str, str],
) -> None:
    """Write down what became of a batch's addresses, now that its videos stand in the store."""
    reasons = {failure.video_id: failure.reason for failure in looked.failures}
    attempts: list[Attempt] = []
    for one in batch:
        if one.item is None:
            continue
        if one.video_id in through:
            attempts.append(Attempt(one.item, State.LABELLED, video_id=one.video_id))
        else:
            reason = reasons.get(one.video_id) or one.problem
            attempts.append(Attempt(one.item, State.FAILED, "media", reason, one.video_id or None))
    for miss in missed:
        state = _STATES[miss.outcome]
        attempts.append(Attempt(miss.item, state, miss.kind, miss.reason))
        failure = Failure("", miss.item.url, miss.reason or "it could not be fetched")
        # Somebody asked for this very video, or it may be there tomorrow.
        counts = miss.item.asked or state is State.FAILED
        (looked.failures if counts else looked.passed_over).append(failure)
    by_channel: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        channel = channels.get(attempt.item.source_id, AD_HOC)
        by_channel.setdefault(channel, []).append(attempt)
    for channel, own in by_channel.items():
        record(store, channel, own, known)
