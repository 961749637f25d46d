"""Captions beside a video: finding the file that fits and reading it, whatever its state."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vsa_core.cues import Transcript
from vsa_core.errors import CaptionError
from vsa_core.language import near, tag_of
from vsa_core.transcripts.caption_formats import json3, timed_text
from vsa_core.transcripts.spoken import in_order, rolls, spoken_cue, unrolled

SUFFIXES = (".vtt", ".srt", ".json3")  # in order of preference
MAX_BYTES = 20_000_000


def read_captions(path: Path, max_bytes: int = MAX_BYTES, video: Path | None = None) -> Transcript:
    """The words of a caption file, without tags, speakers, sounds and rolling repeats.

    The format is told by the content, the encoding by its byte order mark, its zero bytes, or by
    whether it is UTF-8. A cue whose times cannot be read is left out and one whose times are
    reversed is turned round; `note` counts both. A file that rolls or has word times is
    `auto_captions`, any other `captions`. The language is the header's, else the file name's.

    Args:
        path: a .vtt, .srt or .json3 file.
        max_bytes: a larger file is refused unread.
        video: whose captions they are, no part of whose name is a language.

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
    # Automatic captions in the language spoken, as yt-dlp calls them, need not roll.
    auto = (
        rolling
        or path.stem.endswith(_ORIGINAL)
        or any(marks for cue in shown for _, marks in cue.lines)
    )
    if rolling:
        shown = list(unrolled(shown))
    cues = tuple(cue for cue in map(spoken_cue, shown) if cue is not None)
    if not cues:
        raise CaptionError(f"caption file {str(path)!r} holds no cues: fetch or export it again")
    return Transcript(
        cues=cues,
        source="auto_captions" if auto else "captions",
        language=language or _name_language(path, video),
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

_ORIGINAL = "-orig"
_AFTER = 3  # automatic captions in the language spoken fit after all others in that language
_UNKNOWN = ("und", "zxx", "mul", "mis")  # in a file's name: no language


def find_captions(
    video: Path,
    languages: Sequence[str],
    spoken: str | None = None,
    names: Sequence[str] | None = None,
) -> Path | None:
    """The caption file beside a video that fits best; None when there is none.

    Candidates are `<video's name>[.<language>].vtt|.srt|.json3`. The first wanted language with
    a file wins. In one language those made by people go before automatic ones, which are known by
    their rolling or word times. Among these `en` is met by `en` before `en-US`, before a file
    without a language, which stands for the first wanted one, before `en-orig`, yt-dlp's name for
    automatic captions in the language spoken; then comes .vtt before .srt before .json3.

    Files in other languages are not taken, unless `languages` is empty: then the language that is
    spoken goes before translations, which go by the same rules.

    Args:
        video: the video; it need not exist.
        languages: BCP 47 tags in order of preference; empty for any.
        spoken: tag of what is spoken, where that is known; else the tag of an `-orig` file tells.
        names: of the files in the video's folder, or of those of them that could be captions, in
            order; None lists the folder.

    Raises:
        CaptionError: the folder cannot be listed.
    """
    beside = list(_beside(video, _listed(video.parent) if names is None else names))
    if languages:
        wanted = [tag for tag in map(tag_of, languages) if tag]
        ranks = [_wanted_rank(tag, wanted) for _, tag, _ in beside]
    else:
        own = tag_of(spoken) or next((tag for _, tag, original in beside if original), None)
        ranks = [_spoken_rank(tag, own) for _, tag, _ in beside]
    ranked = [
        (rank[0], rank[1] + _AFTER * original, path)
        for (path, _, original), rank in zip(beside, ranks, strict=True)
        if rank is not None
    ]
    first = min((place for place, _, _ in ranked), default=None)
    equals = [(fit, path) for place, fit, path in ranked if place == first]
    if len(equals) < 2:
        return equals[0][1] if equals else None
    return min(
        (_kind(path), fit, SUFFIXES.index(path.suffix.lower()), path) for fit, path in equals
    )[-1]


def _listed(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_file())
    except OSError as error:
        raise CaptionError(
            f"folder {str(folder)!r} cannot be searched for captions: {error.strerror}"
        ) from error


def _beside(video: Path, names: Iterable[str]) -> Iterator[tuple[Path, str | None, bool]]:
    """Caption files of a video, their language, and whether it is known for the one spoken.

    Names are compared, never globbed.
    """
    stem = unicodedata.normalize("NFC", video.stem)
    for name in names:
        path = video.parent / name
        base = unicodedata.normalize("NFC", path.stem)
        if path.suffix.lower() not in SUFFIXES or not base.startswith(stem):
            continue
        rest = base[len(stem) :]
        tag = tag_of(rest[1:])
        if not rest or (rest[0] == "." and (tag or rest[1:] in _UNKNOWN)):
            yield path, tag, rest.endswith(_ORIGINAL)


def _wanted_rank(tag: str | None, wanted: Sequence[str]) -> tuple[int, int] | None:
    """Place in the wanted languages and how exactly it fits; None when it is not wanted."""
    if tag is None:
        return 0, 2
    for place, language in enumerate(wanted):
        if tag == language:
            return place, 0
        if tag.startswith(language + "-") or language.startswith(tag + "-"):
            return place, 1
    return None


def _spoken_rank(tag: str | None, own: str | None) -> tuple[int, int]:
    """Place 0 for the language that is spoken, and how exactly it fits; 1 for translations."""
    if tag is None:
        return 0, 2
    return (0, int(tag != own)) if near(tag, own) else (1, 0)


def _kind(path: Path) -> int:
    """0 for captions made by people, 1 for automatic ones, 2 for what cannot be read."""
    try:
        return int(read_captions(path).source != "captions")
    except CaptionError:
        return 2


def _name_language(path: Path, video: Path | None) -> str | None:
    """The language in `name.<language>.vtt`; None without one."""
    base = unicodedata.normalize("NFC", path.stem)
    name = unicodedata.normalize("NFC", video.stem) if video else Path(base).stem
    return tag_of(base.removeprefix(name).removeprefix("."))


def _header_language(text: str) -> str | None:
    head = text[:1000].partition("-->")[0]
    match = re.search(r"^Language:[ \t]*(\S+)", head, re.MULTILINE)
    return tag_of(match.group(1)) if match else None
