"""A stage over a shard of videos: what fails for one video is noted and costs no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.policies import share_cores
from vsa_core.config import Settings
from vsa_core.errors import BackendError, ConfigError, StoreError, VsaError
from vsa_core.progress import Steps
from vsa_core.store import Store, TableRef
from vsa_core.story import FAILED
from vsa_core.videos import note_on_video, read_video

# What is wrong for one video is wrong for all of them.
_FATAL = (BackendError, ConfigError, StoreError)


@dataclass(frozen=True, slots=True)
class Failure:
    """A video that could not be labelled.

    Attributes:
        video_id: its id.
        path: the file or address.
        reason: one line.
        kind: of `story.left_out`.
        asked: False: nobody asked for it, it came with a channel and can wait.
    """

    video_id: str
    path: str
    reason: str
    kind: str = FAILED
    asked: bool = True


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What became of a shard's videos in a stage, each in the order they were given.

    Attributes:
        done: ids of the videos that went through.
        failures: those that did not.
    """

    done: tuple[str, ...]
    failures: tuple[Failure, ...]


def over_videos(
    name: str, stage: Callable[[str, Settings, Store, Steps], TableRef]
) -> Callable[[Sequence[str], Settings, str], ShardResult]:
    """A stage of one video made into a task's function over a shard of them."""

    def run(shard: Sequence[str], settings: Settings, root: str) -> ShardResult:
        share_cores()  # here, for it may be a process of its own
        store = Store(root)
        done: list[str] = []
        failures: list[Failure] = []
        for video_id in shard:
            steps = Steps(name)
            try:
                stage(video_id, settings, store, steps)
                done.append(video_id)
            except _FATAL:
                raise
            except Exception as error:  # noqa: BLE001 - one video's, recorded with its reason
                reason = said(error)
                note_on_video(store, video_id, f"{name}: {reason}", failed=True)
                path = read_video(store, video_id)["media_path"]
                failures.append(Failure(video_id, path, reason))
            steps.reach(1.0)
        return ShardResult(tuple(done), tuple(failures))

    run.__name__ = run.__qualname__ = name
    run.__doc__ = f"The {name} stage over a shard of videos."
    return run


def said(error: Exception) -> str:
    """An error in one line; one that is not ours names its type, for a bug report."""
    if isinstance(error, VsaError):
        return str(error)
    return f"unexpected {' '.join(f'{type(error).__name__}: {error}'.split())}"


def split(items: Sequence[Any], size: int) -> list[list[Any]]:
    """Items in shards of at most `size`, in order."""
    return [list(items[i : i + size]) for i in range(0, len(items), size)]
