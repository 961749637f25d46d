"""Odd time lines, tags and names in captions, and the same cues in every format they come in."""

from __future__ import annotations

import html
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vsa_core.cues import Cue, Transcript
from vsa_core.errors import CaptionError
from vsa_core.transcripts.captions import Wanted, read_captions


def read(folder: Path, content: str, name: str = "talk.srt", **wanted: object) -> Transcript:
    path = folder / name
    path.write_bytes(content.encode())
    return read_captions(path, wanted=Wanted(**wanted))  # type: ignore[arg-type]


def srt(*payloads: str) -> str:
    return "\n".join(
        f"{n}\n00:00:{2 * n:02},000 --> 00:00:{2 * n + 1:02},900\n{payload}\n"
        for n, payload in enumerate(payloads, 1)
    )


def texts(found: Transcript) -> list[str]:
    return [cue.text for cue in found.cues]


def said(found: Transcript) -> list[tuple[str | None, str]]:
    return [(cue.speaker, cue.text) for cue in found.cues]


# --- time lines ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "00:00:04,000 --> 00:00:06,000",
        "00:00:04.000 → 00:00:06.000",
        "00:00:04,000 -> 00:00:06,000",
        "00:00:04,000 —> 00:00:06,000",
        "00:00:04,000 –> 00:00:06,000",
        "00:00:04,000 - -> 00:00:06,000",
        "00:00:04,000 -- > 00:00:06,000",
        "00:00:04,000 ==> 00:00:06,000",
        "00:00:04,000 --&gt; 00:00:06,000",
        "00:00:04,000-->00:00:06,000",
        "00:00:04,000 - 00:00:06,000",
        "00:00:04,000 00:00:06,000",
        "0:00:04.000,0:00:06.000",
        "0:0:4,0 --> 0:0:6,0",
        "00:04 --> 00:06",
        "00: 00: 04, 000 --> 00: 00: 06, 000",
        "00:00:04:00 --> 00:00:06:00",
        "00:00:04,000 --> 00:00:06,000  X1:10 X2:600 Y1:400 Y2:460",
        "  00:00:04,000   -->   00:00:06,000 align:start",
        "00:00:06,000 --> 00:00:04,000",
        "00:00:04,000 --> 00:00:06,000 line:0 position:20%,line-left Well,",
    ],
)
def test_a_time_line_reads_whatever_its_arrow(tmp_path: Path, line: str) -> None:
    found = read(
        tmp_path, f"{srt('One.')}\n2\n{line}\nTwo.\n\n3\n00:00:08,000 --> 00:00:09,000\nThree."
    )
    second = "line:0 position:20%,line-left Well, Two." if line.endswith("Well,") else "Two."
    assert [(cue.start_ms, cue.text) for cue in found.cues] == [
        (2000, "One."),
        (4000, second),
        (8000, "Three."),
    ]
    assert found.cues[1].end_ms == 6000


@pytest.mark.parametrize(
    "line",
    [
        "00:00:xx,000 --> 00:00:06,000",
        "soon --> later",
        "00:00:04,000 to the end",
        "00:04,0 until 00:06,0",
        "-->",
        "-00:00:04,000 --> 00:00:06,000",
    ],
)
def test_a_time_line_that_does_not_read_is_counted(tmp_path: Path, line: str) -> None:
    found = read(
        tmp_path, f"{srt('One.')}\n2\n{line}\nTwo.\n\n3\n00:00:08,000 --> 00:00:09,000\nThree."
    )
    assert texts(found) == ["One.", "Three."]
    assert found.note == "1 of 3 time lines do not read: what they time is left out"


@pytest.mark.parametrize(
    "text",
    [
        "Click File --> Open and love it.",
        "A -> B",
        "Open 12:30 - 14:00",
        "It is 10:30 → hurry",
        "At 4:00, 5:00 and 6:00",
        "2 > 1 --> true",
    ],
)
def test_an_arrow_or_a_time_in_a_text_is_text(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, srt(text, "Two."))
    assert texts(found) == [text, "Two."]
    assert found.note is None


def test_a_name_of_an_empty_cue_is_no_text(tmp_path: Path) -> None:
    time = "00:00:{:02}.000 --> 00:00:{:02}.000\n"
    found = read(
        tmp_path,
        "WEBVTT\n\nintro\n"
        + time.format(1, 3)
        + "One.\n\nnoise\n"
        + time.format(4, 5)
        + "\noutro\n"
        + time.format(6, 9)
        + "\n\n7\n"
        + time.format(10, 11)
        + "Two.\n",
        "talk.vtt",
    )
    assert found.cues == (Cue(1000, 3000, "One."), Cue(10_000, 11_000, "Two."))


# --- tags ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ("&lt;i&gt;I love it.&lt;/i&gt;", "I love it."),
        ("&amp;lt;b&amp;gt;I love it.&amp;lt;/b&amp;gt;", "I love it."),
        ("&lt;font color=&quot;#fff&quot;&gt;I love it.&lt;/font&gt;", "I love it."),
        ('&lt;font color="#fff"&gt;I love it.', "I love it."),
        ("&#60;i&#62;I love it.&#x3c;/i&#x3E;", "I love it."),
        ("I love it&lt;br&gt;but not this", "I love it but not this"),
        ("I love it<br/>but not this", "I love it but not this"),
        ("I love it<BR>but<br />not this", "I love it but not this"),
        ("<p>I love it</p><p>but not this</p>", "I love it but not this"),
        ("Use the &lt;div&gt; tag.", "Use the <div> tag."),
        ("a < b and b > a", "a < b and b > a"),
        ("a &lt; b &amp;&amp; b &gt; a", "a < b && b > a"),
        ("{\\an8}I love it\\Nbut{\\i1}not\\hthis{\\i0}", "I love it butnot this"),
        ("{y:i}{c:$0000ff}I love it.", "I love it."),
        ("{an8}I love it.", "I love it."),
        ("{\\p1}m 0 0 l 100 0 100 50 0 50{\\p0}I love it.", "I love it."),
        ("I {really} love it.", "I {really} love it."),
        ("<ruby>漢<rp>(</rp><rt>kan</rt><rp>)</rp></ruby>字", "漢字"),
        ("caf&eacute; &#233; &#xe9; &hearts;", "café é é ♥"),
    ],
)
def test_what_tags_leave(tmp_path: Path, payload: str, text: str) -> None:
    assert texts(read(tmp_path, srt(payload, "Two."))) == [text, "Two."]


@pytest.mark.parametrize(
    "drawing",
    [
        "{\\p1}m 0 0 l 100 0 100 50 0 50{\\p0}",
        "m 0 0 l 100 0 100 50 0 50",
        "{\\an7\\p2}m 1.5 -2 b 0 0 1 1 2 2",
    ],
)
def test_a_drawing_is_no_text(tmp_path: Path, drawing: str) -> None:
    assert texts(read(tmp_path, srt(drawing, "Two."))) == ["Two."]


def test_a_sung_line_hides_no_spoken_one_in_json3(tmp_path: Path) -> None:
    event = {
        "tStartMs": 0,
        "dDurationMs": 900,
        "segs": [{"utf8": "♪ la la\n"}, {"utf8": "I am so <i>happy</i>."}],
    }
    found = read(tmp_path, json.dumps({"events": [event]}), "talk.json3")
    assert texts(found) == ["I am so happy."]


PAYLOADS = [
    "- I really love it.\n- I hate it.",
    "♪ la la la\nI am so happy.",
    "JOHN: That is great.\nMARY: No.",
    "<i>I really love</i> this.",
    "Tom &amp; Jerry",
    "{\\an8}Up here",
    "(laughs) Yes [Music]",
    "a < b",
    "<v Ann>Hi.</v>",
    "&lt;b&gt;So.&lt;/b&gt;",
    "no no no",
    "[Bob]: Hey<br>you",
    "I <3 it\n♪",
    "你好。\n世界",
]


def as_vtt(cues: list[tuple[int, int, str]]) -> str:
    def clock(ms: int) -> str:
        return f"{ms // 60_000:02}:{ms // 1000 % 60:02}.{ms % 1000:03}"

    return "WEBVTT\n\n" + "\n".join(f"{clock(a)} --> {clock(b)}\n{t}\n" for a, b, t in cues)


def as_ass(cues: list[tuple[int, int, str]]) -> str:
    def clock(ms: int) -> str:
        return f"0:{ms // 60_000:02}:{ms // 1000 % 60:02}.{ms % 1000 // 10:02}"

    head = "[Script Info]\n\n[Events]\nFormat: Layer, Start, End, Style, Name, Effect, Text\n"
    return head + "".join(
        "Dialogue: 0,{},{},Default,,,{}\n".format(clock(a), clock(b), t.replace("\n", "\\N"))
        for a, b, t in cues
    )


def as_json3(cues: list[tuple[int, int, str]]) -> str:
    events = [{"tStartMs": a, "dDurationMs": b - a, "segs": [{"utf8": t}]} for a, b, t in cues]
    return json.dumps({"events": events})


@settings(
    max_examples=30,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(st.integers(1, 300), st.sampled_from(PAYLOADS)), min_size=1, max_size=8))
def test_the_same_cues_are_read_in_every_format(
    tmp_path: Path, given_cues: list[tuple[int, str]]
) -> None:
    cues, at = [], 0
    for tenths, text in given_cues:
        cues.append((at, at + 100 * tenths, text))
        at += 100 * tenths + 300
    outcomes = []
    for name, content in (
        ("a.vtt", as_vtt(cues)),
        ("a.srt", as_vtt(cues).removeprefix("WEBVTT\n\n").replace(".", ",", 0)),
        ("a.json3", as_json3(cues)),
        ("a.ass", as_ass(cues)),
    ):
        try:
            found = read(tmp_path, content, name)
            outcomes.append((found.cues, found.source, found.note))
        except CaptionError:
            outcomes.append(((), "", None))
    assert outcomes[1:] == outcomes[:1] * 3


def test_substation_alpha_as_it_is_written(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "[Script Info]\nTitle: x\n\n[V4+ Styles]\nFormat: Name\nStyle: Default\n\n[Events]\n"
        "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
        "Comment: 0,0:00:00.00,0:00:01.00,Default,,0,0,0,,not said\n"
        "Dialogue: 0,0:00:01.00,0:00:02.50,Default,Ann,0,0,0,,{\\i1}Well, yes,{\\i0} I do.\n"
        "Dialogue: 0,never,0:00:02.50,Default,,0,0,0,,lost\n"
        "Dialogue: 0,0:00:03.00,0:00:04.00,Default,,0,0,0,,{\\p1}m 0 0 l 1 1{\\p0}\n",
        "talk.ass",
    )
    assert found.cues == (Cue(1000, 2500, "Well, yes, I do.", (), "Ann"),)
    assert found.note == "1 of 3 time lines do not read: what they time is left out"


# --- who speaks ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payloads", "due"),
    [
        (
            ["Jo Doe: I love it.", "Ana Roe: It was awful.", "Jo Doe: We will not come."],
            [
                ("Jo Doe", "I love it."),
                ("Ana Roe", "It was awful."),
                ("Jo Doe", "We will not come."),
            ],
        ),
        (
            ["anna: hi there", "bob42: hi anna", "anna: how are you", "bob42: fine: really"],
            [
                ("anna", "hi there"),
                ("bob42", "hi anna"),
                ("anna", "how are you"),
                ("bob42", "fine: really"),
            ],
        ),
        (
            ["李明：你好。", "王芳：再见。", "李明：好的。", "王芳：走吧。"],
            [("李明", "你好。"), ("王芳", "再见。"), ("李明", "好的。"), ("王芳", "走吧。")],
        ),
        (
            ["Dr. Jane van Dyk (Host): Hi.", "Jean-Luc: No."],
            [("Dr. Jane van Dyk (Host)", "Hi."), (None, "Jean-Luc: No.")],
        ),
        (
            ["[Anna]: Hi. Note: it is late.", "ANNA: Bye.", "(Bob): Yes."],
            [("Anna", "Hi. Note: it is late."), ("ANNA", "Bye."), ("Bob", "Yes.")],
        ),
        (
            [">> Anna: Hi. >> BOB: Hello. >> Who is it?"],
            [("Anna", "Hi."), ("BOB", "Hello."), (None, "Who is it?")],
        ),
        (["- JOHN: Great.\n- Awful."], [("JOHN", "Great."), (None, "Awful.")]),
        (
            ["<v Anna Smith>Hi.</v>", "<v.loud Bob>Go\n<v Cy>Why?"],
            [("Anna Smith", "Hi."), ("Bob", "Go"), ("Cy", "Why?")],
        ),
        (
            ["[SPEAKER_00]: Hi.", "[SPEAKER_01] Hello."],
            [("SPEAKER_00", "Hi."), ("SPEAKER_01", "Hello.")],
        ),
        (
            [
                "Note: this is bad.",
                "WARNING: do not touch it.",
                "And so it goes.",
                "Remember: be kind.",
            ],
            [
                (None, "Note: this is bad."),
                (None, "WARNING: do not touch it."),
                (None, "And so it goes."),
                (None, "Remember: be kind."),
            ],
        ),
        (
            ["Pros: it is light.", "Cons: it is dear.", "Pros: it is fast.", "Price: too high."],
            [
                (None, "Pros: it is light."),
                (None, "Cons: it is dear."),
                (None, "Pros: it is fast."),
                (None, "Price: too high."),
            ],
        ),
        (
            ["He said: go.", "She said: no.", "He said: why.", "She said: so."],
            [
                (None, f"{who} said: {what}.")
                for who, what in zip(["He", "She"] * 2, ["go", "no", "why", "so"], strict=True)
            ],
        ),
        (
            ["Step 1: mix it.", "Step 2: bake it.", "Step 3: eat it."],
            [(None, "Step 1: mix it."), (None, "Step 2: bake it."), (None, "Step 3: eat it.")],
        ),
        (
            ["Two things: love it.", "I like it.", "It is great.", "My view: awful."],
            [
                (None, "Two things: love it."),
                (None, "I like it."),
                (None, "It is great."),
                (None, "My view: awful."),
            ],
        ),
        (
            ["At 10:30: go. https://a.b", "See: this."],
            [(None, "At 10:30: go. https://a.b"), (None, "See: this.")],
        ),
        (["[Music]: la", "(DOOR SLAMS): Hey."], [(None, "la"), ("DOOR SLAMS", "Hey.")]),
    ],
)
def test_who_speaks(tmp_path: Path, payloads: list[str], due: list[tuple[str | None, str]]) -> None:
    assert said(read(tmp_path, srt(*payloads))) == due


def test_two_who_speak_in_one_cue_share_its_time(tmp_path: Path) -> None:
    found = read(
        tmp_path, "1\n00:00:00,000 --> 00:00:04,000\nJOHN: Great stuff.\nMARY: Awful stuff.\n"
    )
    first, second = found.cues
    assert (first.start_ms, second.end_ms) == (0, 4000)
    assert first.end_ms == second.start_ms
    assert 1500 < first.end_ms < 2700


# --- credits ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "credit",
    [
        "Subtitles by John Smith",
        "Subtitles by the Amara.org community",
        "Transcribed by Anna",
        "Captions: Jane Doe",
        "Synced and corrected by explosiveskull",
        "SUBTITLES BY RED BEE MEDIA",
        "Support us and become VIP member to remove all ads from www.OpenSubtitles.org",
        "== sync, corrected by elderman ==",
        "Untertitel von Stephanie Geiges",
        "Sous-titres réalisés par la communauté d'Amara.org",
        "Subtítulos por aRGENTeaM",
        "字幕：李明",
    ],
)
def test_who_made_the_captions_is_no_speech(tmp_path: Path, credit: str) -> None:
    for cues in (srt(credit, "I love it.", "It is bad."), srt("I love it.", "It is bad.", credit)):
        found = read(tmp_path, cues)
        assert texts(found) == ["I love it.", "It is bad."]
        assert found.note == "1 cues that name who made the captions left out"


@pytest.mark.parametrize(
    "text",
    [
        "Captions by default are off.",
        "It was transcribed by my sister.",
        "The subtitles are awful.",
        "Edited it by hand, all of it.",
        "I translated: it means love.",
    ],
)
def test_talk_about_captions_is_speech(tmp_path: Path, text: str) -> None:
    assert texts(read(tmp_path, srt(text, "Two."))) == [text, "Two."]


# --- two languages ------------------------------------------------------------------------

CHINESE = ["我真的很喜欢这个地方。", "但是食物非常糟糕。", "我们不会再来了。"]
ENGLISH = [
    "I really love this place, it is wonderful.",
    "But the food that we had there was awful.",
    "We will certainly not come back again.",
]
SPANISH = [
    "Me encanta este lugar, es maravilloso.",
    "Pero la comida que nos dieron fue horrible.",
    "Seguro que no vamos a volver nunca más.",
]


@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize(
    ("other", "tag", "wanted", "due"),
    [
        (CHINESE, "zh", ("en",), ENGLISH),
        (CHINESE, "zh", ("zh", "en"), CHINESE),
        (CHINESE, "zh", ("de", "zh"), CHINESE),
        (SPANISH, "es", ("en",), ENGLISH),
        (SPANISH, "es", ("es",), SPANISH),
    ],
)
def test_the_wanted_one_of_two_languages_is_read(
    tmp_path: Path,
    other: list[str],
    tag: str,
    wanted: tuple[str, ...],
    due: list[str],
    *,
    upper: bool,
) -> None:
    pairs = [(a, b) if upper else (b, a) for a, b in zip(other, ENGLISH, strict=True)]
    language = tag if due is other else "en"
    together = read(tmp_path, srt(*(f"{a}\n{b}" for a, b in pairs)), languages=wanted)
    one_by_one = read(
        tmp_path,
        "\n".join(
            f"{n}\n00:00:{2 * n:02},000 --> 00:00:{2 * n + 1:02},900\n{text}\n"
            for n, pair in enumerate(pairs, 1)
            for text in pair
        ),
        languages=wanted,
    )
    for found in (together, one_by_one):
        assert texts(found) == due
        assert found.language == language
        assert found.note == f"captions in two languages at once: those in {language} are read"


def test_one_language_over_two_lines_is_one(tmp_path: Path) -> None:
    found = read(tmp_path, srt(*(f"{a}\n{b}" for a, b in zip(SPANISH, SPANISH[::-1], strict=True))))
    assert len(found.cues) == 3
    assert found.note is None


# --- beyond the end -----------------------------------------------------------------------


def test_cues_beyond_the_end_are_counted_and_left_out(tmp_path: Path) -> None:
    cues = srt(*(f"Line {n}." for n in range(10)))
    found = read(tmp_path, cues, duration_ms=9_000)
    assert texts(found) == ["Line 0.", "Line 1.", "Line 2.", "Line 3.", "Line 4."]
    assert found.note == "5 of 10 cues lie beyond the end of the video: left out"
    assert len(read(tmp_path, cues, duration_ms=0).cues) == 10
    with pytest.raises(CaptionError, match=r"all 10 cues .* are they of another one"):
        read(tmp_path, cues.replace("00:00:", "01:00:"), duration_ms=9_000)


# --- hostile ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "1:",
        "-->",
        "--> 1 ",
        "00:00:0",
        "&lt;i",
        "{\\p1",
        "{\\",
        "m 0 0 l ",
        "A: ",
        "[A]: ",
        "<v a",
        "é©",
        "♪a\n",
        "a: \n",
        "00:00:01 --> ",
        html.escape("<i>"),
    ],
)
def test_hostile_text_takes_no_time(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, srt(text * (200_000 // len(text)) + "\n\nHello", "Two."))
    assert texts(found)[-1] == "Two."
