"""Captions that show a line more than once: for each of its words, or at the borders of pieces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vsa_core.cues import Transcript
from vsa_core.transcripts.captions import read_captions

LINES = [
    "I really love this place.",
    "But the food was awful.",
    "No no no!",
    "We will not come back.",
]


def read(folder: Path, cues: list[tuple[int, int, str]], name: str = "talk.srt") -> Transcript:
    def clock(ms: int) -> str:
        return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02},{ms % 1000:03}"

    path = folder / name
    path.write_text(
        "\n".join(f"{n}\n{clock(a)} --> {clock(b)}\n{t}\n" for n, (a, b, t) in enumerate(cues, 1)),
        encoding="utf-8",
    )
    return read_captions(path)


def texts(found: Transcript) -> list[str]:
    return [cue.text for cue in found.cues]


def by_word(lines: list[str], word_ms: int, form: str) -> Iterator[tuple[int, int, str]]:
    """A cue for each word of each line, as the tools that mark the word being said write them."""
    at = 1000
    for line in lines:
        words = line.split()
        for n, word in enumerate(words):
            before, after = " ".join(words[:n]), " ".join(words[n + 1 :])
            shown = {
                "bare": line,
                "growing": " ".join(words[: n + 1]),
                "shouted": f"{before} {word.upper()} {after}",
                "two lines": f"{' '.join(words[:3])}\n{' '.join(words[3:])}",
                "growing lines": "\n".join(
                    [" ".join(words[: min(n + 1, 3)])] + [" ".join(words[3 : n + 1])] * (n > 2)
                ),
                "<u>": f"{before} <u>{word}</u> {after}",
                "<c>": f"{before} <c.now>{word}</c> {after}",
                "<font>": f"<font c=a>{before} <font c=b>{word}</font> {after}</font>",
                "{\\c}": f"{before} {{\\c&H00FF00&}}{word}{{\\c}} {after}",
            }[form]
            yield at, at + word_ms, shown.strip()
            at += word_ms
        at += 1500


FORMS = [
    "growing",
    "growing lines",
    "bare",
    "two lines",
    "shouted",
    "<u>",
    "<c>",
    "<font>",
    "{\\c}",
]


@pytest.mark.parametrize("word_ms", [200, 350, 500])
@pytest.mark.parametrize("form", FORMS)
def test_a_line_shown_for_each_of_its_words_is_said_once(
    tmp_path: Path, form: str, word_ms: int
) -> None:
    found = read(tmp_path, list(by_word(LINES, word_ms, form)))
    assert [text.lower() for text in texts(found)] == [line.lower() for line in LINES]
    at = 1000
    for cue, line in zip(found.cues, LINES, strict=True):
        words = line.split()
        assert (cue.start_ms, cue.end_ms) == (at, at + word_ms * len(words))
        assert [word.start_ms for word in cue.words] == [
            at + n * word_ms for n in range(len(words))
        ]
        at = cue.end_ms + 1500


@pytest.mark.parametrize("form", ["growing", "bare", "<u>"])
def test_a_line_said_again_word_by_word_is_kept(tmp_path: Path, form: str) -> None:
    lines = ["So good, so good.", "So good, so good.", "I really love this place.", "Yes.", "Yes."]
    cues = [(a, b, text) for a, b, text in by_word(lines, 300, form)]
    assert texts(read(tmp_path, cues)) == lines
    # Also without the breath between them.
    close, at = [], 0
    for a, b, text in cues:
        close.append((at, at + b - a, text))
        at += b - a
    assert texts(read(tmp_path, close)) == lines


def test_between_two_words_a_highlight_may_be_nowhere(tmp_path: Path) -> None:
    """As openai-whisper writes it with --highlight_words."""
    cues = []
    for a, b, text in by_word(LINES, 400, "<u>"):
        cues += [(a, b - 100, text), (b - 100, b, text.replace("<u>", "").replace("</u>", ""))]
    assert texts(read(tmp_path, cues)) == LINES


def test_letters_that_come_one_by_one_are_said_once(tmp_path: Path) -> None:
    line = "I really love this place."
    cues = [(n * 60, n * 60 + 60, line[: n + 1]) for n in range(len(line))]
    assert texts(read(tmp_path, [*cues, (1500, 3000, line)])) == [line]


def test_chinese_characters_are_words_there(tmp_path: Path) -> None:
    lines = ["我真的很喜欢", "但是食物非常糟糕"]
    cues, at = [], 0
    for line in lines:
        for n in range(len(line)):
            cues.append((at, at + 250, f"{line[:n]}<u>{line[n]}</u>{line[n + 1 :]}"))
            at += 250
    assert texts(read(tmp_path, cues)) == lines


def test_lines_that_grow_and_roll_are_said_once(tmp_path: Path) -> None:
    """As roll-up captions of television are taken down: words come in below the last line."""
    cues, at, above = [], 0, ""
    for line in LINES[:2] + LINES[3:]:
        words = line.split()
        for n in range(len(words)):
            cues.append((at, at + 300, f"{above}\n{' '.join(words[: n + 1])}".strip()))
            at += 300
        above = line
    assert " ".join(texts(read(tmp_path, cues))).split() == " ".join(LINES[:2] + LINES[3:]).split()


@pytest.mark.parametrize(
    "lines",
    [
        ["No.", "No."],
        ["No no no.", "No no no.", "No no no.", "And again.", "No no no."],
        ["Wait.", "Wait. Come back.", "I will."],
        ["Wait.", "Wait. Come back.", "I will.", "I will not."],
        ["I love it.", "I love it.", "Thank you.", "Thank you.", "Bye."],
        ["Go!", "Go! Go!", "Go! Go! Go!"],
        ["<i>Why?</i>", "Why?", "Because."],
    ],
)
def test_what_is_said_again_in_its_own_time_is_kept(tmp_path: Path, lines: list[str]) -> None:
    cues = [(n * 1500, n * 1500 + 1500, line) for n, line in enumerate(lines)]
    found = read(tmp_path, cues)
    assert texts(found) == [line.replace("<i>", "").replace("</i>", "") for line in lines]
    assert found.source == "captions"


def test_one_repeat_is_no_roll(tmp_path: Path) -> None:
    """A line that stays while the answer comes in below it, once, was written by a person."""
    found = read(tmp_path, [(0, 1500, "Who is there?"), (1500, 3000, "Who is there?\nIt is me.")])
    assert texts(found) == ["Who is there?", "Who is there? It is me."]
    assert found.source == "captions"
    rolling = read(
        tmp_path,
        [
            (0, 1500, "Who is there?"),
            (1500, 3000, "Who is there?\nIt is me."),
            (3000, 4500, "It is me.\nCome in."),
        ],
    )
    assert texts(rolling) == ["Who is there?", "It is me.", "Come in."]
    assert rolling.source == "auto_captions"


def test_one_highlight_is_none(tmp_path: Path) -> None:
    found = read(
        tmp_path, [(0, 300, "This is so good"), (300, 600, "This is so good"), (900, 2000, "Bye.")]
    )
    assert texts(found) == ["This is so good", "This is so good", "Bye."]


# --- pieces of a stream that were joined --------------------------------------------------

PIECE = "WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:{},LOCAL:{}\n\n{}"


def joined(folder: Path, *pieces: str) -> Transcript:
    path = folder / "joined.vtt"
    path.write_text("\n".join(pieces), encoding="utf-8")
    return read_captions(path)


def test_headers_in_the_middle_are_no_text(tmp_path: Path) -> None:
    found = joined(
        tmp_path,
        "\ufeffWEBVTT - one\nKind: captions\n\nSTYLE\n::cue { color: red }\n\n"
        "00:01.000 --> 00:02.000\nOne.",
        "WEBVTT X-TIMESTAMP-MAP=MPEGTS:900000,LOCAL:00:00:00.000\n\nNOTE a\nb\n\n"
        "intro\n00:03.000 --> 00:04.000\nTwo.\n",
        "\ufeffWEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:900000\n"
        "00:05.000 --> 00:06.000\nThree.\n",
        "REGION\nid:a\n\nSTYLE\n::cue { color: red }\n\n00:07.000 --> 00:08.000\nFour.\n",
    )
    assert [(cue.start_ms, cue.text) for cue in found.cues] == [
        (1000, "One."), (3000, "Two."), (5000, "Three."), (7000, "Four."),
    ]  # fmt: skip
    assert found.note is None


def test_each_piece_counts_from_where_its_map_says(tmp_path: Path) -> None:
    wrapped = (1 << 33) - 450_000  # five seconds before the clock of a stream starts anew
    found = joined(
        tmp_path,
        PIECE.format(wrapped, "00:00:00.000", "00:00:01.000 --> 00:00:02.000\nOne.\n"),
        PIECE.format(450_000, "00:00:00.000", "00:00:01.000 --> 00:00:02.000\nTwo.\n"),
        PIECE.format(450_000, "00:00:10.000", "00:00:15.000 --> 00:00:16.000\nThree.\n"),
        "WEBVTT\n\n00:00:20.000 --> 00:00:21.000\nFour.\n",
    )
    assert [(cue.start_ms, cue.text) for cue in found.cues] == [
        (1000, "One."), (11_000, "Two."), (15_000, "Three."), (20_000, "Four."),
    ]  # fmt: skip


def test_what_stands_on_both_sides_of_a_border_is_said_once(tmp_path: Path) -> None:
    same = "00:00:04.000 --> 00:00:07.000\nOne.\n"
    found = joined(
        tmp_path,
        PIECE.format(900_000, "00:00:00.000", same),
        PIECE.format(900_000, "00:00:00.000", same + "\n00:00:10.000 --> 00:00:12.000\nTwo.\n"),
        PIECE.format(
            900_000,
            "00:00:00.000",
            "00:00:12.000 --> 00:00:13.000\nTwo.\n\n00:00:14.000 --> 00:00:15.000\nTwo.\n",
        ),
    )
    assert [(cue.start_ms, cue.end_ms, cue.text) for cue in found.cues] == [
        (4000, 7000, "One."), (10_000, 13_000, "Two."), (14_000, 15_000, "Two."),
    ]  # fmt: skip


def test_words_of_these_formats_are_text_in_others(tmp_path: Path) -> None:
    found = read(tmp_path, [(0, 1000, "NOTE this well"), (2000, 3000, "STYLE\nis all")])
    assert texts(found) == ["NOTE this well", "STYLE is all"]


@pytest.mark.parametrize("text", ["so good", "<u>so</u> good", "so"])
def test_a_line_shown_forever_takes_no_time(tmp_path: Path, text: str) -> None:
    cues = [(50 * n, 50 * n + 50, text if n % 2 else "so good") for n in range(20_000)]
    assert texts(read(tmp_path, cues))[0] == "so good"
