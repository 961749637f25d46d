"""Cues to utterances: joined and cut at sentence ends, pauses and a maximum length."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from vsa_core.config import Segments, Settings, fingerprint
from vsa_core.cues import Cue, Word, cues_of
from vsa_core.errors import StoreError
from vsa_core.progress import Steps
from vsa_core.schemas import CORPUS, table_from_rows
from vsa_core.sentences import (
    closes_phrase,
    ends_clause,
    ends_sentence,
    joins,
    pieces,
    without_stops,
)
from vsa_core.store import Store, TableRef

# Overlapping cues that start this close to one another are spoken at the same time.
_TOGETHER_MS = 500
# A gap at which a sentence that is too long may be cut rather than between any two words.
_BREATH_MS = 200
# Half the speed of ordinary speech (15 characters per second), and some time to draw breath in.
_SLOW_MS_PER_CHARACTER = 150
_LINGER_MS = 1_500
_FIRST_WIDE = "\u2e80"  # from here on (Chinese, Japanese, Korean) a character is a syllable or more


@dataclass(frozen=True, slots=True)
class Utterance:
    """One stretch of speech to be labelled.

    Attributes:
        start_ms, end_ms: from the start of the video; start_ms < end_ms.
        text: what is said, on one line, never empty.
        speaker: who says it; None where nobody is named.
    """

    start_ms: int
    end_ms: int
    text: str
    speaker: str | None = None


def utterances(cues: Iterable[Cue], settings: Segments) -> list[Utterance]:
    """The utterances of a video, in order and without overlap; no word is lost or moved.

    An utterance is one sentence. It also ends where nobody speaks for longer than `pause_ms`, and
    where another speaker is named. One longer than `max_ms` is cut, best after a clause or at a
    breath, into parts of about the same length; only a single word can be longer, or one character
    of a script without spaces. One shorter than `min_ms` is joined to the nearer neighbour, the
    later one when both are as near, unless a pause or another speaker lies between, or both
    together are longer than `max_ms`. Times inside a cue are its words' where it has them, else
    they go by the number of characters, but not slower than anybody speaks.

    Args:
        cues: in any order; where they overlap, the earlier one ends as the later one starts.
        settings: `min_ms`, `max_ms` and `pause_ms`.
    """
    tokens = _tokens(cues)
    parts = [
        part
        for sentence in _sentences(tokens, settings.pause_ms)
        for part in _parts(tokens, sentence, settings.max_ms)
    ]
    return [
        Utterance(
            tokens[piece.start].start_ms,
            tokens[piece.stop - 1].end_ms,
            _text(tokens[piece.start : piece.stop]),
            tokens[piece.start].speaker,
        )
        for piece in _joined(tokens, list(_lasting(tokens, parts)), settings)
    ]


def _text(tokens: Iterable[_Token]) -> str:
    return "".join(" " * token.space + token.text for token in tokens).lstrip()


# --- cues to tokens -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Token:
    """The smallest thing that is never cut.

    Attributes:
        space: whether one stands before it.
        word: whether it begins a word, as far as can be told.
        closes: whether a cue that stands for a sentence ends with it.
        speaker: who says it; None where nobody is named.
        turn: whether somebody is named who did not speak before it.
    """

    start_ms: int
    end_ms: int
    text: str
    space: bool
    word: bool
    closes: bool = False
    speaker: str | None = None
    turn: bool = False


def _tokens(cues: Iterable[Cue]) -> list[_Token]:
    """Tokens whose times never run backwards or overlap; each lasts 1 ms where there is room."""
    cues = list(cues)
    by_cue = without_stops([cue.text for cue in cues])
    found: list[_Token] = []
    at = 0
    for start_ms, end_ms, spoken in _apart(cues):
        before = found[-1].text if found else ""
        for token in _spread(spoken, start_ms, end_ms):
            start = max(at, token.start_ms)
            at = max(start, token.end_ms)
            space = token.space and not joins(before, token.text)
            last = found[-1].speaker if found else None
            turn = token.speaker not in (None, last)
            found.append(replace(token, start_ms=start, end_ms=at, space=space, turn=turn))
            before = ""
        if by_cue and found and not spoken[-1].words and closes_phrase(found[-1].text):
            found[-1] = replace(found[-1], closes=True)
    for index, token in enumerate(found):
        if token.end_ms == token.start_ms and (
            index + 1 == len(found) or found[index + 1].start_ms > token.start_ms
        ):
            found[index] = replace(token, end_ms=token.start_ms + 1)
    return found


def _apart(cues: Iterable[Cue]) -> Iterator[tuple[int, int, list[Cue]]]:
    """Cues in order as (start, end, what is spoken between), none overlapping the next."""
    held: tuple[int, int, list[Cue]] | None = None
    for cue in sorted(cues, key=lambda cue: cue.start_ms):
        end_ms = max(cue.end_ms, cue.start_ms + 1)
        if held is not None and cue.start_ms < held[1]:
            if cue.start_ms - held[0] < _TOGETHER_MS:
                held[2].append(cue)
                held = (held[0], max(held[1], end_ms), held[2])
                continue
            held = (held[0], cue.start_ms, held[2])
        if held is not None:
            yield held
        held = (cue.start_ms, end_ms, [cue])
    if held is not None:
        yield held


def _spread(spoken: Sequence[Cue], start_ms: int, end_ms: int) -> Iterator[_Token]:
    """Tokens of what is spoken in a span; times by words, else by characters."""
    if len(spoken) == 1 and spoken[0].words:
        for word, space in _spaced_words(spoken[0]):
            first, last = (min(max(ms, start_ms), end_ms) for ms in (word.start_ms, word.end_ms))
            tokens = _by_characters(word.text, first, max(first, last))
            for number, token in enumerate(tokens):
                space = space or number > 0
                yield replace(token, space=token.space and space, speaker=spoken[0].speaker)
        return
    lengths = [len(cue.text) + 1 for cue in spoken]
    end_ms = min(end_ms, start_ms + _longest_ms(" ".join(cue.text for cue in spoken)))
    done, at, before = 0, start_ms, ""
    for cue, length in zip(spoken, lengths, strict=True):
        done += length
        until = start_ms + (end_ms - start_ms) * done // sum(lengths)
        for token in _by_characters(cue.text, at, until):
            space = token.space and not joins(before, token.text)
            yield replace(token, space=space, speaker=cue.speaker)
            before = ""
        at, before = until, cue.text


def _spaced_words(cue: Cue) -> Iterator[tuple[Word, bool]]:
    """A cue's words, and whether a space stands before each: in the cue's text, else by script."""
    at, before = 0, ""
    for word in cue.words:
        bare = word.text.strip()
        found = cue.text.find(bare, at)
        skipped = cue.text[at:found] if found >= 0 else "?"
        if skipped.strip():  # the words are not those of the text
            space = not joins(before, bare)
        else:
            space = bool(skipped) or not before
            at = found + len(bare)
        yield word, space
        before = bare or before


def _longest_ms(text: str) -> int:
    """How long a text can take to be said; captions often stand on until the next one comes."""
    wide = sum(character >= _FIRST_WIDE for character in text)
    return _LINGER_MS + _SLOW_MS_PER_CHARACTER * (len(text) + 2 * wide)


def _by_characters(text: str, start_ms: int, end_ms: int) -> Iterator[_Token]:
    parts = list(pieces(text))
    total = sum(len(part.text) + part.spaced for part in parts)
    done, at = 0, start_ms
    for part in parts:
        done += len(part.text) + part.spaced
        until = start_ms + (end_ms - start_ms) * done // total
        yield _Token(at, until, part.text, part.spaced, part.word)
        at = until


# --- tokens to sentences ------------------------------------------------------------------


def _sentences(tokens: Sequence[_Token], pause_ms: int) -> Iterator[range]:
    """Runs of tokens that end with every sentence and at every pause."""
    first = 0
    for number, (token, following) in enumerate(pairwise(tokens), 1):
        if (
            following.start_ms - token.end_ms > pause_ms
            or token.closes
            or following.turn
            or ends_sentence(token.text, following.text, spaced=following.space)
        ):
            yield range(first, number)
            first = number
    if tokens:
        yield range(first, len(tokens))


# --- sentences to parts of bounded length -------------------------------------------------


def _parts(tokens: Sequence[_Token], sentence: range, max_ms: int) -> Iterator[range]:
    """A sentence in as few parts as the longest length allows, of about the same length."""
    first, last = sentence.start, sentence.stop - 1
    while first < last and tokens[last].end_ms - tokens[first].start_ms > max_ms:
        start_ms = tokens[first].start_ms
        left_ms = tokens[last].end_ms - start_ms
        aim_ms = left_ms / math.ceil(left_ms / max_ms)
        best, best_rank = first, (3, 0.0)
        for index in range(first, last):
            length_ms = tokens[index].end_ms - start_ms
            if length_ms > max_ms:
                break
            token, following = tokens[index], tokens[index + 1]
            clause = ends_clause(token.text, following.text, spaced=following.space)
            breath = following.start_ms - token.end_ms >= _BREATH_MS
            enough = length_ms >= aim_ms / 2
            # Where words have no spaces, where they begin is a guess: a good one is near enough.
            word = following.space or (following.word and enough)
            place = 0 if (clause or breath) and enough else 1 if word else 2
            rank = (place, abs(length_ms - aim_ms))
            if rank < best_rank:
                best, best_rank = index, rank
        yield range(first, best + 1)
        first = best + 1
    yield range(first, last + 1)


# --- parts to utterances ------------------------------------------------------------------


def _lasting(tokens: Sequence[_Token], pieces: Iterable[range]) -> Iterator[range]:
    """Pieces that all last at least 1 ms; one without room joins the next, at the same moment."""
    first: int | None = None
    for piece in pieces:
        first = piece.start if first is None else first
        if tokens[piece.stop - 1].end_ms > tokens[first].start_ms:
            yield range(first, piece.stop)
            first = None


def _joined(tokens: Sequence[_Token], pieces: Sequence[range], settings: Segments) -> list[range]:
    """Pieces, those that are too short joined to a neighbour where that is allowed."""

    def length_ms(piece: range) -> int:
        return tokens[piece.stop - 1].end_ms - tokens[piece.start].start_ms

    def gap_ms(left: range, right: range) -> int:
        return tokens[right.start].start_ms - tokens[left.stop - 1].end_ms

    def fit(left: range, right: range) -> bool:
        if tokens[right.start].turn or gap_ms(left, right) > settings.pause_ms:
            return False
        return length_ms(range(left.start, right.stop)) <= settings.max_ms

    done: list[range] = []
    for piece in [*pieces, None]:
        if done and length_ms(done[-1]) < settings.min_ms:
            short = done[-1]
            before = done[-2] if len(done) > 1 and fit(done[-2], short) else None
            after = piece if piece is not None and fit(short, piece) else None
            if after and not (before and gap_ms(before, short) < gap_ms(short, after)):
                done[-1] = range(short.start, after.stop)
                continue
            if before:
                done[-2:] = [range(before.start, short.stop)]
        if piece is not None:
            done.append(piece)
    return done


def made_from_transcript(transcript: str, settings: Settings) -> str:
    """Fingerprint of the segments cut from a transcript of this fingerprint.

    A corpus says itself what an utterance is: its transcripts are not cut by any setting.
    """
    if transcript.startswith(CORPUS):
        return fingerprint("segment/corpus", transcript)
    return fingerprint("segment/2", transcript, settings.segments.model_dump(mode="json"))


def segment(video_id: str, settings: Settings, store: Store, steps: Steps) -> TableRef:
    """Cut a video's transcript into utterances, into the segments table.

    Those of a corpus are utterances already, one a cue.

    Raises:
        StoreError: the video has no transcript in the store.
    """
    transcript = store.find("transcripts", video_id)
    if transcript is None:
        raise StoreError(f"video {video_id} has no transcript in {store.location}: run it again")
    made_from = made_from_transcript(transcript.fingerprint, settings)
    ref = store.fresh("segments", video_id, made_from)
    if ref is not None:
        return ref
    cues = store.read(transcript).to_pylist()
    spoken = cues_of(cues)
    if transcript.fingerprint.startswith(CORPUS):
        cut = [Utterance(cue.start_ms, cue.end_ms, cue.text, cue.speaker) for cue in spoken]
    else:
        cut = utterances(spoken, settings.segments)
    rows = [
        {
            "video_id": video_id,
            "segment_id": f"{video_id}-{utterance.start_ms}-{utterance.end_ms}",
            "index": index,
            "start_ms": utterance.start_ms,
            "end_ms": utterance.end_ms,
            "text": utterance.text,
            "speaker": utterance.speaker,
            "text_source": cues[0]["text_source"],
            "language": cues[0]["language"],
        }
        for index, utterance in enumerate(cut)
    ]
    # What was predicted of other segments must not outlive them.
    for table in ("predictions", "embeddings"):
        store.discard(table, video_id)
    steps.reach(1.0)
    return store.commit("segments", video_id, table_from_rows("segments", rows), made_from)
