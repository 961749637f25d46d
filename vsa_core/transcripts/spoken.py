"""From what stands on the screen to what is said: once, by whom, without sounds and credits."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise

from vsa_core.cues import Cue, Word
from vsa_core.sentences import pieces
from vsa_core.transcripts.caption_formats import NAME, NAMED, Line, Mark, Shown

_HOLD_MS = 50  # YouTube shows the finished line alone for 10 ms before the next one rolls in
_NO_BREAK_MS = 200  # cues closer than this follow one another without a break on the screen


def _is_hold(cue: Shown) -> bool:
    return cue.end_ms - cue.start_ms <= _HOLD_MS


def in_order(shown: Iterable[Shown]) -> list[Shown]:
    """By start, each thing once.

    Effects (outline, shadow) are often a second, equal cue, and what is shown while one piece of
    a stream ends and the next begins stands in both.
    """
    unique: dict[tuple[object, ...], Shown] = {}
    for cue in sorted(shown, key=lambda cue: (cue.start_ms, cue.end_ms)):
        unique.setdefault((cue.start_ms, cue.end_ms, *cue.texts()), cue)
    found: list[Shown] = []
    for cue in unique.values():
        last = found[-1] if found else cue
        goes_on = cue.piece != last.piece and cue.start_ms - last.end_ms <= _NO_BREAK_MS
        if goes_on and cue.texts() == last.texts():
            last.end_ms = max(last.end_ms, cue.end_ms)
        else:
            found.append(cue)
    return found


# --- lines that roll ----------------------------------------------------------------------


def rolls(shown: Sequence[Shown], least: int = 2) -> bool:
    """Whether a file shows lines again as new ones come in below them.

    A repeat alone is no roll (a chorus repeats): either the line is held alone for a moment, or
    it moves up while another one takes its place.

    Args:
        shown: in order.
        least: so often; once may have been written by a person.
    """
    rolled = 0
    for before, after in pairwise(shown):
        if after.start_ms - before.end_ms > _NO_BREAK_MS:
            continue
        old, new = before.texts(), after.texts()
        overlap = _overlap(old, new, len(new))
        held = (_is_hold(before) or _is_hold(after)) and overlap > 0
        moved_up = 0 < overlap < len(new) and (overlap < len(old) or new[overlap] != old[-1])
        rolled += held or moved_up
    return rolled >= least and rolled >= (len(shown) - 1) / 2


def _overlap(old: Sequence[str], new: Sequence[str], at_most: int) -> int:
    """How many of the last old lines are the first new ones."""
    for count in range(min(len(old), at_most), 0, -1):
        if list(old[-count:]) == list(new[:count]):
            return count
    return 0


def unrolled(shown: Sequence[Shown]) -> Iterator[Shown]:
    """The new lines of each cue of a file that rolls."""
    old: list[str] = []
    old_end_ms = 0
    for cue in shown:
        new = cue.texts()
        # A line with times inside is being spoken now. And unless a cue is only held, or stands
        # as it stood, something in it is new: that keeps "No. / No." spoken again.
        marked = [number for number, (_, marks) in enumerate(cue.lines) if marks]
        at_most = marked[0] if marked else len(new)
        if not _is_hold(cue) and (len(new) > 1 and (new != old or len(set(new)) == 1)):
            at_most = min(at_most, len(new) - 1)
        if at_most == len(new) and cue.start_ms - old_end_ms > _NO_BREAK_MS:
            at_most = 0
        fresh = cue.lines[_overlap(old, new, at_most) :]
        if fresh:
            yield Shown(cue.start_ms, cue.end_ms, fresh)
        old, old_end_ms = new, cue.end_ms


# --- lines that are shown once for each of their words ------------------------------------

_SAYS_ON_MS = 1000  # between two words of one sentence
_FASTEST_MS = 40  # for a character; a line that is shown for less than it takes is not said in it
_FIRST_WIDE = "\u2e80"  # from here on a character is a syllable or more


def _whole_text(cue: Shown) -> str:
    return " ".join(cue.texts()).casefold()


def _said_on(before: Shown, after: Shown) -> bool:
    """Whether a cue shows what the one before it shows, or that and more."""
    return after.start_ms - before.end_ms <= _SAYS_ON_MS and _whole_text(after).startswith(
        _whole_text(before)
    )


def spells_out(shown: Sequence[Shown]) -> bool:
    """Whether a file shows its lines again for each word: the line grows, or a highlight moves.

    A line said twice is none: only a cue that is too short for its text to be said in it, whose
    highlight has moved, or that goes on growing tells; or a file in which each line is shown as
    often as it has words. One such cue is not enough.
    """
    certain = related = 0
    growing = False
    for before, after in pairwise(shown):
        if not _said_on(before, after):
            growing = False
            continue
        related += 1
        text = _whole_text(after)
        grew = text != _whole_text(before)
        wide = sum(character >= _FIRST_WIDE for character in text)
        too_short = after.end_ms - after.start_ms < _FASTEST_MS * (len(text) + 2 * wide)
        certain += too_short or (grew and growing) or (not grew and before.styled != after.styled)
        growing = grew
    if certain >= 2 and certain * 3 >= related:
        return True
    lines = [(text, len(list(cues))) for text, cues in groupby(shown, _whole_text)]
    words = [(text, count, len(list(pieces(text)))) for text, count in lines]
    by_word = {text for text, count, length in words if count == length >= 3}
    return len(by_word) >= 2 and all(count == length for _, count, length in words if length > 1)


def spelt(shown: Sequence[Shown]) -> Iterator[Shown]:
    """Each line of a file that spells them out, once each time it is said, its words marked."""
    run: list[Shown] = []
    for cue in shown:
        if run and not _said_on(run[-1], cue):
            yield from _sayings(run)
            run = []
        run.append(cue)
    yield from _sayings(run)


def _sayings(run: Sequence[Shown]) -> Iterator[Shown]:
    """One cue for each time that a line is said, of those that show it.

    It is said again where the highlight goes back, or, without one, where it is shown several
    times as often as it has words.
    """
    if not run:
        return
    text = _whole_text(run[-1])
    grows = _whole_text(run[0]) != text
    shared = frozenset.intersection(*(cue.styled for cue in run))
    # Where the highlight begins: the first change of style that others do not share.
    places = [min(cue.styled - shared, default=None) for cue in run]
    highlighted = any(place is not None for place in places)
    words = len(list(pieces(text)))
    first, reached = 0, -1
    for number, place in enumerate(places):
        if grows:
            again = False
        elif highlighted:
            again = place is not None and place < reached
        else:
            again = number > 0 and len(run) % words == 0 and number % words == 0
        if again:
            yield _saying(run[first:number], places[first:number], grows=grows, words=words)
            first = number
        reached = reached if place is None else place
    yield _saying(run[first:], places[first:], grows=grows, words=words)


def _saying(
    cues: Sequence[Shown], places: Sequence[int | None], *, grows: bool, words: int
) -> Shown:
    """One cue of those that show a line; a word is marked where the line reached it."""
    last = cues[-1]
    joined = "\n".join(text for text, _ in last.lines)
    found = list(re.finditer(r"\S+", joined))
    marks: list[Mark] = []
    if grows:
        marks = [
            (_at_letter(joined, len("".join("".join(before.texts()).split()))), cue.start_ms)
            for before, cue in pairwise(cues)
        ]
    elif any(place is not None for place in places):
        marks = [
            (place, cue.start_ms)
            for cue, place in zip(cues, places, strict=True)
            if place is not None
        ]
    elif len(cues) == words == len(found):
        marks = [(word.start(), cue.start_ms) for word, cue in zip(found, cues, strict=True)]
    lines: list[Line] = []
    begins = 0
    for text, _ in last.lines:
        ends = begins + len(text)
        own = tuple((at - begins, time) for at, time in marks if begins <= at < ends)
        lines.append((text, own))
        begins = ends + 1
    return Shown(cues[0].start_ms, last.end_ms, lines)


def _at_letter(text: str, letters: int) -> int:
    """The offset behind so many characters that are no spaces."""
    for offset, character in enumerate(text):
        letters -= not character.isspace()
        if letters < 0:
            return offset
    return len(text)


# --- who speaks ---------------------------------------------------------------------------

_COLON = r"(?::(?=\s|$)|：)"
_NAMED_LINE = re.compile(
    rf"(?:>{{2,}}|[-–—])?[ \t]*(?P<name>[^\W\d_][\w .'’&#()/-]{{0,40}}?)[ \t]*{_COLON}"
)
# What stands before a colon and is no name, whatever it looks like.
_NO_NAMES = {
    "achtung", "again", "also", "answer", "attention", "breaking", "caption", "captions",
    "caution", "chapter", "conclusion", "credit", "credits", "danger", "date", "edit",
    "ejemplo", "example", "fact", "finally", "first", "fyi", "headline", "hint", "hinweis",
    "however", "important", "ingredients", "lesson", "location", "lyrics", "method", "music",
    "news", "next", "nota", "note", "notes", "part", "please", "problem", "ps", "psa",
    "question", "reason", "remember", "result", "results", "rule", "second", "section",
    "solution", "source", "sources", "spoiler", "step", "subtitle", "subtitles", "summary",
    "then", "third", "time", "tip", "tips", "title", "today", "tomorrow", "translation",
    "update", "warning", "yesterday", "con", "cons", "price", "pro", "pros", "verdict",
}  # fmt: skip
_PARTICLES = {
    "al", "and", "bin", "da", "de", "del", "della", "den", "der", "di", "du", "el", "la", "le",
    "van", "von", "y",
}  # fmt: skip


def speakers(shown: Sequence[Shown]) -> frozenset[str]:
    """The names of those who speak, where a file puts one before most of what is said.

    Minutes of meetings do. A name stands there again and again, or is one of several words; what
    only introduces a sentence ("Note:") is none, and names before few lines are left alone.
    """
    found: Counter[str] = Counter()
    begun = 0
    for cue in shown:
        names = [match["name"] for text in cue.texts() if (match := _NAMED_LINE.match(text))]
        names = [name for name in names if _first_word(name) not in _NO_NAMES]
        found.update(names)
        begun += bool(names)
    if begun < 2 or begun < 0.6 * len(shown):
        return frozenset()
    again = sum(count for count in found.values() if count > 1) >= 0.5 * found.total()
    return frozenset(
        name
        for name, count in found.items()
        if (count > 1 and len(name.split()) == 1)
        or (_is_titled(name) and (count > 1 or again or len(name.split()) > 1))
    )


def _first_word(name: str) -> str:
    return name.split()[0].rstrip(".").casefold()


def _is_titled(name: str) -> bool:
    """Whether each word of a name has a capital, but those that stand within names."""
    return all(
        word in _PARTICLES or word.lstrip("(#")[:1].isupper() or word.lstrip("(#")[:1].isdigit()
        for word in name.split()
    )


# --- one cue ------------------------------------------------------------------------------

_NOTES = "♪♫♬♩🎵🎶"
_SUNG = re.compile(rf"[{_NOTES}]+[^{_NOTES}]*[{_NOTES}]+|[{_NOTES}]+[^{_NOTES}\n]*$", re.MULTILINE)
_BRACKETS = re.compile(r"(?:\[([^\[\]]*)\]|［[^［］]*］|【[^【】]*】|（[^（）]*）)(?:[ \t]*[:：])?")
_PARENTHESES = re.compile(r"(?P<first>^[ \t>–—-]*)?\(([^()]*)\)(?:[ \t]*:)?", re.MULTILINE)
_VOICE = re.compile(rf"{NAME}([^{NAMED}]*){NAMED}")
_PREFIX = re.compile(
    r"(?:(?P<turn>>{2,})|^)[ \t]*(?P<dash>[-–—]{1,3}(?!\d)[ \t]*)?"
    rf"(?:(?P<name>[^\W\d_][\w .'’&#()/-]{{0,40}}?)[ \t]*{_COLON}(?P<alone>[ \t]*$)?)?",
    re.MULTILINE,
)
_SPEAKER = re.compile(r"speaker[ _]?#?\w{1,3}", re.IGNORECASE)
_SOUND = re.compile(
    r"\b(?:applau\w+|cheer\w*|chuckl\w+|clapping|cough\w*|cry\w*|gasp\w*|giggl\w+|groan\w*|grunt\w*|"
    r"inaudible|indistinct|laugh\w*|music|playing|scream\w*|sigh\w*|silence|sing\w*|sniff\w*|sob\w*|"
    r"unintelligible|whisper\w*|whistl\w+)\b",
    re.IGNORECASE,
)
Turn = tuple[int, str | None]  # offset into a text, who speaks from there on


def spoken_cues(shown: Shown, names: frozenset[str] = frozenset()) -> list[Cue]:
    """The spoken part of what was shown, a cue for each who speaks; empty when nothing is speech.

    Args:
        shown: lines of one time.
        names: of `speakers`, taken before a colon wherever they stand at the start of a line.
    """
    marks, length = [], 0
    for text, line_marks in shown.lines:
        marks += [(length + offset, time_ms) for offset, time_ms in line_marks]
        length += len(text) + 1
    spoken, turns = _blanked("\n".join(text for text, _ in shown.lines), names)
    if not any(character.isalnum() for character in spoken):
        return []
    tokens = list(re.finditer(r"\S+", spoken))
    words = _words(spoken, tokens, marks, shown.start_ms, shown.end_ms)
    parts: list[tuple[int, str | None]] = [(0, None)]  # of words, with who speaks them
    for offset, name in turns:
        first = bisect_left(tokens, offset, key=lambda token: token.start())
        parts = [part for part in parts if part[0] < first]
        if not parts or parts[-1][1] != name:
            parts.append((first, name))
    cues = []
    for (first, name), (end, _) in pairwise([*parts, (len(words), None)]):
        text = " ".join(token.group() for token in tokens[first:end])
        if any(map(str.isalnum, text)):
            start_ms = words[first].start_ms if first else shown.start_ms
            end_ms = words[end].start_ms if end < len(words) else shown.end_ms
            own = words[first:end] if marks else ()
            cues.append(Cue(start_ms, max(end_ms, start_ms + 1), text, own, name))
    return cues


def _blanked(text: str, names: frozenset[str]) -> tuple[str, list[Turn]]:
    """Sounds and speakers overwritten with spaces, so that marks keep their places; who speaks."""
    turns: list[Turn] = []

    def voice(match: re.Match[str]) -> str:
        turns.append((match.end(), match[1]))
        return _spaces(match)

    text = _SUNG.sub(_spaces, _VOICE.sub(voice, text))

    def bracket(match: re.Match[str]) -> str:
        inside = (match[1] or "").strip()
        named = match[0].endswith((":", "：")) or _SPEAKER.fullmatch(inside)
        if named and inside and not _SOUND.search(inside):
            turns.append((match.end(), inside))
        return _spaces(match)

    text = _BRACKETS.sub(bracket, text)
    outside = _PARENTHESES.sub("", text)

    def sound(match: re.Match[str]) -> str:
        inside = match[2]
        words = inside.split()
        named = match["first"] is not None and match[0].endswith(":")
        is_sound = (
            named
            or (len(inside) > 1 and inside.isupper())
            or (len(words) <= 5 and _SOUND.search(inside))
            or (len(words) <= 3 and not outside.strip())
        )
        if named and words and not _SOUND.search(inside):
            turns.append((match.end(), " ".join(words)))
        return _spaces(match) if is_sound else match.group()

    text = _PARENTHESES.sub(sound, text)
    shouted = text.isupper()

    def prefix(match: re.Match[str]) -> str:
        name = match.group("name")
        if name is None:
            if match.group("turn") or match.group("dash"):
                turns.append((match.end(), None))
            return _spaces(match)
        # Where everything is in capitals, "HE SAID: …" looks like a name too.
        is_name = name.isupper() and (not shouted or match.group("alone") is not None)
        in_turn = match.group("turn") and (name.isupper() or _is_titled(name))
        known = name in names or _SPEAKER.fullmatch(name)
        if known or ((is_name or in_turn) and _first_word(name) not in _NO_NAMES):
            turns.append((match.end(), name))
            return _spaces(match)
        start = match.start("name") - match.start()
        return " " * start + match.group()[start:]

    text = _PREFIX.sub(prefix, text)
    if all(name is None for _, name in turns):
        return text, []
    return text, sorted(turns, key=lambda turn: turn[0])


def _spaces(match: re.Match[str]) -> str:
    return " " * len(match.group())


def _words(
    spoken: str, tokens: Sequence[re.Match[str]], marks: Sequence[Mark], start_ms: int, end_ms: int
) -> tuple[Word, ...]:
    """Words with times: a marked word starts at its mark, those between share the time evenly."""
    knots = {tokens[0].start(): start_ms}
    for offset, time_ms in marks:
        index = bisect_left(tokens, offset, key=lambda token: token.start())
        if index < len(tokens):
            knots[tokens[index].start()] = time_ms
    knots[len(spoken)] = end_ms
    places = sorted(knots)
    starts: list[int] = []
    for token in tokens:
        after = bisect_right(places, token.start())
        left, right = places[after - 1], places[after]
        share = (token.start() - left) / (right - left)
        time_ms = round(knots[left] + share * (knots[right] - knots[left]))
        starts.append(min(max(time_ms, *starts[-1:], start_ms), end_ms))
    return tuple(
        Word(start, min(following, start + _longest_ms(token.group())), token.group())
        for token, start, following in zip(tokens, starts, [*starts[1:], end_ms], strict=True)
    )


def _longest_ms(word: str) -> int:
    """How long a word may take; automatic captions stand until the next one comes."""
    digits = sum(character.isdigit() for character in word)
    return 500 + 70 * (len(word) + 2 * digits)
