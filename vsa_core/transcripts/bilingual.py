"""Captions that show two languages at once: which lines are whose, and the one that is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import regex

from vsa_core.language import detect, mistagged, near, script
from vsa_core.transcripts.caption_formats import Shown

_MOST = 0.6  # of the cues show both languages
_SCRIPTS = {
    "Latn": "Latin", "Cyrl": "Cyrillic", "Grek": "Greek", "Arab": "Arabic", "Hebr": "Hebrew",
    "Thai": "Thai", "Deva": "Devanagari", "Kore": "Hangul",
}  # fmt: skip
_LETTERS = {
    **{script: regex.compile(rf"\p{{{name}}}") for script, name in _SCRIPTS.items()},
    "Hani": regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]"),
}


def one_language(
    shown: Sequence[Shown], languages: Sequence[str]
) -> tuple[list[Shown], str | None] | None:
    """The cues with the lines of one language, and its tag; None where there is one only.

    Two languages are told by their scripts, or, where the upper and the lower half of the lines
    are plainly in different ones, by their place.

    Args:
        shown: in order; cues of the very same time are looked at together.
        languages: wanted ones, in order; the first that is there is read, else the upper one.
    """
    together: dict[tuple[int, int], list[str]] = {}
    for cue in shown:
        together.setdefault((cue.start_ms, cue.end_ms), []).extend(text for text, _ in cue.lines)
    groups = list(together.values())
    scripts = _two_scripts(groups)
    if scripts:
        lines = [line for group in groups for line in group]
        sides = [[line for line in lines if script_of(line) == script] for script in scripts]
        said = [detect(" ".join(side)) for side in sides]
    else:
        halves = [group for group in groups if group and len(group) % 2 == 0]
        if len(halves) < max(2, _MOST * len(groups)):
            return None
        sides = [
            [line for group in halves for line in group[: len(group) // 2]],
            [line for group in halves for line in group[len(group) // 2 :]],
        ]
        upper = detect(" ".join(sides[0]))
        lower = mistagged(upper, sides[1]) if upper else None
        if lower is None or mistagged(lower, sides[0]) is None:
            return None
        said = [upper, lower]
    place = _wanted(said, scripts, languages)
    others = set(sides[1 - place]) - set(sides[place])
    chosen = []
    for cue in shown:
        if own := [line for line in cue.lines if line[0] not in others]:
            chosen.append(replace(cue, lines=own, styled=frozenset()))
    like = [tag for tag in languages if scripts and _script(tag) == scripts[place]]
    return chosen, said[place] or next(iter(like), None)


def script_of(text: str) -> str | None:
    """The script that most letters of a text are of; None where there is no letter."""
    counts = {script: len(letters.findall(text)) for script, letters in _LETTERS.items()}
    best = max(counts, key=lambda script: counts[script])
    return best if counts[best] else None


def _script(tag: str) -> str:
    """The script a language is written in, as `script_of` names it."""
    written = script(tag)
    return "Hani" if written in {"Hans", "Hant", "Jpan"} else written


def _two_scripts(groups: Sequence[Sequence[str]]) -> list[str]:
    """The scripts of two languages, the upper one first; empty where lines are all of one."""
    pairs: Counter[tuple[str, ...]] = Counter()
    for lines in groups:
        found = tuple(dict.fromkeys(script for line in lines if (script := script_of(line))))
        if len(found) == 2:
            pairs[found] += 1
    if not pairs:
        return []
    (pair, _), *_ = pairs.most_common(1)
    both = pairs[pair] + pairs[pair[::-1]]
    return list(pair) if both >= max(2, _MOST * len(groups)) else []


def _wanted(said: Sequence[str | None], scripts: Sequence[str], languages: Sequence[str]) -> int:
    """Which of two languages is the first wanted one; the upper one where neither is."""
    for wanted in languages:
        for place, language in enumerate(said):
            if near(language, wanted) if language else scripts[place] == _script(wanted):
                return place
    return 0
