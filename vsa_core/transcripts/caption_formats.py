"""WebVTT, SubRip and json3 as they are found, read as what stands on the screen when."""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsa_core.errors import CaptionError

_CHARACTER_MS = 60  # a fast speaker's character; for a cue that says no length of its own
_LATEST_MS = 100 * 3_600_000  # a later time is none: no video lasts a hundred hours

Mark = tuple[int, int]  # offset into a text, the time its next word starts, ms
Line = tuple[str, tuple[Mark, ...]]


@dataclass(slots=True)
class Shown:
    """What stands on the screen from one moment to another: lines without tags, with marks."""

    start_ms: int
    end_ms: int
    lines: list[Line]

    def texts(self) -> list[str]:
        """The lines without marks, on which two of these are compared."""
        return [" ".join(text.split()) for text, _ in self.lines]


_CLOCK = r"(?:(\d{1,4})\s*:\s*)?(\d{1,3})\s*:\s*(\d{1,2})(?:\s*[.,]\s*(\d{1,9}))?"
_TIMING = re.compile(rf"\s*{_CLOCK}\s*-{{1,3}}>\s*{_CLOCK}")
_MARK = re.compile(rf"<{_CLOCK}>")
_ASIDE = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")
_TAG = re.compile(r"<(?:[\d:.,]{5,20}|/?[A-Za-z][^<>]*|/)>")
_RUBY = re.compile(r"<rt(?:\.[^<>]*)?>[^<>]*</rt>", re.IGNORECASE)
_STYLED = re.compile(r"\{\\[^{}]*\}|\\[Nh]")  # what SubStation Alpha leaves behind
# Control characters, zero-width spaces and direction marks; not the joiners, which spell.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)
_TURNED = "cues with reversed times turned round"
_UNREADABLE = "cues with unreadable times left out"


def timed_text(text: str, odd: Counter[str]) -> Iterator[Shown]:
    """WebVTT or SubRip: every line with an arrow opens a cue, whatever stands between."""
    timing: str | None = None
    payload: list[str] = []
    for line in [*_without_asides(re.split(r"\r*\n|\r", text)), None]:
        if line is not None and "-->" not in line and not _TIMING.match(line):
            payload.append(line)
            continue
        if timing is not None:
            shown = _shown(timing, _without_identifier(payload) if line else payload, odd)
            if shown is not None:
                yield shown
        timing, payload = line, []


def _without_asides(lines: list[str]) -> Iterator[str]:
    """Lines without WebVTT's comments, styles and regions."""
    webvtt = lines[0].startswith("WEBVTT")
    opens, aside = True, False
    for line in lines:
        blank = not line.strip()
        aside = (aside and not blank) or (webvtt and opens and _ASIDE.match(line) is not None)
        opens = blank
        if not aside:
            yield line


def _without_identifier(lines: list[str]) -> list[str]:
    """A payload without the next cue's number or name at its end."""
    if not lines or not lines[-1].strip():
        return lines
    numbered = lines[-1].strip().isdigit()
    named = len(lines) >= 2 and not lines[-2].strip() and any(line.strip() for line in lines[:-1])
    return lines[:-1] if numbered or named else lines


def _shown(timing: str, payload: list[str], odd: Counter[str]) -> Shown | None:
    lines = [line for line in map(_line, payload) if line[0].strip()]
    match = _TIMING.match(timing)
    if match is None:
        odd[_UNREADABLE] += 1
        return None
    groups = match.groups()
    return _timed(_ms(groups[:4]), _ms(groups[4:]), lines, odd) if lines else None


def _timed(start_ms: int, end_ms: int, lines: list[Line], odd: Counter[str]) -> Shown | None:
    if not (0 <= start_ms <= _LATEST_MS and 0 <= end_ms <= _LATEST_MS):
        odd[_UNREADABLE] += 1
        return None
    if end_ms < start_ms:
        odd[_TURNED] += 1
        start_ms, end_ms = end_ms, start_ms
    elif end_ms == start_ms:
        end_ms += _CHARACTER_MS * sum(len(text) for text, _ in lines)
    return Shown(start_ms, end_ms, lines)


def _ms(groups: Sequence[str | None]) -> int:
    hours, minutes, seconds, fraction = groups
    whole = (int(hours or 0) * 60 + int(minutes or 0)) * 60 + int(seconds or 0)
    return whole * 1000 + int((fraction or "0")[:3].ljust(3, "0"))


def _line(source: str) -> Line:
    """One line of payload without tags, its entities decoded, its inline times as marks."""
    source = _STYLED.sub(" ", _RUBY.sub("", source))
    pieces: list[str] = []
    marks: list[Mark] = []
    length = at = 0
    for tag in _TAG.finditer(source):
        pieces.append(_plain(source[at : tag.start()]))
        length += len(pieces[-1])
        at = tag.end()
        mark = _MARK.fullmatch(tag.group())
        if mark:
            marks.append((length, _ms(mark.groups())))
    pieces.append(_plain(source[at:]))
    return "".join(pieces), tuple(marks)


def _plain(text: str) -> str:
    # Twice, because YouTube's own exports escape some entities twice.
    return _INVISIBLE.sub("", html.unescape(html.unescape(text)))


def json3(text: str, path: Path, odd: Counter[str]) -> list[Shown]:
    """YouTube's json3: events with a time, and pieces of text with offsets from it."""
    try:
        document = json.loads(text)
        events = document["events"]
        if not isinstance(events, list):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CaptionError(
            f"caption file {str(path)!r} is not json3 captions (no list of events): "
            "fetch or export it again"
        ) from error
    found = []
    for event in events:
        try:
            shown = _event(event, odd)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            odd[_UNREADABLE] += 1
            continue
        if shown is not None:
            found.append(shown)
    return found


def _event(event: Any, odd: Counter[str]) -> Shown | None:
    pieces = [(_whole(piece["utf8"]), piece.get("tOffsetMs")) for piece in event.get("segs") or ()]
    if not any(text.strip() for text, _ in pieces):
        return None
    start_ms = int(event["tStartMs"])
    marks, length = [], 0
    for text, offset_ms in pieces:
        if offset_ms is not None:
            marks.append((length, start_ms + int(offset_ms)))
        length += len(text)
    line = "".join(text for text, _ in pieces).replace("\n", " "), tuple(marks)
    return _timed(start_ms, start_ms + int(event.get("dDurationMs") or 0), [line], odd)


def _whole(text: str) -> str:
    """Text that can be stored: JSON may spell half of a character."""
    return _INVISIBLE.sub("", text.encode("utf-8", "replace").decode("utf-8"))
