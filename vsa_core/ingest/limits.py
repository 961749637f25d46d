"""How much pages, playlists and manifests may make of themselves: few bytes can mean many things.

What a page may say in bytes is `network.py`'s; here it is what it becomes once it is taken apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element

from vsa_core.ingest.guard import Stopped

MAX_LINES = 250_000  # of a page or playlist; a day of segments of 2 s has 130,000
_MAX_MARKS = 500_000  # tags and attributes of a page; those of big sites have 30,000
_MAX_VALUES = 1_000_000  # of JSON
_MAX_SEGMENTS = 500_000  # of all renditions in a manifest; 6 h in 20 renditions of 2 s have 216,000
_MAX_RENDITIONS = 2_000
_BREAKS = (b"\n", b"\r", b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e", b"\xc2\x85", b"\xe2\x80\xa8")


def check_bytes(data: bytes) -> None:
    """Raise Stopped when a page or playlist has too many lines or renditions."""
    if sum(map(data.count, _BREAKS)) > MAX_LINES:
        raise _too_large(f"a page or playlist has more than {MAX_LINES:,} lines")
    if data.count(b"#EXT-X-STREAM-INF") + data.count(b"#EXT-X-MEDIA:") > _MAX_RENDITIONS:
        raise _too_large(f"a playlist has more than {_MAX_RENDITIONS:,} renditions")


def check_page(text: str) -> None:
    """Raise Stopped when a page would become too large a tree, of HTML, XML or JSON."""
    if text.count("<") + text.count("=") > _MAX_MARKS:
        raise _too_large(f"a page has more than {_MAX_MARKS:,} tags and attributes")
    if "<!ENTITY" in text:
        raise _too_large("a page declares entities of its own, which are not expanded")
    if text.lstrip()[:1] in ("{", "["):
        check_json(text)


def check_json(text: str | bytes) -> None:
    """Raise Stopped when JSON holds too many values."""
    marks: Any = (b",", b"[", b"{") if isinstance(text, bytes) else (",", "[", "{")
    if sum(map(text.count, marks)) > _MAX_VALUES:
        raise _too_large(f"its JSON holds more than {_MAX_VALUES:,} values")


def check_dash(manifest: Element, seconds_of: Any) -> None:
    """Raise Stopped when a DASH manifest's templates stand for too many segments.

    Args:
        manifest: its root.
        seconds_of: reads an ISO duration.
    """
    whole = seconds_of(manifest.get("mediaPresentationDuration")) or 0
    total, renditions = 0.0, 0
    for period in _children(manifest, "Period"):
        seconds = seconds_of(period.get("duration")) or whole
        for group in _children(period, "AdaptationSet"):
            for rendition in _children(group, "Representation"):
                renditions += 1
                said: dict[str, str] = {}
                listed = 0.0
                for level in (period, group, rendition):
                    for kind in ("SegmentTemplate", "SegmentList"):
                        for one in _children(level, kind):
                            said |= one.attrib
                            repeats = [
                                1 + max(_number(s.get("r")), 0)
                                for line in _children(one, "SegmentTimeline")
                                for s in _children(line, "S")
                            ]
                            listed = sum(repeats) or listed
                each = _number(said.get("duration")) / (_number(said.get("timescale")) or 1)
                total += max(listed, seconds / each if each > 0 else 0)
                _check_segments(total, renditions)


def check_smooth(manifest: Element) -> None:
    """Raise Stopped when a Smooth Streaming manifest stands for too many segments."""
    total = renditions = 0.0
    for stream in _children(manifest, "StreamIndex"):
        repeats = sum(max(_number(c.get("r")), 1) for c in _children(stream, "c"))
        levels = sum(1 for _ in _children(stream, "QualityLevel"))
        renditions += levels
        total += repeats * max(levels, 1)
        _check_segments(total, renditions)


def _check_segments(segments: float, renditions: float) -> None:
    if segments > _MAX_SEGMENTS:
        raise _too_large(f"a manifest stands for more than {_MAX_SEGMENTS:,} segments")
    if renditions > _MAX_RENDITIONS:
        raise _too_large(f"a manifest has more than {_MAX_RENDITIONS:,} renditions")


def _too_large(reason: str) -> Stopped:
    return Stopped("too_large", reason)


def _children(element: Element, name: str) -> Iterator[Element]:
    """Its children of a name, whatever their namespace."""
    return (one for one in element if one.tag.rpartition("}")[2] == name)


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:  # yt-dlp will say so
        return 0.0
