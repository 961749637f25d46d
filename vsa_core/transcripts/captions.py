"""Captions beside a video: finding the file that fits and reading it, whatever its state."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from vsa_core.cues import Transcript
from vsa_core.errors import CaptionError
from vsa_core.transcripts.caption_formats import json3, timed_text
from vsa_core.transcripts.spoken import in_order, rolls, spoken_cue, unrolled

SUFFIXES = (".vtt", ".srt", ".json3")  # in order of preference
MAX_BYTES = 20_000_000


def read_captions(path: Path, max_bytes: int = MAX_BYTES) -> Transcript:
    """The words of a caption file, without tags, speakers, sounds and rolling repeats.

    The format is told by the content, the encoding by its byte order mark, its zero bytes, or by
    whether it is UTF-8. A cue whose times cannot be read is left out and one whose times are
    reversed is turned round; `note` counts both. A file that rolls or has word times is
    `auto_captions`, any other `captions`. The language is the header's, else the file name's.

    Args:
        path: a .vtt, .srt or .json3 file.
        max_bytes: a larger file is refused unread.

    Raises:
        CaptionError: unreadable, too large, not text, not captions, or without a spoken word.
    """
    text = _decoded(_bytes(path, max_bytes), path)
    odd: Counter[str] = Counter()
    if text.lstrip().startswith(("{", "[")):
        shown, language = json3(text, path, odd), None
    else:
        shown = list(timed_text(text, odd))
        language = _header_language(text)
    shown = in_order(shown)
    rolling = rolls(shown)
    auto = rolling or any(marks for cue in shown for _, marks in cue.lines)
    if rolling:
        shown = list(unrolled(shown))
    cues = tuple(cue for cue in map(spoken_cue, shown) if cue is not None)
    if not cues:
        raise CaptionError(f"caption file {str(path)!r} holds no cues: fetch or export it again")
    return Transcript(
        cues=cues,
        source="auto_captions" if auto else "captions",
        language=language or _name_language(path),
        note=", ".join(f"{count} {what}" for what, count in sorted(odd.items())) or None,
    )


# --- bytes to text ------------------------------------------------------------------------

_ASCII = re.compile(r"[\x00-\x7f]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1f]")


def _bytes(path: Path, max_bytes: int) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CaptionError(f"caption file {str(path)!r} is not a regular file: move it away")
        if status.st_size > max_bytes:
            raise CaptionError(
                f"caption file {str(path)!r} has {status.st_size / 1e6:.1f} MB, over the limit of "
                f"{max_bytes / 1e6:.1f} MB: check that it is one, or raise the limit"
            )
        return path.read_bytes()
    except OSError as error:
        raise CaptionError(
            f"caption file {str(path)!r} cannot be read: {error.strerror}"
        ) from error


def _decoded(raw: bytes, path: Path) -> str:
    codec = _utf(raw)
    text = raw.decode(codec, "replace").lstrip("\ufeff")
    broken = text.count("\ufffd")
    if codec == "utf-8" and broken > (len(text) - len(_ASCII.findall(text))) // 10:
        # Mostly invalid as UTF-8: a Western single-byte encoding. The five bytes that
        # Windows-1252 leaves open are no reason to refuse the rest.
        text = raw.decode("cp1252", "replace")
    if len(_CONTROLS.findall(text)) > len(text) / 100:
        raise CaptionError(f"caption file {str(path)!r} is not text: fetch or export it again")
    return text


def _utf(raw: bytes) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    # The times alone are Latin digits, so UTF-16 has a zero in every other byte of them.
    head = raw[:4096]
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if max(even, odd) > len(head) / 8 and min(even, odd) <= len(head) / 100:
        return "utf-16-le" if odd > even else "utf-16-be"
    return "utf-8"


# --- which file ---------------------------------------------------------------------------

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,3}")
_ORIGINAL = "-orig"


def find_captions(video: Path, languages: Sequence[str]) -> Path | None:
    """The caption file beside a video that fits best; None when there is none.

    Candidates are `<video's name>[.<language>].vtt|.srt|.json3`. The first wanted language with
    a file wins: `en` is met by `en` before `en-US` before `en-orig`, yt-dlp's name for automatic
    captions in the language spoken. A file without a language stands for the first wanted one,
    after those that name it and before `-orig`. Among equals the ones
    made by people go before automatic ones, which are known by their rolling or word times, then
    .vtt before .srt before .json3. Files in other languages are not taken, unless `languages` is
    empty: then every language is as good as another.

    Args:
        video: the video; it need not exist.
        languages: BCP 47 tags in order of preference.

    Raises:
        CaptionError: the folder cannot be listed.
    """
    ranked = []
    for path, tag in _beside(video):
        rank = _language_rank(tag, languages)
        if rank is not None:
            ranked.append((rank, path))
    best = min((rank for rank, _ in ranked), default=None)
    equals = [path for rank, path in ranked if rank == best]
    if len(equals) < 2:
        return equals[0] if equals else None
    return min(equals, key=lambda path: (_kind(path), SUFFIXES.index(path.suffix.lower()), path))


def _beside(video: Path) -> Iterator[tuple[Path, str | None]]:
    """Caption files of a video with their language; names are compared, never globbed."""
    stem = unicodedata.normalize("NFC", video.stem)
    try:
        with os.scandir(video.parent) as entries:
            names = sorted(entry.name for entry in entries if entry.is_file())
    except OSError as error:
        raise CaptionError(
            f"folder {str(video.parent)!r} cannot be searched for captions: {error.strerror}"
        ) from error
    for name in names:
        path = video.parent / name
        base = unicodedata.normalize("NFC", path.stem)
        if path.suffix.lower() not in SUFFIXES or not base.startswith(stem):
            continue
        rest = base[len(stem) :]
        tag = _tag(rest[1:])
        if not rest or (rest[0] == "." and tag):
            yield path, tag


def _language_rank(tag: str | None, languages: Sequence[str]) -> tuple[int, int] | None:
    """Place in the wanted languages and how exactly it fits; None when it is not wanted."""
    if not languages:
        return 0, 0
    if tag is None:
        return 0, 2
    spoken = tag.lower().removesuffix(_ORIGINAL)
    automatic = 3 * tag.lower().endswith(_ORIGINAL)
    for place, language in enumerate(languages):
        wanted = language.replace("_", "-").lower()
        if spoken == wanted:
            return place, automatic
        if spoken.startswith(wanted + "-") or wanted.startswith(spoken + "-"):
            return place, automatic + 1
    return None


def _kind(path: Path) -> int:
    """0 for captions made by people, 1 for automatic ones, 2 for what cannot be read."""
    try:
        return int(read_captions(path).source != "captions")
    except CaptionError:
        return 2


def _name_language(path: Path) -> str | None:
    """The language in `name.<language>.vtt`; None without one."""
    tag = _tag(Path(path.stem).suffix[1:])
    return tag.removesuffix(_ORIGINAL) if tag else None


def _tag(text: str) -> str | None:
    tag = text.replace("_", "-")
    return tag if _LANGUAGE.fullmatch(tag) else None


def _header_language(text: str) -> str | None:
    head = text[:1000].partition("-->")[0]
    match = re.search(r"^Language:[ \t]*(\S+)", head, re.MULTILINE)
    return _tag(match.group(1)) if match else None
