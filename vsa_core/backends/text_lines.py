"""What is said in one segment, as a text model reads it: cleaned, and in a language it speaks."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from vsa_core.errors import LanguageNotSpoken
from vsa_core.language import LATIN, script, speaks

_TYPOGRAPHY = str.maketrans(
    {"‘": "'", "’": "'", "‛": "'", "“": '"', "”": '"', "„": '"', "–": "-", "—": "-", "…": "..."}
)
_C1_CONTROL = re.compile("[\x80-\x9f]")
_MUSIC = re.compile("[♩-♬]")
_ANNOTATION = re.compile(r"\[[^\[\]]*\]")
_ALL_ANNOTATION = re.compile(r"\([^()]*\)|\*[^*]*\*")
# What is said in a segment is some hundred characters; a tokenizer is not to be given megabytes.
_LONGEST = 20_000


def read_text(
    text: str, language: str | None, languages: Sequence[str] | None, reader: str
) -> str | None:
    """The text to label, cleaned; None when there is nothing to read in it.

    Args:
        text: as it stands in captions or comes from a recogniser; of more than anybody can say in
            a segment the beginning is read.
        language: its BCP 47 tag; None when unknown, and then it is tried.
        languages: what the model speaks; None for anything.
        reader: the model's name, for messages.

    Raises:
        LanguageNotSpoken: the tag is another language's; or, whatever the tag says, most letters
            are of another script than the Latin one that all of the model's languages use.
    """
    line = cleaned(text[:_LONGEST])
    if line is None or languages is None:
        return line
    spoken = ", ".join(languages)
    if not speaks(languages, language):
        raise LanguageNotSpoken(
            f"{reader} speaks {spoken}, not {language}: choose a text model that does"
        )
    if all(script(tag) == LATIN for tag in languages) and not _mostly_latin(line):
        raise LanguageNotSpoken(
            f"{reader} speaks {spoken}, not what is written in other letters than Latin ones: "
            "choose a text model that does"
        )
    return line


def cleaned(text: str) -> str | None:
    """A text with typography plain, sound annotations and music signs gone.

    "[Music]" anywhere and a text that is one "(laughs)" or "*sighs*" are annotations; cp1252 read
    as latin-1 is mended.

    Returns:
        None when no letter and no digit is left.
    """
    text = _C1_CONTROL.sub(_as_cp1252, text).encode("utf-8", "ignore").decode("utf-8")
    text = _MUSIC.sub(" ", _ANNOTATION.sub(" ", text.translate(_TYPOGRAPHY)))
    text = " ".join(text.split())
    if _ALL_ANNOTATION.fullmatch(text) or not any(map(str.isalnum, text)):
        return None
    return text


def _as_cp1252(control: re.Match[str]) -> str:
    """What a C1 control was before cp1252 was decoded as latin-1: \\x92 is an apostrophe."""
    return control.group().encode("latin-1").decode("cp1252", "ignore")


def _mostly_latin(text: str) -> bool:
    letters = [char for char in text[:2000] if char.isalpha()]
    latin = sum("LATIN" in unicodedata.name(char, "") for char in letters)
    return 2 * latin >= len(letters)
