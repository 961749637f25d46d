"""Captions inside a video: which of its streams is read, and how."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from vsa_core.language import tag_of
from vsa_core.media import Subtitles, subtitles
from vsa_core.transcripts.caption_files import rank
from vsa_core.transcripts.caption_formats import Shown, event_text, timed

_SUBSTATION = {"ass", "ssa"}
_MP4 = "mov_text"
_TEXT = {"srt", "subrip", "text", "webvtt", _MP4, *_SUBSTATION}
_PARTIAL = re.compile(r"\b(?:forced|signs|songs|commentary)\b", re.IGNORECASE)


def embedded(
    video: Path, languages: Sequence[str], spoken: str | None, max_bytes: int
) -> tuple[Subtitles | None, str | None]:
    """The stream of captions in a video that fits best, and what to note where none is read.

    The order of languages is that of `find_captions`; in one language the first stream goes first.
    Streams that are forced or a commentary are passed over.

    Raises:
        MediaError: the file cannot be opened any more.
    """
    streams = [stream for stream in subtitles(video, max_bytes) if stream.packets]
    wanted = [tag for tag in map(tag_of, languages) if tag]
    whole = [
        stream
        for stream in streams
        if stream.codec in _TEXT and not (stream.partial or _PARTIAL.search(stream.title))
    ]
    if whole:
        return min(whole, key=lambda s: rank(tag_of(s.language), wanted, tag_of(spoken))), None
    if not streams:
        return None, None
    kinds = ", ".join(dict.fromkeys("forced" if s.codec in _TEXT else s.codec for s in streams))
    return None, f"captions inside the video are not read ({kinds})"


def shown_by(stream: Subtitles, odd: Counter[str]) -> Iterator[Shown]:
    """What a stream shows when.

    Args:
        stream: one that `embedded` chose.
        odd: what was mended or left out is counted here.
    """
    for start_ms, end_ms, raw in stream.packets:
        if stream.codec == _MP4:
            text = raw[2 : 2 + int.from_bytes(raw[:2], "big")]
            source = text.decode(
                "utf-16" if text[:2] in (b"\xfe\xff", b"\xff\xfe") else "utf-8", "replace"
            )
        elif stream.codec in _SUBSTATION:
            # ReadOrder, Layer, Style, Name, three margins, Effect, Text
            fields = raw.decode("utf-8", "replace").split(",", 8)
            source = event_text({"name": fields[3], "text": fields[-1]}) if len(fields) == 9 else ""
        else:
            source = raw.decode("utf-8", "replace")
        shown = timed(start_ms, end_ms, source, odd)
        if shown is not None:
            yield shown
