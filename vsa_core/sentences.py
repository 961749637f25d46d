"""Where a text may be cut and where its sentences end, in any script; no times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import regex  # for Unicode's own scripts, sentence ends and grapheme clusters

CLOSING = "\"'”’“‘»«)]}」』）】〕》〉*_"  # at the end of a word every quote closes
OPENING = "\"'“‘”’«»([{„‚¿¡「『（【〔《〈*_"

# Unicode's sentence ends in every script, but the Burmese comma it counts among them; and the
# ellipsis. Greek asks with a semicolon.
_END = regex.compile(r"[\p{Sentence_Terminal}…--\u104a]$", regex.V1)
_GREEK_QUESTION = regex.compile(r"\p{Greek}[;\u037e]$")
_CLAUSE_END = regex.compile(r"[\p{Terminal_Punctuation}–—―…]$")
# Scripts that put no space between words: those that cut by dictionary (Thai, Lao, Khmer,
# Burmese, …) and Chinese and Japanese.
_UNSPACED = regex.compile(r"[\p{Line_Break=SA}\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}々〆ー]")
# Those of them that do without spaces altogether; with their marks, nothing stands between two.
_EASTERN = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}々〆ー]")
_JOINS = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}々〆ー\u3000-\u303f\uff00-\uffef]"
)
# What a Japanese or Chinese phrase goes on after: particles of the subject and the object, commas.
_CARRIES_ON = regex.compile(r"[はをにへがとも、，,—―～〜]$")
# Spaces stand between sentences and clauses there, and nothing else ends them.
_BY_SPACE = regex.compile(r"[\p{Thai}\p{Lao}]")
# Words that go on with what was said before the space: and, but, or, because, which, that, …
_GOES_ON = regex.compile(r"และ|แต่|หรือ|เพราะ|ซึ่ง|ที่|โดย|ว่า|ก็|จึง|เพื่อ|กับ|ๆ|ฯ|ແລະ|ແຕ່|ຫຼື|ເພາະ|ທີ່|ວ່າ|ກໍ|ເພື່ອ|ໆ")
_HELD = regex.compile(r"[ๆฯໆຯ]$")  # a repetition or an abbreviation; its space ends nothing

# --- what a full stop can follow without ending a sentence --------------------------------

# Always, before a number, before a small letter. A dotted initialism (U.S., e.g., z. B.) never
# ends one: its dots tell nothing.
_TITLES = regex.compile(
    r"mrs?|ms|mx|dr|prof|rev|hon|st|sgt|lt|capt|col|gen|gov|sen|rep|pres|mt|vs|approx|ph\.d|"
    r"mme|mlle|sra?|dra|sig|dott|uds?|ee|bzw|bijv|np|tzn|ej"
)
_COUNTED = regex.compile(
    r"nos?|nr|pp?|vol|art|sec|fig|ch|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|núm|стр|рис"
)
_TRAILING = regex.compile(r"etc|inc|ltd|corp|co|bros|jr|dept|est|usw|itd|vb|uu|[ap]\.m")
_INITIALS = regex.compile(r"[^\W\d_](?:\.[^\W\d_])*")
# "am 3. Mai", "3. května": a day, numbered as German, Czech and others do.
_DAY = regex.compile(r"[0-3]?\d")
_MONTH = regex.compile(
    r"(?:januar|jänner|februar|märz|mai|juni|juli|oktober|dezember)\b", regex.IGNORECASE
)


def ends_sentence(word: str, following: str, *, spaced: bool) -> bool:
    """Whether a sentence ends between two neighbouring words.

    Args:
        word, following: as `pieces` gives them, with their punctuation.
        spaced: whether a space stands between them.
    """
    bare = word.rstrip(CLOSING)
    if spaced and _BY_SPACE.search(bare[-1:]) and _BY_SPACE.match(following):
        return not (_HELD.search(bare) or _GOES_ON.match(following))
    if not _END.search(bare):
        return spaced and _GREEK_QUESTION.search(bare) is not None
    next_letter = following.lstrip(OPENING)[:1]
    unspaced = _UNSPACED.match(next_letter) is not None
    if not spaced and bare[-1] in ".!?…" and not (unspaced and bare[-1] != "…"):
        return False  # one word in two pieces, "example" and ".com"; 我…不知道
    if next_letter.islower() and (bare != word or bare.endswith(("…", ".."))):
        return False  # “Really?” she said; well … maybe
    if bare != word and not spaced and following.startswith(("と", "って", "なんて")):
        return False  # 「はい。」と言った
    if not bare.endswith(".") or bare.endswith("..") or _is_unspaced(bare):
        return True
    return not _abbreviated(bare[:-1].lstrip(OPENING).casefold(), following, next_letter)


def _abbreviated(stem: str, following: str, next_letter: str) -> bool:
    if _COUNTED.fullmatch(stem):
        return next_letter.isdigit() or following.startswith("ej.")  # p. ej.
    if _TRAILING.fullmatch(stem):
        return not next_letter.isupper()
    if _DAY.fullmatch(stem):
        return next_letter.islower() or _MONTH.match(following) is not None
    titled = _TITLES.fullmatch(stem) or _INITIALS.fullmatch(stem)
    return stem != "i" and titled is not None


def without_stops(texts: Sequence[str]) -> bool:
    """Whether the Chinese and Japanese captions among some are written without full stops.

    They are by convention, as subtitles: then a cue is a phrase, and a full stop is understood.
    """
    eastern = [text for text in texts if _EASTERN.search(text)]
    return 20 * sum("。" in text or "｡" in text for text in eastern) < len(eastern)


def closes_phrase(word: str) -> bool:
    """Whether a phrase may be over with the last word of a Chinese or Japanese cue."""
    return _EASTERN.search(word) is not None and _CARRIES_ON.search(word) is None


def ends_clause(word: str, following: str, *, spaced: bool) -> bool:
    """Whether a speaker may draw breath between two neighbouring words."""
    if spaced and _is_unspaced(word[-1:]) and _is_unspaced(following[:1]):
        return True  # where words have no spaces, a space is punctuation
    return _CLAUSE_END.search(word.rstrip(CLOSING)) is not None


def _is_unspaced(text: str) -> bool:
    return _UNSPACED.search(text) is not None


def joins(left: str, right: str) -> bool:
    """Whether a text goes on in another without a space, as Chinese and Japanese do."""
    return bool(left and right) and bool(_JOINS.match(left[-1]) and _JOINS.match(right[0]))


# --- pieces of a text ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Piece:
    """The smallest part of a text that is never cut: a word, or a character where words are not.

    Attributes:
        text: without spaces, never empty.
        spaced: whether a space stands before it; of a text's first piece always.
        word: whether it begins a word, as far as can be told without a dictionary.
    """

    text: str
    spaced: bool
    word: bool


def pieces(text: str) -> Iterator[Piece]:
    """The pieces of a text in order; all of them together are the text but for its spaces.

    Words of spaced scripts are whole, and cut only behind a full stop or comma that their script
    does not write inside words. Those of others are cut between grapheme clusters, but never
    before what cannot begin a line (closing marks, small kana, vowels of the letter before), nor
    behind what cannot end one.
    """
    for word in text.split():
        if word.isascii() or not (_UNSPACED.search(word) or _INNER_STOP.search(word)):
            yield Piece(word, spaced=True, word=True)
            continue
        clusters = regex.findall(r"\X", word)
        held, begins, first = clusters[0], True, True
        for left, right in pairwise(clusters):
            if _may_part(held, left, right):
                yield Piece(held, spaced=first, word=begins)
                held, begins, first = right, _begins_word(left, right), False
            else:
                held += right
        yield Piece(held, spaced=first, word=begins)


# Sentence and clause ends beyond ASCII stand inside no word, but between digits (１．５).
_INNER_STOP = regex.compile(r"[\p{Terminal_Punctuation}--[\x00-\x7f]](?=\w)", regex.V1)
_STOPPED = regex.compile(r"[\p{Terminal_Punctuation}--[\x00-\x7f]]\W*$", regex.V1)
_NO_START = regex.compile(
    r"[\p{M}\p{Pe}\p{Pf}\p{Terminal_Punctuation}…‥—―～〜・％%々〻ーｰゝゞヽヾ"
    r"ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶㇰ-ㇿ\"'*_"
    r"ะาำๅๆฯະາຳໆຯៗ]"
)
_NO_END = regex.compile(r"[\p{Ps}\p{Pi}¿¡#$￥¥£€\"'*_っッเ-ไເ-ໄ\u17d2\u1039]$")
_KILLED = "\u103a"  # a Burmese consonant with it closes the syllable before
_LEADING_VOWEL = regex.compile(r"[เ-ไເ-ໄ]")


def _may_part(held: str, left: str, right: str) -> bool:
    """Whether a word may be cut between two clusters; `held` is its piece as far as `left`."""
    if _cannot_start(right):
        return False
    if _cannot_end(left) or not _either_unspaced(left, right):
        return _behind_stop(held, right)
    return True


@lru_cache(4096)
def _cannot_start(cluster: str) -> bool:
    return _NO_START.match(cluster) is not None or _KILLED in cluster


@lru_cache(4096)
def _cannot_end(cluster: str) -> bool:
    return _NO_END.search(cluster) is not None or cluster.isdigit()


@lru_cache(65536)
def _either_unspaced(left: str, right: str) -> bool:
    return _is_unspaced(left) or _is_unspaced(right)


def _behind_stop(held: str, right: str) -> bool:
    in_number = right.isdigit() and held[-2:-1].isdigit()
    return not in_number and _STOPPED.search(held) is not None


# --- where a word may begin ---------------------------------------------------------------

_PARTICLE = regex.compile(r"[的了吗嗎呢吧啊呀嘛着著过過]$")
_KANA = regex.compile(r"\p{Hiragana}$")
_NOT_KANA = regex.compile(r"[\p{Han}\p{Katakana}]")


@lru_cache(65536)
def _begins_word(left: str, right: str) -> bool:
    """Behind a mark or a Chinese particle, where kana turn to kanji, before a leading vowel."""
    return (
        not _is_unspaced(left)
        or not _is_unspaced(right)
        or _PARTICLE.search(left) is not None
        or (_KANA.search(left) is not None and _NOT_KANA.match(right) is not None)
        or _LEADING_VOWEL.match(right) is not None
    )
