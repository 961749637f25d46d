"""From what stands on the screen to what is said: no rolling repeats, sounds or speakers."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from vsa_core.cues import Cue, Word
from vsa_core.transcripts.caption_formats import Mark, Shown

_HOLD_MS = 50  # YouTube shows the finished line alone for 10 ms before the next one rolls in
_NO_BREAK_MS = 200  # cues closer than this follow one another without a break on the screen


def _is_hold(cue: Shown) -> bool:
    return cue.end_ms - cue.start_ms <= _HOLD_MS


def in_order(shown: Iterable[Shown]) -> list[Shown]:
    """By start, each thing once: effects (outline, shadow) are often a second, equal cue."""
    unique: dict[tuple[object, ...], Shown] = {}
    for cue in sorted(shown, key=lambda cue: (cue.start_ms, cue.end_ms)):
        unique.setdefault((cue.start_ms, cue.end_ms, *cue.texts()), cue)
    return list(unique.values())


def rolls(shown: Sequence[Shown]) -> bool:
    """Whether a file shows lines again as new ones come in below them.

    A repeat alone is no roll (a chorus repeats): either the line is held alone for a moment, or
    it moves up while another one takes its place.
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
    return rolled >= 2 and rolled >= (len(shown) - 1) / 2


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


# --- one cue ------------------------------------------------------------------------------

_NOTES = "♪♫♬♩🎵🎶"
_SUNG = re.compile(rf"[{_NOTES}]+[^{_NOTES}]*[{_NOTES}]+|[{_NOTES}]+[^{_NOTES}\n]*$", re.MULTILINE)
_BRACKETS = re.compile(r"(?:\[[^\[\]]*\]|［[^［］]*］|【[^【】]*】|（[^（）]*）)[ \t]*:?")
_PARENTHESES = re.compile(r"\(([^()]*)\)(?:[ \t]*:)?")
_PREFIX = re.compile(
    r"(?:(?P<turn>>{2,})|^)[ \t]*(?:[-–—]{1,3}(?!\d)[ \t]*)?"
    r"(?:(?P<name>[^\W\d_][\w .'&#-]{0,30}):(?=\s|$)(?P<alone>[ \t]*$)?)?",
    re.MULTILINE,
)
_SPEAKER = re.compile(r"speaker #?\w{1,3}", re.IGNORECASE)
_SOUND = re.compile(
    r"\b(?:applau\w+|cheer\w*|chuckl\w+|clapping|cough\w*|cry\w*|gasp\w*|giggl\w+|groan\w*|grunt\w*|"
    r"inaudible|indistinct|laugh\w*|music|playing|scream\w*|sigh\w*|silence|sing\w*|sniff\w*|sob\w*|"
    r"unintelligible|whisper\w*|whistl\w+)\b",
    re.IGNORECASE,
)


def spoken_cue(shown: Shown) -> Cue | None:
    """The spoken part of what was shown; None when nothing of it is speech."""
    marks, length = [], 0
    for text, line_marks in shown.lines:
        marks += [(length + offset, time_ms) for offset, time_ms in line_marks]
        length += len(text) + 1
    spoken = _blanked("\n".join(text for text, _ in shown.lines))
    if not any(character.isalnum() for character in spoken):
        return None
    words = _words(spoken, marks, shown.start_ms, shown.end_ms) if marks else ()
    return Cue(shown.start_ms, shown.end_ms, " ".join(spoken.split()), words)


def _blanked(text: str) -> str:
    """Sounds and speakers overwritten with spaces, so that marks keep their places."""
    text = _SUNG.sub(_spaces, text)
    text = _BRACKETS.sub(_spaces, text)
    outside = _PARENTHESES.sub("", text)

    def sound(match: re.Match[str]) -> str:
        words = match.group(1).split()
        is_sound = (
            match.group().endswith(":")
            or (len(match.group(1)) > 1 and match.group(1).isupper())
            or (len(words) <= 5 and _SOUND.search(match.group(1)))
            or (len(words) <= 3 and not outside.strip())
        )
        return _spaces(match) if is_sound else match.group()

    text = _PARENTHESES.sub(sound, text)
    shouted = text.isupper()

    def prefix(match: re.Match[str]) -> str:
        name = match.group("name")
        if name is None or _SPEAKER.fullmatch(name):
            return _spaces(match)
        # Where everything is in capitals, "HE SAID: …" looks like a name too.
        is_name = name.isupper() and (not shouted or match.group("alone") is not None)
        if is_name or (match.group("turn") and (name.isupper() or name.istitle())):
            return _spaces(match)
        start = match.start("name") - match.start()
        return " " * start + match.group()[start:]

    return _PREFIX.sub(prefix, text)


def _spaces(match: re.Match[str]) -> str:
    return " " * len(match.group())


def _words(spoken: str, marks: Sequence[Mark], start_ms: int, end_ms: int) -> tuple[Word, ...]:
    """Words with times: a marked word starts at its mark, those between share the time evenly."""
    tokens = list(re.finditer(r"\S+", spoken))
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
