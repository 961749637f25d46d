"""Languages: their tags read and matched and, where there is no tag, told from the text."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

from vsa_core.errors import ConfigError

# Told from less, or less surely, a language is a guess. With both, no stretch of MELD (as written,
# and as a recogniser writes it) is taken for another language: 92 % of 10,702 of 50 characters
# are known, 99.9 % of 6,738 of 100. Of 308 stretches in 24 languages of 50 characters 95 % are
# known, and none is wrong but Indonesian that is taken for Malay.
_ENOUGH_BYTES = 40
_SURE = 0.9
# A shorter line is told only where it can hardly be English, which most short lines are. Of 7,055
# English ones of MELD three are taken for another language, of 38 in 18 languages 36 are known.
_SHORT_BYTES = 10
_LIKELY = 0.4
_HARDLY_ENGLISH = 0.02
# A tag is wrong where the text can hardly be in its language: with 40 bytes that is said of none
# of 4,703 stretches of MELD and of one of 1,976 tweets in seven languages, and found out of 63 to
# 98 % of those in six others. A language of other letters may be romanised, of which the model
# knows nothing: that takes far more.
_HARDLY = 0.003
_PLENTY_BYTES = 200
_CERTAIN = 0.99
_READ = 100_000  # characters of a text; hours of speech, read in 30 ms
_PARTS = 8  # of a text, all of which must be in the other language
# CLDR's distance of what readers of one take for the other: Norwegian and Bokmål 1, Bosnian and
# Croatian 8, Egyptian and standard Arabic 10; Danish and Norwegian, at 12, are beyond it.
_NEAR = 10
# Written so much alike that the text cannot tell them: their probabilities are added.
_ALIKE = ({"id", "ms"}, {"hr", "bs", "sr"}, {"no", "nn"})

LATIN = "Latn"
ANY = "any"  # of an option: whatever language there is

_TAG = re.compile(r"[a-z]{2,3}(?:-[a-z0-9]{1,8})*", re.IGNORECASE)
_ORIGINAL = "-orig"  # yt-dlp, of automatic captions in the language that is spoken
_AUTOMATIC = "a."  # YouTube, of automatic captions
_TRACK = re.compile(r"-[\w-]{11}$")  # yt-dlp, of one track among several in a language
_NO_LANGUAGE = {"und", "zxx", "mul", "mis"}


@lru_cache(1024)
def tag_of(text: str | None) -> str | None:
    """A language tag as BCP 47 spells it: `en-US` for `EN_us` or `eng-US`, `he` for `iw`.

    What YouTube and yt-dlp add to it (`en-orig`, `a.en`, `en-eEY6OEpapPo`) is left away.

    Returns:
        None for what is no tag, or says that there is no one language (`und`, `zxx`, `mul`).
    """
    from langcodes import LanguageTagError, standardize_tag

    whole = (text or "").strip().replace("_", "-").removeprefix(_AUTOMATIC).removesuffix(_ORIGINAL)
    for spelt in dict.fromkeys((whole, _TRACK.sub("", whole))):
        try:
            tag = standardize_tag(spelt, macro=True) if _TAG.fullmatch(spelt) else ""
        except LanguageTagError:
            continue
        if tag:
            return None if tag.partition("-")[0] in _NO_LANGUAGE else tag
    return None


def primary(text: str | None) -> str | None:
    """The language alone of a tag (`en` of `en-US`), on which tags are matched; None as above."""
    tag = tag_of(text)
    if tag is None:
        return None
    language = tag.partition("-")[0]
    return "no" if language in {"nb", "nn"} else language


@lru_cache(1024)
def script(tag: str) -> str:
    """The script (ISO 15924) that a language is written in, by its tag; empty where not known."""
    from langcodes import Language, LanguageTagError

    try:
        return Language.get(tag).maximize().script or ""
    except LanguageTagError:
        return ""


@lru_cache(1024)
def near(one: str | None, other: str | None) -> bool:
    """Whether two tags name one language, or two that are read alike; a missing tag is near none.

    Regions and scripts do not count: a model that speaks Serbian speaks both of its alphabets.
    """
    from langcodes import tag_distance

    first, second = primary(one), primary(other)
    if first is None or second is None:
        return False
    alike = any({first, second} <= group for group in _ALIKE)
    distance = min(tag_distance(first, second), tag_distance(second, first))
    return first == second or alike or distance <= _NEAR


def speaks(languages: Iterable[str], tag: str | None) -> bool:
    """Whether a model of some languages reads a text of that tag; an unknown language it tries."""
    return primary(tag) is None or any(near(language, tag) for language in languages)


def spoken_by(option: Sequence[str] | str | None, where: str) -> tuple[str, ...] | None:
    """What a model speaks, as its option `languages` says: each language once, in order.

    Args:
        option: tags; "any" or None for whatever it is given.
        where: which model, for messages.

    Returns:
        None for any language.

    Raises:
        ConfigError: no list of tags.
    """
    if option is None or option == ANY:
        return None
    if isinstance(option, str):
        raise ConfigError(f"{where}: languages is {option!r}: write [{option}], or {ANY}")
    found = {primary(str(tag)) for tag in option}
    if not found or None in found:
        raise ConfigError(f"{where}: languages is {option!r}: give tags as [en, de], or {ANY}")
    return tuple(sorted(filter(None, found)))


# --- from the text ------------------------------------------------------------------------


def detect(text: str) -> str | None:
    """The language a text is in, by its letters; BCP 47 without region or script.

    Romanised languages and those without a two-letter code are not known.

    Returns:
        None where the model gives its best guess less than 0.9; of fewer than 40 bytes of letters
        in UTF-8 (40 Latin, 20 Cyrillic or 14 Chinese ones) for all but what is plainly no
        English; always for fewer than 10.
    """
    letter_bytes = _letter_bytes(text)
    if letter_bytes < _SHORT_BYTES:
        return None
    language, probability, ranked = _classified(text)
    if letter_bytes >= _ENOUGH_BYTES:
        return tag_of(language) if probability >= _SURE else None
    english = ranked.get("en", 0.0)
    foreign = english < _HARDLY or (english < _HARDLY_ENGLISH and probability >= _LIKELY)
    return tag_of(language) if foreign else None


def mistagged(tag: str, texts: Sequence[str]) -> str | None:
    """The language that texts tagged otherwise are plainly in; None where the tag may be right.

    Plainly is: 40 bytes of letters or more, another language with a probability of 0.9 and that of
    the tag with one below 0.001, for the whole, and for each of up to eight parts of 200 bytes on
    its own with 0.9; where the tag is of a language with other letters than Latin ones, 200 bytes
    and 0.99. A tag of a language that the model does not know, or that is read like the other, is
    left alone.
    """
    whole = " ".join(texts)
    letter_bytes = _letter_bytes(whole)
    latin = script(tag) == LATIN
    least_bytes, least = (_ENOUGH_BYTES, _SURE) if latin else (_PLENTY_BYTES, _CERTAIN)
    if letter_bytes < least_bytes or not any(near(tag, known) for known in _model().labels):
        return None
    language, probability, ranked = _classified(whole)
    if probability < least or tag_of(language) is None or near(tag, language):
        return None
    if sum(share for label, share in ranked.items() if near(tag, label)) >= _HARDLY:
        return None
    count = max(1, min(_PARTS, letter_bytes // _PLENTY_BYTES))
    cuts = [len(whole) * number // count for number in range(count + 1)]
    for start, end in pairwise(cuts):
        other, sure, _ = _classified(whole[start:end])
        if sure < _SURE or not near(other, language):
            return None
    return tag_of(language)


def detector() -> str:
    """What `detect` and `mistagged` depend on, for fingerprints."""
    from importlib.metadata import version

    return f"py3langid@{version('py3langid')}"


def _letter_bytes(text: str) -> int:
    return sum(len(char.encode("utf-8", "ignore")) for char in text[:_READ] if char.isalpha())


def _classified(text: str) -> tuple[str, float, dict[str, float]]:
    """The model's best label, how probable it and those it cannot be told from are, and each."""
    ranked: dict[str, float] = dict(_model().rank(text[:_READ]))
    best = next(iter(ranked))
    group = next((group for group in _ALIKE if best in group), {best})
    return best, sum(ranked.get(label, 0.0) for label in group), ranked


_loading = threading.Lock()


def _model() -> Any:
    with _loading:
        return _loaded()


@cache
def _loaded() -> Any:
    """py3langid's own model (Lui and Baldwin 2012, retrained), of 139 languages, 0.1 GB.

    It is kept to those with a two-letter code and its class of no language: the others are
    dialects, creoles and dead languages, which take probability from their great neighbours.
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    model.set_languages([label for label in model.labels if len(label) == 2 or label == "zxx"])
    return model
