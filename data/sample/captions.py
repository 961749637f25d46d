"""Captions beside the clips, in the forms a real channel has them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

WEB_HEAD = "WEBVTT\nKind: captions\nLanguage: en\n"
LINE_CHARACTERS = 38


@dataclass(frozen=True, slots=True)
class Cue:
    """A text and when it is on screen, in ms."""

    start_ms: int
    end_ms: int
    text: str


def suffix(kind: str) -> str | None:
    """How a caption file of a kind ends; None where a clip has none."""
    return {
        "vtt": ".vtt", "srt": ".srt", "en.vtt": ".en.vtt", "split": ".en.vtt",
        "rolling": ".en.vtt", "none": None,
    }[kind]  # fmt: skip


def write(kind: str, cues: Sequence[Cue]) -> str:
    """The caption file's text: plain WebVTT, SRT, lines split over two cues, or rolling."""
    if kind == "srt":
        return "\n".join(
            f"{number}\n{_time(c.start_ms, ',')} --> {_time(c.end_ms, ',')}\n"
            f"{textwrap.fill(c.text, LINE_CHARACTERS)}\n"
            for number, c in enumerate(cues, 1)
        )
    if kind == "rolling":
        return WEB_HEAD + "\n" + _rolling(cues)
    shown = [part for cue in cues for part in _halves(cue)] if kind == "split" else cues
    head = "WEBVTT\n" if kind == "vtt" else WEB_HEAD
    blocks = (f"{_time(c.start_ms)} --> {_time(c.end_ms)}\n{c.text}\n" for c in shown)
    return head + "\n" + "\n".join(blocks)


def _time(ms: int, point: str = ".") -> str:
    seconds, ms = divmod(ms, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{ms:03}"


def _words(cue: Cue) -> list[Cue]:
    """A cue's words, each with a share of the time as long as the word."""
    words = cue.text.split()
    total, at, out = sum(len(w) + 1 for w in words), 0, []
    for word in words:
        start = cue.start_ms + (cue.end_ms - cue.start_ms) * at // total
        at += len(word) + 1
        out.append(Cue(start, cue.start_ms + (cue.end_ms - cue.start_ms) * at // total, word))
    return out


def _display_lines(cue: Cue) -> list[list[Cue]]:
    """A cue's words in lines that fit on screen."""
    words = iter(_words(cue))
    return [
        [next(words) for _ in line.split()] for line in textwrap.wrap(cue.text, LINE_CHARACTERS)
    ]


def _halves(cue: Cue) -> list[Cue]:
    """A cue as two that follow each other without a gap, cut in the middle of its words."""
    words = _words(cue)
    middle = len(words) // 2
    return [
        Cue(part[0].start_ms, part[-1].end_ms, " ".join(w.text for w in part))
        for part in (words[:middle], words[middle:])
    ]


def _rolling(cues: Sequence[Cue]) -> str:
    """YouTube's automatic captions: a new line builds up word by word under the one before it,
    then a cue of 10 ms holds the finished line alone."""
    blocks, above = [], " "
    for cue in cues:
        for line in _display_lines(cue):
            start, end = line[0].start_ms, line[-1].end_ms
            tagged = line[0].text + "".join(
                f"<{_time(word.start_ms)}><c> {word.text}</c>" for word in line[1:]
            )
            plain = " ".join(word.text for word in line)
            place = "align:start position:0%"
            blocks.append(f"{_time(start)} --> {_time(end - 10)} {place}\n{above}\n{tagged}\n")
            blocks.append(f"{_time(end - 10)} --> {_time(end)} {place}\n{plain}\n \n")
            above = plain
    return "\n".join(blocks)
