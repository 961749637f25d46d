"""WebVTT, SubRip, SubStation Alpha and json3 as they are found, read as what is shown when."""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vsa_core.errors import CaptionError

_CHARACTER_MS = 60  # a fast speaker's character; for a cue that says no length of its own
_LATEST_MS = 100 * 3_600_000  # a later time is none: no video lasts a hundred hours
_FRAMES_PER_S = 25  # of times that count frames and do not say how many make a second

Mark = tuple[int, int]  # offset into a text, the time its next word starts, ms
Line = tuple[str, tuple[Mark, ...]]

# Around the name of whoever speaks from there on, in a line; no file's text holds these.
NAME, NAMED = "\x02", "\x03"


@dataclass(slots=True)
class Shown:
    """What stands on the screen from one moment to another: lines without tags, with marks.

    Attributes:
        start_ms, end_ms: from the start of the video.
        lines: in order; a speaker's name stands between `NAME` and `NAMED`.
        styled: offsets into the lines joined by a character where their style changes.
        piece: which of the files that were joined into one it comes from.
    """

    start_ms: int
    end_ms: int
    lines: list[Line]
    styled: frozenset[int] = field(default=frozenset())
    piece: int = 0

    def texts(self) -> list[str]:
        """The lines without marks, on which two of these are compared."""
        return [" ".join(text.split()) for text, _ in self.lines]


_CLOCK = (
    r"(?:(\d{1,4})\s*:\s*)?(\d{1,3})\s*:\s*(\d{1,2})"
    r"(?:\s*[.,]\s*(\d{1,9})|[:;](\d{2})(?!\s*[:\d]))?"
)
_ARROW = r"(?:[-‐‑‒–—―−=~]|\s(?=[-–—>]))*(?:>|&gt;|[→➔➜⇒⟶›»])"
_TIMING = re.compile(rf"\s*{_CLOCK}\s*{_ARROW}\s*{_CLOCK}")
# Where no arrow stands between them, both times have to be plain.
_FULL = r"(\d{1,3}):(\d{2}):(\d{2})[.,](\d{1,3})()"
_PAIR = re.compile(rf"\s*{_FULL}(?:\s*[,;|/–—-]\s*|\s+){_FULL}")
_SETTINGS = re.compile(r"\s*(?:[A-Za-z]\w*[:=]\S+(?:\s+|$))*")  # behind two times; else it is text
_UNTIMELY = re.compile(rf"\s*[-+]?\d(?=[\w.,;]*:)[\w:.,;]*\s*{_ARROW}")
_NUMBERED = re.compile(rf"\s*(?:{_ARROW}|\d+\s*:\s*\d+\s*[:.,]).*|.*-->.*")  # behind a cue's number
_MARK = re.compile(r"<(?:(\d{1,4}):)?(\d{1,3}):(\d{1,2})(?:[.,](\d{1,9}))?()>")
_ASIDE = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")
_HEADER = re.compile(r"\ufeff?WEBVTT(\s|$)")
_MAP = re.compile(r"X-TIMESTAMP-MAP\s*=(.*)")
_LOCAL = re.compile(rf"LOCAL:{_CLOCK}")
_MPEGTS = re.compile(r"MPEGTS:(\d{1,19})")
_MPEGTS_HZ = 90_000
_MPEGTS_WRAPS_MS = (1 << 33) * 1000 // _MPEGTS_HZ
_TURNED = "cues with reversed times turned round"
_UNREADABLE = "time lines do not read: what they time is left out"


def timed_text(text: str, odd: Counter[str]) -> Iterator[Shown]:
    """WebVTT or SubRip: every line with two times opens a cue, whatever stands between.

    Files that were joined, as the pieces of a stream are, are read as one: their headers are no
    text, and the times of each count from where its `X-TIMESTAMP-MAP` says.

    Args:
        text: of the file.
        odd: what was mended or left out is counted here, by what is said of it.
    """
    timing: re.Match[str] | str | None = None
    opened = piece = shift_ms = 0
    payload: list[str] = []
    for line, number, moved_ms in [*_without_asides(re.split(r"\r*\n|\r", text)), (None, 0, 0)]:
        timed = None if line is None else _time_line(line, payload, first=timing is None)
        if line is not None and timed is None:
            payload.append(line)
            continue
        if timing is not None:
            opened += 1
            shown = _shown(timing, _without_identifier(payload) if line else payload, odd, shift_ms)
            if shown is not None:
                shown.piece = piece
                yield shown
        timing, payload, piece, shift_ms = timed, [], number, moved_ms
        behind = line[timed.end() :] if line and isinstance(timed, re.Match) else ""
        if not _SETTINGS.fullmatch(behind):
            payload.append(behind)
    if odd[_UNREADABLE]:
        odd[f"of {opened} {_UNREADABLE}"] = odd.pop(_UNREADABLE)


def _time_line(line: str, before: Sequence[str], *, first: bool) -> re.Match[str] | str | None:
    """A line's two times; the line where it is to time a cue and does not read; None for text."""
    match = _TIMING.match(line) or _PAIR.match(line)
    if match is not None:
        return match
    bare = "-->" in line and not any(map(str.isalnum, line))
    if bare or _UNTIMELY.match(line):
        return line
    # Behind a number that stands alone, which is a cue's.
    numbered = bool(before) and before[-1].strip().isdigit()
    alone = numbered and (first if len(before) < 2 else not before[-2].strip())
    return line if alone and _NUMBERED.fullmatch(line) else None


def _without_asides(lines: list[str]) -> Iterator[tuple[str, int, int]]:
    """Lines without WebVTT's headers, comments, styles and regions; their piece and its shift."""
    webvtt = next((_HEADER.match(line) for line in lines if line.strip()), None) is not None
    piece, shift_ms, zero_ms = 0, 0, None
    opens, aside, header = True, False, False
    for line in lines:
        blank = not line.strip()
        begins = webvtt and _HEADER.match(line) is not None
        if begins:
            piece, shift_ms, header, aside = piece + 1, 0, True, True
        elif blank or (header and _TIMING.match(line)):
            aside = header = False
        elif webvtt and opens and _ASIDE.match(line):
            aside = True
        mapped = _MAP.search(line) if webvtt else None
        if mapped:
            begins_ms = _mapped_ms(mapped[1])
            zero_ms = begins_ms if zero_ms is None else zero_ms
            shift_ms = begins_ms - zero_ms
            shift_ms -= round(shift_ms / _MPEGTS_WRAPS_MS) * _MPEGTS_WRAPS_MS
        opens = blank
        if not aside and not mapped:
            yield line, piece, shift_ms


def _mapped_ms(values: str) -> int:
    """Where a piece of a stream begins, by its `X-TIMESTAMP-MAP`, from no time in particular."""
    local, stamp = _LOCAL.search(values), _MPEGTS.search(values)
    begins_ms = int(stamp[1]) * 1000 // _MPEGTS_HZ if stamp else 0
    return begins_ms - (_ms(local.groups()) if local else 0)


def _without_identifier(lines: list[str]) -> list[str]:
    """A payload without the next cue's number or name at its end."""
    if not lines or not lines[-1].strip():
        return lines
    numbered = lines[-1].strip().isdigit()
    named = len(lines) >= 2 and not lines[-2].strip()
    return lines[:-1] if numbered or named else lines


def _shown(
    timing: re.Match[str] | str, payload: list[str], odd: Counter[str], shift_ms: int
) -> Shown | None:
    if isinstance(timing, str):
        odd[_UNREADABLE] += 1
        return None
    groups = timing.groups()
    return timed(shift_ms + _ms(groups[:5]), shift_ms + _ms(groups[5:]), "\n".join(payload), odd)


def timed(start_ms: int, end_ms: int, source: str, odd: Counter[str]) -> Shown | None:
    """What is shown from one time to another; None where it is nothing, or never shown.

    Args:
        start_ms, end_ms: as the file has them.
        source: lines with tags, entities and overrides.
        odd: what was mended or left out is counted here.
    """
    lines, styled = _lines(source)
    if not lines:
        return None
    if not (0 <= start_ms <= _LATEST_MS and 0 <= end_ms <= _LATEST_MS):
        odd[_UNREADABLE] += 1
        return None
    if end_ms < start_ms:
        odd[_TURNED] += 1
        start_ms, end_ms = end_ms, start_ms
    elif end_ms == start_ms:
        end_ms += _CHARACTER_MS * sum(len(text) for text, _ in lines)
    return Shown(start_ms, end_ms, lines, styled)


def _ms(groups: Sequence[str | None]) -> int:
    hours, minutes, seconds, fraction, frames = groups
    whole = (int(hours or 0) * 60 + int(minutes or 0)) * 60 + int(seconds or 0)
    part = min(int(frames or 0), _FRAMES_PER_S) * 1000 // _FRAMES_PER_S
    return whole * 1000 + int((fraction or "0")[:3].ljust(3, "0")) + part


# --- the text of a cue --------------------------------------------------------------------

_TAG = re.compile(r"<(?:[\d:.,]{5,20}|/?[A-Za-z][^<>]*|/)>")
_VOICE = re.compile(r"<v(?:\.[^\s<>]*)?[ \t]+([^<>]+)>", re.IGNORECASE)
_RUBY = re.compile(r"<(rt|rp)(?:\.[^<>]*)?>[^<>]*</\1>", re.IGNORECASE)
_BREAK = re.compile(r"<(?:br|/?p|/?div)\b[^<>]*>|\\N", re.IGNORECASE)
# What SubStation Alpha and MicroDVD leave behind, and SubStation Alpha's drawings.
_STYLED = re.compile(r"\{\\[^{}]*\}|\{\w:[^{}\s]*\}|\{an?\d{1,2}\}|\\h")
_DRAWING = re.compile(
    r"\{(?=[^{}]*\\p[1-9])[^{}]*\}[^{}]*|"
    r"^\s*m(?:\s+-?\d+(?:\.\d+)?){2}(?:\s+(?:[mnlbspc]|-?\d+(?:\.\d+)?))+\s*$"
)
_LESS = r"&(?:amp;){0,2}(?:lt|#0*60|#x0*3c);"
_GREATER = r"&(?:amp;){0,2}(?:gt|#0*62|#x0*3e);"
_ESCAPED = re.compile(
    rf"{_LESS}(/?)(br|font|span|[biuspcv]|em|strong|lang|ruby|rt|rp|div)\b"
    rf"((?:(?!{_LESS}|{_GREATER})[^<>\n]){{0,200}}){_GREATER}",
    re.IGNORECASE,
)
_MARKUP = re.compile(rf"{_TAG.pattern}|{_STYLED.pattern}")
# Control characters, zero-width spaces and direction marks; not the joiners, which spell.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)


def _lines(source: str) -> tuple[list[Line], frozenset[int]]:
    """The lines of a payload that show anything, and where in them the style changes."""
    source = _DRAWING.sub("", _unescaped(source)).replace(NAME, "").replace(NAMED, "")
    source = _BREAK.sub("\n", _RUBY.sub("", source))
    lines: list[Line] = []
    styled: set[int] = set()
    begins = 0
    for each in source.splitlines():
        line, styles = _line(each)
        if line[0].strip():
            lines.append(line)
            styled.update(begins + offset for offset in styles)
            begins += len(line[0]) + 1
    return lines, frozenset(styled)


def _unescaped(source: str) -> str:
    """Tags that were escaped once more, as tags: those that close, or say more than a name."""
    closed = {match[2].lower() for match in _ESCAPED.finditer(source) if match[1]}

    def tag(match: re.Match[str]) -> str:
        name = match[2].lower()
        if name in closed or name == "br" or "=" in match[3]:
            return f"<{match[1]}{name}{html.unescape(html.unescape(match[3]))}>"
        return match[0]

    return _ESCAPED.sub(tag, source) if "&" in source else source


def _line(source: str) -> tuple[Line, list[int]]:
    """One line without tags, with marks for its inline times, and where its style changes."""
    pieces: list[str] = []
    marks: list[Mark] = []
    styles: list[int] = []
    length = at = 0
    for tag in _MARKUP.finditer(source):
        pieces.append(_plain(source[at : tag.start()]))
        length += len(pieces[-1])
        at = tag.end()
        mark, voice = _MARK.fullmatch(tag.group()), _VOICE.fullmatch(tag.group())
        if mark:
            marks.append((length, _ms(mark.groups())))
        elif voice:
            pieces.append(f"{NAME}{' '.join(_plain(voice[1]).split())}{NAMED}")
            length += len(pieces[-1])
        elif tag.group() == "\\h":
            pieces.append(" ")
            length += 1
        else:
            styles.append(length)
    pieces.append(_plain(source[at:]))
    return ("".join(pieces), tuple(marks)), styles


def _plain(text: str) -> str:
    # Twice, because YouTube's own exports escape some entities twice.
    return _INVISIBLE.sub("", html.unescape(html.unescape(text)))


# --- SubStation Alpha ---------------------------------------------------------------------

_FIELDS = re.findall(r"\w+", "layer start end style name marginl marginr marginv effect text")
_EVENT = re.compile(r"\[events\]", re.IGNORECASE)


def substation(text: str, odd: Counter[str]) -> Iterator[Shown]:
    """SubStation Alpha (.ass, .ssa): its dialogue; comments are left out."""
    fields = _FIELDS
    opened = 0
    for line in text.splitlines():
        kind, _, rest = line.partition(":")
        if kind.strip().lower() == "format" and "text" in rest.lower():
            fields = [name.strip().lower() for name in rest.split(",")]
        elif kind.strip().lower() == "dialogue":
            opened += 1
            values = dict(zip(fields, rest.split(",", len(fields) - 1), strict=False))
            times = _TIMING.match(f"{values.get('start', '')} --> {values.get('end', '')}")
            if times is None:
                odd[_UNREADABLE] += 1
                continue
            groups = times.groups()
            shown = timed(_ms(groups[:5]), _ms(groups[5:]), event_text(values), odd)
            if shown is not None:
                yield shown
    if odd[_UNREADABLE]:
        odd[f"of {opened} {_UNREADABLE}"] = odd.pop(_UNREADABLE)


def event_text(values: dict[str, str]) -> str:
    """The text of one event of SubStation Alpha, its actor as whoever speaks."""
    name = values.get("name", values.get("actor", "")).strip()
    text = re.sub(r"\\n", "\n", values.get("text", ""), flags=re.IGNORECASE)
    return f"<v {name}>{text}" if name and not set("<>") & set(name) else text


def is_substation(text: str) -> bool:
    """Whether a file is SubStation Alpha, by its content."""
    return _EVENT.search(text) is not None and re.search(r"^Dialogue:", text, re.M) is not None


# --- json3 --------------------------------------------------------------------------------


def json3(text: str, path: Path, odd: Counter[str]) -> list[Shown]:
    """YouTube's json3: events with a time, and pieces of text with offsets from it.

    Raises:
        CaptionError: not json3.
    """
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
    if odd[_UNREADABLE]:
        odd[f"of {len(events)} {_UNREADABLE}"] = odd.pop(_UNREADABLE)
    return found


def _event(event: Any, odd: Counter[str]) -> Shown | None:
    """One event, read as WebVTT with its offsets as times inside the text."""
    pieces = [(_whole(piece["utf8"]), piece.get("tOffsetMs")) for piece in event.get("segs") or ()]
    if not any(text.strip() for text, _ in pieces):
        return None
    start_ms = int(event["tStartMs"])
    source = "".join(
        text if offset_ms is None else f"{_clock(start_ms + int(offset_ms))}{text}"
        for text, offset_ms in pieces
    )
    return timed(start_ms, start_ms + int(event.get("dDurationMs") or 0), source, odd)


def _clock(time_ms: int) -> str:
    """A time as WebVTT writes it inside a text."""
    minutes, ms = divmod(min(max(time_ms, 0), _LATEST_MS), 60_000)
    return f"<{minutes // 60}:{minutes % 60:02}:{ms // 1000:02}.{ms % 1000:03}>"


def _whole(text: str) -> str:
    """Text that can be stored: JSON may spell half of a character."""
    return text.encode("utf-8", "replace").decode("utf-8")
