"""Which files beside a video are its captions: what their names say, and the one that fits best."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vsa_core.config import Sources
from vsa_core.errors import CaptionError
from vsa_core.language import near, tag_of

SUFFIXES = (".vtt", ".srt", ".ass", ".ssa", ".sbv", ".json3")  # in order of preference
# Pictures of text, and formats that are too rare to read.
_UNREAD = (".sub", ".idx", ".sup", ".ttml", ".dfxp", ".smi", ".lrc", ".stl", ".scc")
_FOLDERS = {"subs", "sub", "subtitles", "captions"}
_MEDIA = frozenset(Sources.model_fields["extensions"].default)
_ORIGINAL = "-orig"
_AFTER = 3  # automatic captions in the language spoken fit after all others in that language
_UNKNOWN = {"und", "zxx", "mul", "mis"}  # in a file's name: no language
_PLAIN = {
    "asr", "auto", "caption", "captions", "cc", "closed", "default", "dialog", "dialogue", "full",
    "generated", "hi", "orig", "original", "sdh", "sub", "subs", "subtitle", "subtitles",
    "transcript", "utf", "utf8", "8",
}  # fmt: skip
_FORCED = {"forced", "foreign", "signs", "songs"}
# The names of languages, in English and their own, that people put where a tag should be.
_NAMES = {
    name: tag
    for tag, names in {
        "ar": "arabic", "bg": "bulgarian", "ca": "catalan", "cs": "czech čeština",
        "da": "danish dansk", "de": "german deutsch", "el": "greek", "en": "english",
        "es": "spanish español espanol castellano", "et": "estonian", "fa": "persian farsi",
        "fi": "finnish suomi", "fr": "french français francais", "he": "hebrew",
        "hi": "hindi", "hr": "croatian hrvatski", "hu": "hungarian magyar", "id": "indonesian",
        "it": "italian italiano", "ja": "japanese 日本語", "ko": "korean 한국어",
        "lt": "lithuanian", "lv": "latvian", "ms": "malay", "nl": "dutch nederlands",
        "no": "norwegian norsk",
        "pl": "polish polski", "pt": "portuguese português portugues",
        "pt-BR": "brazilian brasileiro", "ro": "romanian română", "ru": "russian русский",
        "sk": "slovak", "sl": "slovenian", "sr": "serbian", "sv": "swedish svenska", "th": "thai",
        "tr": "turkish türkçe turkce", "uk": "ukrainian українська", "vi": "vietnamese",
        "zh": "chinese mandarin 中文", "zh-Hans": "简体", "zh-Hant": "繁體",
    }.items()
    for name in names.split()
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Named:
    """What the end of a caption file's name says.

    Attributes:
        tag: its language; None where it says none.
        original: yt-dlp's automatic captions in the language that is spoken.
        forced: only what is foreign in the film, or written in the picture.
    """

    tag: str | None = None
    original: bool = False
    forced: bool = False


def fitting(
    video: Path,
    languages: Sequence[str],
    spoken: str | None = None,
    names: Sequence[str] | None = None,
) -> list[Path]:
    """The caption files beside a video in the language that fits best, the best name first.

    Candidates are `<video's name>[.<what it is>].vtt|.srt|.ass|.ssa|.sbv|.json3`, also in a folder
    `Subs` beside it and there in one of the video's name. What it is may be a language (a tag or
    its name), `sdh`, `cc`, `default` and the like, or the video's own extension.

    The first wanted language with a file wins, then the language that is spoken, then any other.
    In it `en` is met by `en` before `en-US`, before a file without a language, which stands for
    the first wanted one, before `en-orig`, yt-dlp's name for automatic captions in the language
    spoken; then comes .vtt before .srt and so on.

    Args:
        video: the video; it need not exist.
        languages: BCP 47 tags in order of preference; empty for the one that is spoken.
        spoken: tag of what is spoken, where that is known; else the tag of an `-orig` file tells.
        names: of files beside the video, as `listed` gives them; None lists the folder.

    Raises:
        CaptionError: the folder cannot be listed.
    """
    names = listed(video.parent) if names is None else names
    beside = [(path, named) for path, named in _beside(video, names) if not named.forced]
    wanted = [tag for tag in map(tag_of, languages) if tag]
    own = tag_of(spoken) or next((named.tag for _, named in beside if named.original), None)
    ranked = []
    for path, named in beside:
        place, fit = rank(named.tag, wanted, own)
        suffix = SUFFIXES.index(path.suffix.lower())
        ranked.append((place, fit + _AFTER * named.original, suffix, path))
    ranked.sort()
    return [path for place, _, _, path in ranked if place == ranked[0][0]]


def rank(tag: str | None, wanted: Sequence[str], own: str | None) -> tuple[int, int]:
    """Place of a language, the wanted ones first, and how exactly it fits there."""
    if tag is None:
        return 0, 2
    for place, language in enumerate(wanted):
        if tag == language:
            return place, 0
        if tag.startswith(language + "-") or language.startswith(tag + "-"):
            return place, 1
    for place, language in enumerate(wanted):
        if near(tag, language):
            return place, 2
    return (len(wanted), int(tag != own)) if near(tag, own) else (len(wanted) + 1, 0)


def ignored_captions(video: Path, names: Sequence[str] | None = None) -> str | None:
    """What to note about files beside a video that look like its captions and are not read.

    Raises:
        CaptionError: the folder cannot be listed.
    """
    names = listed(video.parent) if names is None else names
    found = [f"{path.name} (forced)" for path, named in _beside(video, names) if named.forced]
    for path, rest in _of_video(video, names):
        suffix = path.suffix.lower()
        if suffix in _UNREAD and _named(rest) is not None:
            found.append(f"{path.name} ({suffix} is not read)")
        elif suffix in SUFFIXES and _named(rest) is None and rest != ".live_chat":
            found.append(f"{path.name} (no language in its name)")
    return f"not taken for captions: {', '.join(found[:5])}" if found else None


# --- names --------------------------------------------------------------------------------


def listed(folder: Path) -> list[str]:
    """Names of the files in a folder and in its folders of subtitles, in order.

    Raises:
        CaptionError: the folder cannot be listed.
    """
    try:
        return sorted(_names_in(folder))
    except OSError as error:
        raise CaptionError(
            f"folder {str(folder)!r} cannot be searched for captions: {error.strerror}"
        ) from error


def _names_in(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file():
                yield entry.name
            elif entry.name.lower() in _FOLDERS and entry.is_dir():
                for path, _, names in os.walk(entry.path):
                    inside = Path(path).relative_to(folder)
                    yield from (str(inside / name) for name in names)
                    if len(inside.parts) > 1:
                        break


def key_of(name: str) -> str:
    """What of a listed name is compared with a video's: one form, without folder of subtitles."""
    head, separator, rest = name.partition("/")
    bare = rest if separator and head.lower() in _FOLDERS else name
    return unicodedata.normalize("NFC", bare).casefold()


def _beside(video: Path, names: Iterable[str]) -> Iterator[tuple[Path, _Named]]:
    """Caption files of a video that are read, and what their names say."""
    for path, rest in _of_video(video, names):
        named = _named(rest)
        if named is not None and path.suffix.lower() in SUFFIXES:
            yield path, named


def _of_video(video: Path, names: Iterable[str]) -> Iterator[tuple[Path, str]]:
    """Files named after a video and after no other one, and what follows its name in theirs.

    Names are compared, never globbed.
    """
    names = list(names)
    stem, exact = key_of(video.stem), _composed(video.stem)
    others = [
        _composed(Path(name).stem)
        for name in names
        if Path(name).suffix.lower() in _MEDIA and name != video.name
    ]
    for name in names:
        path = video.parent / name
        if path.suffix.lower() not in (*SUFFIXES, *_UNREAD) or not key_of(name).startswith(stem):
            continue
        base = key_of(name)[: -len(path.suffix)]
        own = _composed(path.stem)
        if any(
            own.startswith(other)
            and own[len(other) :][:1] in ("", ".", "_", "-", " ")
            and (len(other) > len(exact) or not own.startswith(exact))
            for other in others
        ):
            continue
        yield path, base[len(stem) :]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _named(rest: str) -> _Named | None:
    """What follows a video's name in that of its captions; None where it is something else."""
    if not rest:
        return _Named()
    if rest[0] not in "._-/ ([":
        return None
    tag: str | None = None
    original = forced = hindi = unknown = False
    for token in re.split(r"[.\s/()\[\]]+", rest.lstrip("_-")):
        if not token or f".{token}" in _MEDIA or token in _PLAIN - {"hi"} or token.isdigit():
            continue
        if token in _FORCED:
            forced = True
        elif token == "hi":
            hindi = True
        elif (said := _language(token)) is not None:
            tag = tag or said
            original |= token.endswith(_ORIGINAL)
        elif token in _UNKNOWN:
            unknown = True
        else:
            parts = [part for part in re.split(r"[_-]", token) if part]
            known = [_language(p) for p in parts if p not in _PLAIN | _FORCED and not p.isdigit()]
            if None in known or len(parts) < 2:
                return None
            forced |= not _FORCED.isdisjoint(parts)
            tag = tag or next(iter(known), None)
    if hindi and tag is None and not unknown:
        tag = "hi"  # and where a language is named, for those who hear ill
    if rest[0] != "." and tag is None:
        return None  # "talk_2.vtt" may be anything
    return _Named(tag, original, forced)


def _language(token: str) -> str | None:
    """The language of one part of a name: a tag, a name, or yt-dlp's `<into>-<from>`."""
    if token in _NAMES:
        return _NAMES[token]
    if token in _PLAIN | _FORCED or token.rpartition("-")[2] in (_PLAIN | _FORCED) - {"orig"}:
        return None
    into, dash, out_of = token.partition("-")
    return tag_of(token) or (tag_of(into) if dash and tag_of(out_of) else None)


def name_language(path: Path, video: Path | None) -> str | None:
    """The language in `name.<language>.vtt`; None without one."""
    name = key_of(video.stem) if video else Path(key_of(path.stem)).stem
    named = _named(key_of(path.stem).removeprefix(name))
    return named.tag if named else None


def is_original(path: Path) -> bool:
    """Whether a name says that captions are automatic ones in the language spoken."""
    return path.stem.endswith(_ORIGINAL)
