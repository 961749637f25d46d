"""Cues to utterances: where they are cut, joined and timed, and what always holds."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from vsa_core.config import Segments
from vsa_core.cues import Cue, Word
from vsa_core.segment import Utterance, _tokens, utterances

DEFAULT = Segments()


def cues(*texts: str, length_ms: int = 3000, gap_ms: int = 0) -> list[Cue]:
    """Cues of one length, one after the other."""
    step = length_ms + gap_ms
    return [Cue(n * step, n * step + length_ms, text) for n, text in enumerate(texts)]


def cut(text: str, length_ms: int = 10_000) -> list[str]:
    return [found.text for found in utterances([Cue(0, length_ms, text)], DEFAULT)]


def timed(*words: tuple[int, int, str]) -> Cue:
    found = tuple(Word(*word) for word in words)
    return Cue(words[0][0], words[-1][1], " ".join(word.text for word in found), found)


# --- sentences ----------------------------------------------------------------------------


def test_cues_are_joined_and_cut_at_sentence_ends() -> None:
    found = utterances(
        cues("We tested for 167 days. We bought 12", "phones and split them. Then we", "waited."),
        DEFAULT,
    )
    assert [each.text for each in found] == [
        "We tested for 167 days.",
        "We bought 12 phones and split them.",
        "Then we waited.",
    ]
    assert (found[0].start_ms, found[-1].end_ms) == (0, 7_500 + 150 * len("waited."))


@pytest.mark.parametrize(
    "text",
    [
        "I told Mr. Brown and Dr. Who about it.",
        "We like tea, e.g. green tea, i.e. not coffee.",
        "It is 3.5 or .5 in the U.S. Army of J. R. Smith.",
        "The book of Sen. Lee vs. the state is no. 5 in vol. 2.",
        "It costs 5 dollars, fees etc. included.",
        "Well... maybe I will go there now.",
        "“Really?” she said to all of them.",
    ],
)
def test_full_stops_that_end_nothing(text: str) -> None:
    assert cut(text) == [text]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "This is good! Is it really? Yes it is.",
            ["This is good!", "Is it really?", "Yes it is."],
        ),
        ("He said “I will come.” Then he left us.", ["He said “I will come.”", "Then he left us."]),
        ("It was so sad… We cried a lot.", ["It was so sad…", "We cried a lot."]),
        ("I like cars, boats etc. Then I left.", ["I like cars, boats etc.", "Then I left."]),
        ("So I said no. Then I went home.", ["So I said no.", "Then I went home."]),
        ("He is older than I. She is not.", ["He is older than I.", "She is not."]),
        ("It lost 11.8%. Then it lost 12.", ["It lost 11.8%.", "Then it lost 12."]),
        ("今天天气很好。我们去公园吧！", ["今天天气很好。", "我们去公园吧！"]),
        ("यह बहुत अच्छा है। मुझे पसंद है।", ["यह बहुत अच्छा है।", "मुझे पसंद है।"]),
        ("هل هذا جيد جدا؟ نعم هذا جيد.", ["هل هذا جيد جدا؟", "نعم هذا جيد."]),
    ],
)
def test_sentence_ends(text: str, parts: list[str]) -> None:
    assert cut(text) == parts


# --- scripts ------------------------------------------------------------------------------


def test_chinese_and_japanese_cues_are_joined_without_a_space() -> None:
    found = utterances(cues("今天我们", "去公园。我", "很开心，", "真的。"), DEFAULT)
    assert [each.text for each in found] == ["今天我们去公园。", "我很开心，真的。"]
    (found_one,) = utterances([Cue(0, 4000, "「はい」"), Cue(100, 4000, "と言った。")], DEFAULT)
    assert found_one.text == "「はい」と言った。"
    (mixed,) = utterances(cues("我用的是", "iPhone 15", "拍的。"), DEFAULT)
    assert mixed.text == "我用的是 iPhone 15 拍的。"


def test_words_are_joined_as_they_stand_in_the_text() -> None:
    words = [(0, 300, "今天"), (300, 500, "天"), (500, 900, "气"), (900, 1600, "很好。")]
    chinese = replace(timed(*words), text="今天天气很好。")
    assert [each.text for each in utterances([chinese], DEFAULT)] == ["今天天气很好。"]
    words = [(0, 300, "A"), (300, 500, "well"), (500, 900, "-known"), (900, 1600, "film.")]
    english = replace(timed(*words), text="A well-known film.")
    assert [each.text for each in utterances([english], DEFAULT)] == ["A well-known film."]
    other = replace(timed(*words), text="Something else.")
    assert [each.text for each in utterances([other], DEFAULT)] == ["A well -known film."]


def test_a_long_sentence_without_spaces_is_cut_after_a_clause() -> None:
    text = "我" * 30 + "，" + "你" * 40 + "，" + "他" * 40 + "。"
    found = cut(text, 22_600)
    assert found == ["我" * 30 + "，" + "你" * 40 + "，", "他" * 40 + "。"]
    assert "".join(cut(text.replace("，", ""), 22_600)) == text.replace("，", "")


def test_a_long_sentence_without_spaces_or_marks_is_cut_where_a_word_begins() -> None:
    words = ["好好好好好好的"] * 18
    for part in cut("".join(words), 40_000)[:-1]:
        assert part.endswith("的")
    japanese = "昨日の映画とても" * 20
    found = cut(japanese, 40_000)
    assert len(found) == 3
    assert all(part.startswith(("昨", "映")) for part in found)


@pytest.mark.parametrize("letters", ["กำ", "မြန်", "ខ្ញុំ", "が́", "👩‍👩‍👧好"])
def test_an_endless_run_of_letters_is_cut_between_characters(letters: str) -> None:
    found = utterances([Cue(0, 60_000, letters * 100)], Segments(max_ms=5000))
    assert "".join(each.text for each in found) == letters * 100
    assert all(each.end_ms - each.start_ms <= 5000 for each in found)
    whole = regex.findall(r"\X", letters)
    assert all(regex.findall(r"\X", each.text)[0] in whole for each in found)


def test_subtitles_without_full_stops_end_with_their_cue() -> None:
    subtitles = cues("今天我们去公园", "你看那只狗", "好可爱啊", length_ms=2000)
    assert [each.text for each in utterances(subtitles, DEFAULT)] == [
        "今天我们去公园", "你看那只狗", "好可爱啊",
    ]  # fmt: skip
    goes_on = cues("昨日の映画は", "とても良かった", "でも長い", length_ms=2000)
    assert [each.text for each in utterances(goes_on, DEFAULT)] == [
        "昨日の映画はとても良かった", "でも長い",
    ]  # fmt: skip
    recognised = [timed((0, 2000, "今天我们去公园")), timed((2000, 4000, "你看那只狗"))]
    assert [each.text for each in utterances(recognised, DEFAULT)] == ["今天我们去公园你看那只狗"]


def test_thai_is_cut_at_spaces_and_pauses() -> None:
    thai = "สวัสดีทุกคน ฉันชอบหนังเรื่องนี้มาก แต่ตอนจบเศร้า"
    assert cut(thai) == ["สวัสดีทุกคน", "ฉันชอบหนังเรื่องนี้มาก แต่ตอนจบเศร้า"]
    apart = [timed((0, 1500, "สวัสดี")), timed((2201, 4000, "ทุกคน"))]
    assert [each.text for each in utterances(apart, DEFAULT)] == ["สวัสดี", "ทุกคน"]


# --- times --------------------------------------------------------------------------------


def test_a_sentence_end_inside_a_cue_is_timed_by_its_words() -> None:
    cue = timed(
        (0, 400, "That"), (400, 900, "works."), (2000, 2300, "This"), (2300, 2500, "does"),
        (2500, 3100, "not."),
    )  # fmt: skip
    assert utterances([cue], Segments(min_ms=500)) == [
        Utterance(0, 900, "That works."),
        Utterance(2000, 3100, "This does not."),
    ]


def test_without_word_times_it_goes_by_characters() -> None:
    first, second = utterances([Cue(1000, 5000, "Aaaa bbbb. Cccc dddd.")], DEFAULT)
    assert (first.start_ms, first.end_ms) == (1000, 3000)
    assert (second.start_ms, second.end_ms) == (3000, 5000)


def test_a_caption_that_stands_on_is_not_speech_all_the_time() -> None:
    (found,) = utterances([Cue(0, 60_000, "Time flies.")], DEFAULT)
    assert found == Utterance(0, 1_500 + 150 * len("Time flies."), "Time flies.")
    (found,) = utterances([Cue(0, 60_000, "光阴似箭")], DEFAULT)
    assert found.end_ms == 1_500 + 450 * 4


def test_overlapping_cues_are_kept_apart() -> None:
    found = utterances([Cue(0, 4000, "I am first."), Cue(2500, 6000, "I am second.")], DEFAULT)
    assert found == [Utterance(0, 2500, "I am first."), Utterance(2500, 5800, "I am second.")]


def test_cues_at_the_same_time_are_spoken_one_after_the_other() -> None:
    found = utterances([Cue(0, 4000, "I am here. Are"), Cue(100, 3000, "you there?")], DEFAULT)
    assert [each.text for each in found] == ["I am here.", "Are you there?"]
    assert found[0].end_ms == found[1].start_ms
    assert found[1].end_ms == 4000


def test_order_is_by_time() -> None:
    found = utterances([Cue(5000, 7000, "I am second."), Cue(0, 2000, "I am first.")], DEFAULT)
    assert [each.text for each in found] == ["I am first.", "I am second."]


# --- who speaks ---------------------------------------------------------------------------


def test_another_speaker_begins_another_utterance() -> None:
    spoken = [
        Cue(0, 1500, "I think that", speaker="Ann"),
        Cue(1500, 3000, "it is", speaker="Ann"),
        Cue(3000, 3300, "No!", speaker="Bob"),
        Cue(3300, 5000, "not that good,", speaker="Ann"),
        Cue(5000, 6500, "but fine."),
        Cue(6500, 8000, "Well, then", speaker="Cy"),
        Cue(8000, 9500, "go on.", speaker="Cy"),
    ]
    found = utterances(spoken, DEFAULT)
    assert [(each.speaker, each.text) for each in found] == [
        ("Ann", "I think that it is"),
        ("Bob", "No!"),
        ("Ann", "not that good, but fine."),
        ("Cy", "Well, then go on."),
    ]
    assert [(each.start_ms, each.end_ms) for each in found] == [
        (0, 3000), (3000, 3300), (3300, 6500), (6500, 9500),
    ]  # fmt: skip


def test_who_speak_at_the_same_time_are_told_apart() -> None:
    found = utterances(
        [Cue(0, 4000, "I am here", speaker="Ann"), Cue(100, 4000, "so am I", speaker="Bob")],
        DEFAULT,
    )
    assert [(each.speaker, each.text) for each in found] == [
        ("Ann", "I am here"),
        ("Bob", "so am I"),
    ]
    assert found[0].end_ms == found[1].start_ms
    unnamed = utterances([Cue(0, 4000, "I am here"), Cue(100, 4000, "and so am I.")], DEFAULT)
    assert [(each.speaker, each.text) for each in unnamed] == [(None, "I am here and so am I.")]


# --- pauses and lengths -------------------------------------------------------------------


def test_speech_without_punctuation_is_cut_at_pauses() -> None:
    cue = timed(
        (0, 500, "so"), (500, 1500, "here"), (2201, 2800, "we"), (2800, 3500, "go"),
        (4200, 4900, "again"),
    )  # fmt: skip
    found = utterances([cue], DEFAULT)
    assert [each.text for each in found] == ["so here", "we go again"]
    assert [(each.start_ms, each.end_ms) for each in found] == [(0, 1500), (2201, 4900)]


def test_a_gap_between_cues_is_a_pause() -> None:
    texts = ("and then we", "went home")
    assert len(utterances(cues(*texts, length_ms=1500, gap_ms=700), DEFAULT)) == 1
    assert len(utterances(cues(*texts, length_ms=1500, gap_ms=701), DEFAULT)) == 2


def test_a_long_sentence_is_cut_after_a_clause() -> None:
    words = ["word"] * 40
    words[14] = "word,"
    words[23] = "word,"  # nearer to the middle
    found = utterances([Cue(0, 20_000, " ".join(words))], DEFAULT)
    assert [len(each.text.split()) for each in found] == [24, 16]


def test_a_long_sentence_is_cut_at_a_breath() -> None:
    words = [
        (n * 500 + 300 * (n >= 17), n * 500 + 500 + 300 * (n >= 17), "word") for n in range(40)
    ]
    found = utterances([timed(*words)], DEFAULT)
    assert [len(each.text.split()) for each in found] == [17, 23]


def test_without_a_clause_it_is_cut_into_equal_parts() -> None:
    found = utterances(cues(*["a bb ccc"] * 20, length_ms=1600), DEFAULT)
    assert [each.end_ms - each.start_ms for each in found] == pytest.approx([10_667] * 3, abs=600)


def test_one_endless_word_is_left_whole() -> None:
    (found,) = utterances([timed((0, 40_000, "aaah"))], DEFAULT)
    assert found == Utterance(0, 40_000, "aaah")


def test_a_short_sentence_joins_its_neighbour() -> None:
    assert cut("Oh! That is so good of you.", 4000) == ["Oh! That is so good of you."]
    assert cut("That is so good of you. Oh!", 4000) == ["That is so good of you. Oh!"]
    assert cut("No. No. No. No.", 3000) == ["No. No.", "No. No."]


def test_a_short_sentence_joins_the_nearer_neighbour() -> None:
    found = utterances(
        [Cue(0, 2000, "I like it."), Cue(2100, 2500, "Yes."), Cue(3000, 5000, "And you do too.")],
        DEFAULT,
    )
    assert [each.text for each in found] == ["I like it. Yes.", "And you do too."]


def test_a_short_sentence_is_left_alone_beyond_a_pause_or_the_longest_length() -> None:
    alone = [Cue(0, 2000, "I like it."), Cue(3000, 3400, "Yes."), Cue(4500, 6500, "You do.")]
    assert [each.text for each in utterances(alone, DEFAULT)] == ["I like it.", "Yes.", "You do."]
    tight = Segments(min_ms=1000, max_ms=2100)
    full = [Cue(0, 2000, "I like it."), Cue(2000, 2400, "Yes."), Cue(2400, 4400, "You do too.")]
    assert [each.text for each in utterances(full, tight)] == ["I like it.", "Yes.", "You do too."]


def test_lines_of_different_mood_stay_apart() -> None:
    found = utterances(cues("I love this place!", "I hate that you left.", "What?!"), DEFAULT)
    assert [each.text for each in found] == [
        "I love this place!",
        "I hate that you left.",
        "What?!",
    ]


def test_nothing_said_is_nothing() -> None:
    assert utterances([], DEFAULT) == []
    assert utterances([Cue(0, 1000, " ")], DEFAULT) == []


def test_zero_and_reversed_times_are_repaired() -> None:
    found = utterances(
        [Cue(5, 5, "Now. Then."), timed((9, 9, "a."), (9, 9, "b."), (9, 9, "c."))],
        Segments(min_ms=0),
    )
    assert [(each.start_ms, each.end_ms) for each in found] == [(5, 6), (9, 10)]
    assert [each.text for each in found] == ["Now. Then.", "a. b. c."]
    (found_one,) = utterances([Cue(5000, 3000, "Reversed.")], DEFAULT)
    assert found_one.start_ms < found_one.end_ms


def test_hours_of_captions_take_seconds() -> None:
    many = cues(*["and one more thing, maybe. Yes"] * 20_000, length_ms=1000)
    began = time.process_time()
    assert len(utterances(many, DEFAULT)) > 10_000
    together = [Cue(0, 5000, "all at once")] * 20_000
    assert sum(len(each.text.split()) for each in utterances(together, DEFAULT)) == 60_000
    assert time.process_time() - began < 30  # 3 s; a quadratic step would take minutes


# --- what always holds --------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        "a",
        "Yes.",
        "no,",
        "Mr.",
        "U.S.",
        "really?",
        "“well…”",
        "3.5",
        "wonderful",
        "你好。我",
        "我喜欢这部电影，真的",
        "「はい。」と",
        "เรื่องน้ำ",
        "ម៉ែខ្ញុំ។",
        "है।मुझे",
        "؟نعم",
        "¿qué?",
        "👩‍👩‍👧が́",
        "-",
        "I.",
    ]
)


@st.composite
def any_cues(draw: st.DrawFn) -> list[Cue]:
    found = []
    at = 0
    for _ in range(draw(st.integers(0, 12))):
        at = max(0, at + draw(st.integers(-1500, 3000)))
        length = draw(st.integers(-5, 12_000))
        texts = draw(st.lists(WORDS, min_size=1, max_size=12))
        words = []
        if draw(st.booleans()):
            times = [at + draw(st.integers(-100, 6000)) for _ in range(2 * len(texts))]
            if draw(st.booleans()):
                times.sort()
            words = [Word(*times[2 * n : 2 * n + 2], text) for n, text in enumerate(texts)]
        found.append(Cue(at, at + length, " ".join(texts), tuple(words)))
    return found


@settings(max_examples=150, derandomize=True, deadline=None, database=None)
@given(any_cues(), st.integers(0, 2000), st.integers(1000, 6000), st.integers(0, 1500))
def test_nothing_is_lost_moved_or_overlapping(
    given_cues: list[Cue], min_ms: int, max_ms: int, pause_ms: int
) -> None:
    limits = Segments(min_ms=min(min_ms, max_ms), max_ms=max_ms, pause_ms=pause_ms)
    found = utterances(given_cues, limits)
    words = {(token.start_ms, token.end_ms) for token in _tokens(given_cues)}

    ordered = sorted(given_cues, key=lambda cue: cue.start_ms)
    assert "".join("".join(each.text.split()) for each in found) == "".join(
        "".join(cue.text.split()) for cue in ordered
    )
    clusters = set(regex.findall(r"\X", " ".join(cue.text for cue in given_cues)))
    for each in found:
        assert 0 <= each.start_ms < each.end_ms
        assert set(regex.findall(r"\X", each.text)) <= clusters | {" "}
        assert each.text == " ".join(each.text.split()) != ""
        if each.end_ms - each.start_ms > max_ms:
            # One word takes all that time; others there can only be of no length of their own.
            assert (each.start_ms, each.end_ms) in words
    assert all(left.end_ms <= right.start_ms for left, right in pairwise(found))
    assert utterances(given_cues, limits) == found
