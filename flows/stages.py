"""What every flow that looks at videos does: fetch, open, hear, cut, and let the models look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import Task, unmapped
from prefect.futures import as_completed

from flows.runners import Runner, here
from tasks.ingest import FetchResult, fetch, ingest
from tasks.predict import predict
from tasks.reports import Progress
from tasks.segment import segment
from tasks.shards import Failure, ShardFailedError, ShardResult, split
from tasks.transcribe import transcribe
from vsa_core.archive import AD_HOC, Attempt, Known, State, record
from vsa_core.backends import BACKENDS
from vsa_core.config import Settings
from vsa_core.errors import BackendError
from vsa_core.forget import forgotten
from vsa_core.ingest import Found
from vsa_core.ingest.media_folder import evict, make_room, media_folder
from vsa_core.ingest.web import Fetched, Outcome
from vsa_core.labels import Modality
from vsa_core.progress import advance, begin
from vsa_core.runs import backend_ids
from vsa_core.standing import standing
from vsa_core.store import Store
from vsa_core.story import FILTERED, FORGOTTEN
from vsa_core.transcripts.asr import TRANSCRIBERS
from vsa_core.videos import note_on_video

# The slowest first: what is left at the end is short then.
_ORDER = (Modality.FACE, Modality.TEXT, Modality.AUDIO)
_FORGOTTEN = "it was to be forgotten (`vsa forget`), and is not taken in again"
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
        listed: those of the videos that came with a channel or another list.
    """

    video_ids: list[str] = field(default_factory=list)
    new: int = 0
    failures: list[Failure] = field(default_factory=list)
    passed_over: list[Failure] = field(default_factory=list)
    listed: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Run:
    """What every batch of a run shares; arguments of `look`, and how far it is."""

    settings: Settings
    store: Store
    over: Runner
    known: Mapping[str, Known]
    channels: Mapping[str, str]
    shard_size: int
    progress: Progress
    looked: Looked

    def mapped(
        self,
        stages: Sequence[Task[..., Any]],
        items: Sequence[Any],
        tell: Callable[[int], None] | None = None,
    ) -> list[Any]:
        """Results of stages that do not need one another, mapped over all items in shards."""
        root = self.store.location
        return _mapped(stages, items, self.settings, root, self.over, self.shard_size, tell)


def look(
    found: Sequence[Found],
    settings: Settings,
    root: str,
    over: Runner,
    known: Mapping[str, Known],
    channels: Mapping[str, str] | None = None,
) -> Looked:
    """Every stage before fusion over some videos, in batches whose downloads fit on the disk.

    Sweeps what killed runs left behind first.

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
    store, looked = Store(root), Looked()
    store.sweep()
    asked = _remembered(found, store, looked)
    stand = standing(asked, settings, store, backend_ids(settings))
    todo = [one for one in asked if one.video_id not in stand]
    # A shard is one task per stage; however many videos, there are about `max_shards` of them.
    size = max(settings.run.shard_videos, -(-len(todo) // settings.run.max_shards))
    stages = 3 + len(settings.backends)
    progress = Progress(len(todo) * stages)
    run = _Run(settings, store, over, known, channels or {}, size, progress, looked)
    files = [one for one in todo if one.item is None]
    web = split([one for one in todo if one.item is not None], settings.download.batch_videos)
    went: dict[str, str] = {}
    for batch in [*([files] if files else []), *web]:
        went |= _batch(run, batch)
    looked.new = len(set(went.values()) - stand)
    ids = [went.get(_key(one), one.video_id) for one in asked]
    done = stand | set(went.values())
    looked.video_ids = [video_id for video_id in dict.fromkeys(ids) if video_id in done]
    by_itself = {id_ for id_, one in zip(ids, asked, strict=True) if not one.item or one.item.asked}
    looked.listed = set(ids) - by_itself
    progress.close()
    return looked


def _key(found: Found) -> str:
    return found.item.source_id if found.item else found.path


def _remembered(found: Sequence[Found], store: Store, looked: Looked) -> list[Found]:
    """What was found, without what the store was told to forget."""
    ids = {one.video_id for one in found} | {one.item.source_id for one in found if one.item}
    gone = forgotten(store, ids)
    kept = []
    for one in found:
        if one.video_id in gone or (one.item and one.item.source_id in gone):
            asked = one.item is not None and one.item.asked
            left = Failure("", one.path, _FORGOTTEN, kind=FORGOTTEN, asked=asked)
            looked.passed_over.append(left)
        else:
            kept.append(one)
    return kept


def _batch(run: _Run, batch: Sequence[Found]) -> dict[str, str]:
    """All stages over one batch; returns the video's id by address or path of what went through."""
    missed: list[Fetched] = []
    media = media_folder(run.store.location, run.settings)
    if any(one.item is not None for one in batch):
        make_room(media, run.settings, run.store)
        answers: list[FetchResult] = run.mapped([fetch], batch)
        batch = [one for answer in answers for one in answer.found]
        missed = [one for answer in answers for one in answer.missed]
        # The same content under another address is known by what was fetched only.
        batch = _remembered(batch, run.store, run.looked)
    through = _stages(run, batch)
    _archive(run, batch, through, missed)
    for one in batch:
        # What a stage failed at may be damaged: another attempt fetches it anew.
        done = one.video_id in through
        if one.item is not None and (not done or not run.settings.download.keep_media):
            evict(media, Path(one.path))
    return {_key(one): one.video_id for one in batch if one.video_id in through}


def _stages(run: _Run, batch: Sequence[Found]) -> set[str]:
    """Ids of the videos of a batch that every stage went through."""
    # The same content at two addresses is one video.
    unique = list({one.video_id: one for one in batch}.values())

    def stage(tasks: Sequence[Task[..., ShardResult]], items: Sequence[Any]) -> list[str]:
        results: list[ShardResult] = run.mapped(tasks, items, run.progress.advance)
        shards = len(results) // len(tasks)
        done: set[str] = set()
        failures: dict[tuple[str, str], Failure] = {}
        for k in range(len(tasks)):
            through, failed = _together(results[k * shards : (k + 1) * shards])
            done |= through
            failures |= {(one.video_id, one.reason): one for one in failed}
        for one in failures.values():
            if one.stage != ingest.name:  # whose rows say it themselves
                note = f"{one.stage}: {one.reason}"
                note_on_video(run.store, one.video_id, note, failed=True)
        run.looked.failures += failures.values()
        order = [getattr(item, "video_id", item) for item in items]
        return [video_id for video_id in order if video_id in done]

    opened = stage([ingest], unique)
    spoken = stage([transcribe], opened)
    TRANSCRIBERS.unload()  # the memory of one stage's models is the next one's
    cut = stage([segment], spoken)
    # What one modality fails at, the others still label.
    seen = stage(
        [predict[modality] for modality in _ORDER if modality in run.settings.backends], cut
    )
    BACKENDS.unload()
    return set(seen)


def _together(results: Sequence[ShardResult]) -> tuple[set[str], list[Failure]]:
    """Ids of the videos that went through a stage, and those that failed in it.

    Where a model failed at all segments of a video they are at fault if it worked on other videos.

    Raises:
        BackendError: nothing went through, for a model cannot be loaded.
    """
    done = {video_id for result in results for video_id in result.done}
    failures = [failure for result in results for failure in result.failures]
    doubted = [failure for result in results for failure in result.doubted]
    unloaded = [result.unloaded for result in results if result.unloaded is not None]
    if done:
        return done | {one.video_id for one in doubted}, failures
    if unloaded:
        raise BackendError(unloaded[0])
    return done, failures + doubted


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
    work = [(stage.name, shard) for stage in stages for shard in shards]
    futures = [future for stage in stages for future in over.map(stage, arguments)]
    number = {future.task_run_id: k for k, future in enumerate(futures)}
    results: dict[int, Any] = {}
    for future in as_completed(futures):
        k = number[future.task_run_id]
        name, shard = work[k]
        try:
            results[k] = future.result()
        except ShardFailedError as error:
            results[k], told = error.result, False
        else:
            told = here(over)
        if not told:
            advance(name, len(shard))
        if tell is not None:
            tell(len(shard))
    return [results[k] for k in range(len(futures))]


def _archive(
    run: _Run, batch: Sequence[Found], through: set[str], missed: Sequence[Fetched]
) -> None:
    """Write down what became of a batch's addresses, now that its videos stand in the store."""
    looked = run.looked
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
        # Somebody asked for this very video, or it may be there tomorrow.
        counts = miss.item.asked or state is State.FAILED
        kind = FILTERED if miss.kind == FILTERED else state.value
        reason = miss.reason or "it could not be fetched"
        failure = Failure("", miss.item.url, reason, kind=kind, asked=counts)
        (looked.failures if counts else looked.passed_over).append(failure)
    by_channel: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        channel = run.channels.get(attempt.item.source_id, AD_HOC)
        by_channel.setdefault(channel, []).append(attempt)
    for channel, own in by_channel.items():
        record(run.store, channel, own, run.known)
