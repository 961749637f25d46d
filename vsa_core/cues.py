"""What was said and when: words, cues and the transcript they make up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Word:
    """One word with its own time, ms from the start of the video."""

    start_ms: int
    end_ms: int
    text: str


@dataclass(frozen=True, slots=True)
class Cue:
    """A piece of transcript as it was given: a caption, or a span of recognised speech.

    Attributes:
        start_ms, end_ms: from the start of the video; start_ms < end_ms.
        text: what is said, on one line, never empty.
        words: the same text word by word with times; empty where only the cue's time is known.
        speaker: who says it; None where nobody is named.
    """

    start_ms: int
    end_ms: int
    text: str
    words: tuple[Word, ...] = ()
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """All that is said in a video.

    Attributes:
        cues: in order of their start; they may overlap, as captions do.
        source: `captions` (made by people), `auto_captions` (a platform's speech recognition),
            `asr:<transcriber>` (ours) or `corpus:<name>` (a labelled corpus).
        language: BCP 47 tag; None when unknown.
        note: what was odd about the source, in words; None when nothing was.
    """

    cues: tuple[Cue, ...]
    source: str
    language: str | None = None
    note: str | None = None


def cues_of(rows: Iterable[Mapping[str, Any]]) -> tuple[Cue, ...]:
    """The cues that rows of the transcripts table hold."""
    return tuple(
        Cue(
            row["start_ms"],
            row["end_ms"],
            row["text"],
            tuple(Word(**word) for word in row["words"] or ()),
            row["speaker"],
        )
        for row in rows
    )
