"""Which videos a model is learned from, where there are more segments than it takes."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

# Several videos, so that some can be held out whatever the first ones hold.
_LEAST_VIDEOS = 10


def draw(
    segments: Mapping[str, int], most: int, seed: int, *, always: Collection[str] = ()
) -> list[str]:
    """Whole videos with about so many segments together, in order; all where they have no more.

    A video's turn is a hash of its id and the seed, so that the draw stays nearly the same while
    videos are added: those that come later than the last one drawn change nothing.

    Args:
        segments: how many each video has.
        most: segments; the last video drawn may exceed it.
        seed: another one draws others.
        always: these are drawn whatever their turn (people looked at them).
    """
    if sum(segments.values()) <= most:
        return sorted(segments)
    drawn = sorted(segments.keys() & set(always))
    taken = sum(segments[video] for video in drawn)
    others = sorted(segments.keys() - set(drawn), key=lambda video: _turn(video, seed))
    for video in others:
        if taken >= most and len(drawn) >= _LEAST_VIDEOS:
            break
        drawn.append(video)
        taken += segments[video]
    return sorted(drawn)


def _turn(video: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{video}".encode()).digest()
