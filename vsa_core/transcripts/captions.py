"""Captions as they come, beside a video or inside it, read as what is said and by whom."""

from __future__ import annotations

import re
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vsa_core.cues import Cue, Transcript
from vsa_core.errors import CaptionError
from vsa_core.language import tag_of
from vsa_core.media import Subtitles
from vsa_core.transcripts.bilingual import one_language
from vsa_core.transcripts.caption_files import fitting, is_original, name_language
from vsa_core.transcripts.caption_formats import (
    Shown,
    is_substation,
    json3,
    substation,
    timed_text,
)
from vsa_core.transcripts.embedded import shown_by
from vsa_core.transcripts.encodings import decoded
from vsa_core.transcripts.spoken import (
    in_order,
    rolls,
    speakers,
    spells_out,
    spelt,
    spoken_cues,
    unrolled,
)

MAX_BYTES = 20_000_000
_LATE_MS = 2_000  # a cue may begin so long after the last frame and still be the video's


@dataclass(frozen=True, slots=True)
class Wanted:
    """What counts beside the captions themselves.

    Attributes:
        languages: BCP 47 tags in order, of which one is read where a file holds two at once.
        duration_ms: of the video, beyond whose end nothing is said; 0 where it is not known.
    """

    languages: tuple[str, ...] = ()
    duration_ms: int = 0


def find_captions(
    video: Path,
    languages: Sequence[str],
    spoken: str | None = None,
    names: Sequence[str] | None = None,
) -> Path | None:
    """The caption file beside a video that fits best; None when there is none.

    In the language that fits best, as `fitting` has it, captions made by people go before
    automatic ones, which are known by their rolling or word times.

    Raises:
        CaptionError: the folder cannot be listed.
    """
    files = fitting(video, languages, spoken, names)
    return min(files, key=_kind) if len(files) > 1 else next(iter(files), None)


def _kind(path: Path) -> int:
    """0 for captions made by people, 1 for automatic ones, 2 for what cannot be read."""
    try:
        return int(read_captions(path).source != "captions")
    except CaptionError:
        return 2


def read_captions(
    path: Path,
    max_bytes: int = MAX_BYTES,
    video: Path | None = None,
    wanted: Wanted = Wanted(),
) -> Transcript:
    """The words of a caption file, without tags, sounds, credits and repeats, and who says them.

    The format is told by the content, the encoding as `encodings.decoded` says. A file that rolls,
    spells its lines out or has word times is `auto_captions`, any other `captions`. The language
    is the header's, else the file name's. `note` counts what was mended and what was left out.

    Args:
        path: a .vtt, .srt, .ass, .sbv or .json3 file.
        max_bytes: a larger file is refused unread.
        video: whose captions they are, no part of whose name is a language.
        wanted: what else decides what is read.

    Raises:
        CaptionError: unreadable, too large, not text, not captions, or without a spoken word
            before the end of the video.
    """
    tag = name_language(path, video)
    text, note = decoded(_bytes(path, max_bytes), tag, repr(str(path)))
    odd: Counter[str] = Counter()
    language = None
    if is_substation(text):
        shown = list(substation(text, odd))
    elif text.lstrip().startswith(("{", "[")):
        shown = json3(text, path, odd)
    else:
        shown = list(timed_text(text, odd))
        language = _header_language(text)
    return _transcript(
        shown,
        f"caption file {str(path)!r}",
        wanted,
        language or tag,
        [*([note] if note else []), *_counted(odd)],
        # Automatic captions in the language spoken, as yt-dlp calls them, need not roll.
        auto=is_original(path),
    )


def read_stream(stream: Subtitles, wanted: Wanted) -> Transcript:
    """The words of captions inside a video, as those of a file.

    Raises:
        CaptionError: without a spoken word before the end of the video.
    """
    odd: Counter[str] = Counter()
    shown = list(shown_by(stream, odd))
    where = f"stream of captions inside the video ({stream.codec})"
    return _transcript(shown, where, wanted, tag_of(stream.language), _counted(odd))


def _counted(odd: Counter[str]) -> list[str]:
    return [f"{count} {what}" for what, count in sorted(odd.items())]


def _transcript(
    shown: Iterable[Shown],
    where: str,
    wanted: Wanted,
    language: str | None,
    notes: list[str],
    *,
    auto: bool = False,
) -> Transcript:
    """What is said of what is shown, each thing once."""
    found = in_order(shown)
    if wanted.duration_ms:
        inside = [cue for cue in found if cue.start_ms <= wanted.duration_ms + _LATE_MS]
        if found and not inside:
            raise CaptionError(
                f"all {len(found)} cues of {where} lie beyond the end of the video: "
                "are they of another one?"
            )
        if len(inside) < len(found):
            late = len(found) - len(inside)
            notes.append(f"{late} of {len(found)} cues lie beyond the end of the video: left out")
        found = inside
    if chosen := one_language(found, wanted.languages):
        found, language = chosen
        notes.append(f"captions in two languages at once: those in {language or '?'} are read")
    rolling = rolls(found)
    if not rolling and spells_out(found):
        found = list(spelt(found))
        rolling = rolls(found, 1)
    auto = auto or rolling or any(marks for cue in found for _, marks in cue.lines)
    if rolling:
        found = list(unrolled(found))
    names = speakers(found)
    cues, credited = _without_credits([cue for one in found for cue in spoken_cues(one, names)])
    if credited:
        notes.append(f"{credited} cues that name who made the captions left out")
    if not cues:
        raise CaptionError(f"{where} holds no cues: fetch or export it again")
    source = "auto_captions" if auto else "captions"
    return Transcript(tuple(cues), source, language, ", ".join(notes) or None)


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


def _header_language(text: str) -> str | None:
    head = text[:1000].partition("-->")[0]
    match = re.search(r"^Language:[ \t]*(\S+)", head, re.MULTILINE)
    return tag_of(match.group(1)) if match else None


# --- credits ------------------------------------------------------------------------------

_AT_ENDS = 3  # cues at the start and the end, where whoever made the captions is named
_SITES = re.compile(
    r"\b(?:opensubtitles|addic7ed|subscene|podnapisi|yts\.\w+|yify|amara\.org|tvsubtitles|"
    r"legendas\.tv|titlovi|subdl)\b",
    re.IGNORECASE,
)
_MADE = (
    r"(?:(?:closed )?(?:subtitl|caption|transcri|translat)\w*|subs?|sync\w*|resync\w*|corrected|"
    r"corrections|encoded|ripped|revised|edited|timed|sous-titr\w+|untertitel\w*|subt[ií]tul\w+|"
    r"sottotitol\w+|legenda\w*|ondertitel\w*|traduc\w+|napisy|субтитры|перевод\w*)"
)
_BY = r"(?:by|par|von|im auftrag|por|a cura di|di|door|:)"
_CREDIT = re.compile(
    rf"\W*{_MADE}(?:(?:[\s,&+/]|\band\b)+{_MADE})*\s*{_BY}(?!\w)\s*(?P<who>.{{0,80}})|字幕.{{0,3}}[:：].{{0,80}}",
    re.IGNORECASE,
)


def _without_credits(cues: Sequence[Cue]) -> tuple[list[Cue], int]:
    """Cues without those that only name who made the captions, and how many these were."""
    kept = [
        cue
        for number, cue in enumerate(cues)
        if not (
            _SITES.search(cue.text)
            or (min(number, len(cues) - 1 - number) < _AT_ENDS and _is_credit(cue.text))
        )
    ]
    return kept, len(cues) - len(kept)


def _is_credit(text: str) -> bool:
    """Whether a cue is "Subtitles by …": a name follows, or a word or two and no sentence."""
    match = _CREDIT.fullmatch(text)
    if match is None:
        return False
    who = (match["who"] or "").split()
    return not who or not who[0].islower() or (len(who) < 3 and who[-1][-1] not in ".!?")
