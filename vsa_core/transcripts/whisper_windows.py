"""What Whisper hears at once: spans of speech side by side, and its words back in their places."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from vsa_core.cues import Cue, Word
from vsa_core.media import SAMPLE_RATE_HZ
from vsa_core.voice import Span

WINDOW_MS = 30_000  # what Whisper's encoder takes
# Punctuation that belongs to the word after it, and to the word before it: Whisper's own.
OPENS, CLOSES = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"


@dataclass(frozen=True, slots=True)
class Timed:
    """A word, with the space before it where there is one; s from the start of its window."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Window:
    """Spans of speech that are heard together, one right after the other."""

    spans: tuple[Span, ...]

    @property
    def samples(self) -> NDArray[np.float32]:
        """(n,) float32 at 16 kHz, n at most 30 s; what a damaged stream has that is no number is
        silence."""
        joined = np.concatenate([span.samples for span in self.spans])
        return np.clip(np.nan_to_num(joined, nan=0.0), -1.0, 1.0)

    @property
    def seconds(self) -> float:
        """How long the speech in it is."""
        return sum(len(span.samples) for span in self.spans) / SAMPLE_RATE_HZ

    def cues(self, words: Iterable[Timed], *, spaced: bool) -> Iterator[Cue]:
        """One cue per span that has words.

        A word belongs to the span its middle falls into and stays inside it; none starts before
        the one before it ends.

        Args:
            words: in order.
            spaced: whether the language writes spaces between words; a piece without one before
                it ("-one") then belongs to the word before.
        """
        ends = list(accumulate(len(span.samples) / SAMPLE_RATE_HZ for span in self.spans))
        found: list[list[tuple[str, int, int]]] = [[] for _ in self.spans]
        index = 0
        for word in words:
            middle = (word.start_s + word.end_s) / 2
            index = min(max(index, bisect_right(ends, middle)), len(ends) - 1)
            span, said = self.spans[index], found[index]
            zero_ms = span.start_ms - 1000 * (ends[index - 1] if index else 0.0)
            earliest = said[-1][2] if said else span.start_ms
            start_ms = min(max(round(zero_ms + 1000 * word.start_s), earliest), span.end_ms)
            end_ms = min(max(round(zero_ms + 1000 * word.end_s), start_ms), span.end_ms)
            if said and spaced and not word.text[:1].isspace():
                said[-1] = (said[-1][0] + word.text, said[-1][1], end_ms)
            else:
                said.append((word.text, start_ms, end_ms))
        for span, said in zip(self.spans, found, strict=True):
            text = _one_line("".join(text for text, _, _ in said))
            if any(map(str.isalnum, text)):
                placed = (Word(start, end, _one_line(raw)) for raw, start, end in said)
                yield Cue(
                    span.start_ms, span.end_ms, text, tuple(word for word in placed if word.text)
                )


def _one_line(text: str) -> str:
    """Without line breaks, and without the half characters of a token that was cut."""
    return " ".join(text.replace("\ufffd", "").split())


def windows(spans: Iterable[Span]) -> Iterator[Window]:
    """Spans in order, as many as fit into each window."""
    held: list[Span] = []
    room = WINDOW_MS * SAMPLE_RATE_HZ // 1000
    for span in spans:
        if held and len(span.samples) > room:
            yield Window(tuple(held))
            held, room = [], WINDOW_MS * SAMPLE_RATE_HZ // 1000
        held.append(span)
        room -= len(span.samples)
    if held:
        yield Window(tuple(held))
