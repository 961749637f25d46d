"""A stage over a shard of videos: what fails for one video is noted and costs no other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.policies import may_pass, share_cores
from vsa_core.config import Settings
from vsa_core.errors import BackendError, ConfigError, SegmentsError, StoreError, is_failure, said
from vsa_core.progress import Steps
from vsa_core.store import Store, TableRef
from vsa_core.story import FAILED
from vsa_core.videos import name_of, read_video

# No video's fault: the settings', the disk's.
FATAL = (ConfigError, StoreError)


@dataclass(frozen=True, slots=True)
class Failure:
    """A video that could not be labelled, or not by one of the models.

    Attributes:
        video_id: its id.
        path: the file or address.
        reason: one line.
        stage: where; empty for what never came to one.
        kind: of `story.left_out`.
        asked: False: nobody asked for it, it came with a channel and can wait.
    """

    video_id: str
    path: str
    reason: str
    stage: str = ""
    kind: str = FAILED
    asked: bool = True


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What became of a shard's videos in a stage, each in the order they were given.

    Attributes:
        done: ids of the videos that went through.
        failures: those that did not.
        doubted: those at all of whose segments the model failed: their rows stand as errors, which
            is the segments' fault if it worked elsewhere.
        unloaded: why a model could not be loaded for some of the failures; None for none.
    """

    done: tuple[str, ...]
    failures: tuple[Failure, ...] = ()
    doubted: tuple[Failure, ...] = ()
    unloaded: str | None = None


class ShardFailedError(Exception):
    """What trying a shard again may help: something unexpected, or a model that failed.

    Attributes:
        result: what became of the shard's videos.
    """

    def __init__(self, result: ShardResult) -> None:
        super().__init__(result)  # as it is sent between processes
        self.result = result

    def __str__(self) -> str:
        failed = (*self.result.failures, *self.result.doubted)
        return "; ".join(f"{one.path}: {one.reason}" for one in failed) or "a model failed"

    __repr__ = __str__  # as Prefect's log has it


def over_shard(
    name: str,
    shard: Mapping[str, Any],
    stage: Callable[[Any, Steps], object],
    path: Callable[[Any], str],
) -> ShardResult:
    """A stage over the items of a shard, each by itself.

    Args:
        name: of the stage.
        shard: the items by video id.
        stage: what is done with one.
        path: an item's file or address.

    Raises:
        ShardFailedError: trying again may help; what is done costs nothing then.
        ConfigError, StoreError: what is wrong is wrong for all.
    """
    done: list[str] = []
    failures: list[Failure] = []
    doubted: list[Failure] = []
    unloaded: str | None = None
    again = False
    told = [Steps(name) for _ in shard]
    for (video_id, item), steps in zip(shard.items(), told, strict=True):
        try:
            stage(item, steps)
            done.append(video_id)
        except FATAL:
            raise
        except BaseException as error:
            if not is_failure(error):
                raise
            failure = Failure(video_id, path(item), said(error), name)
            if not isinstance(error, SegmentsError):
                failures.append(failure)
            elif error.worked:
                done.append(video_id)
            else:
                doubted.append(failure)
            if may_pass(error):
                again = True
                continue
            if isinstance(error, BackendError):
                unloaded = failure.reason
        steps.reach(1.0)
    result = ShardResult(tuple(done), tuple(failures), tuple(doubted), unloaded)
    if again:
        for steps in told:
            steps.undo()
        raise ShardFailedError(result)
    return result


def over_videos(
    name: str, stage: Callable[[str, Settings, Store, Steps], TableRef]
) -> Callable[[Sequence[str], Settings, str], ShardResult]:
    """A stage of one video made into a task's function over a shard of them; see `over_shard`."""

    def run(shard: Sequence[str], settings: Settings, root: str) -> ShardResult:
        share_cores()  # here, for it may be a process of its own
        store = Store(root)
        return over_shard(
            name,
            {video_id: video_id for video_id in shard},
            lambda video_id, steps: stage(video_id, settings, store, steps),
            lambda video_id: name_of(read_video(store, video_id)),
        )

    run.__name__ = run.__qualname__ = name
    run.__doc__ = f"The {name} stage over a shard of videos."
    return run


def split(items: Sequence[Any], size: int) -> list[list[Any]]:
    """Items in shards of at most `size`, in order."""
    return [list(items[i : i + size]) for i in range(0, len(items), size)]
