"""What a run tells, line by line: shapes that a person meets."""

from __future__ import annotations

from typing import Any

import pytest

from vsa_core.story import (
    FAILED,
    INCOMPLETE,
    LATER,
    REFUSED,
    estimate_line,
    left_out,
    next_steps,
    of_run,
    tell,
)

BLIND = {"value": 0.984, "low": None, "high": None, "level": 0.95, "method": "agreement",
         "reviewed": 0}  # fmt: skip
UNKNOWN = {**BLIND, "value": None, "method": "agreement says nothing: have some reviewed"}


def facts(**changed: Any) -> dict[str, Any]:
    """A run over four videos, all labelled."""
    return {
        "videos": 4,
        "videos_labelled": 4,
        "segments": 9,
        "labelled": 9,
        "emotions": 9,
        "sentiments": {"positive": 4, "negative": 5},
        "words": {"captions": 4},
        "left_out": [],
        "estimates": {"emotion": BLIND, "sentiment": BLIND},
        "warnings": [],
        "agreement": {"agree": 9, "disagree": 0},
        "origins": {"consensus": 9, "fusion": 0, "none": 0},
        "with_text": 9,
        "with_face": 0,
        "model_card": "models/m/card.json",
        "late_fusion_because": None,
        "seconds": 1234.5,
        "times_real_time": 2.0,
        "videos_new": 4,
        **changed,
    }


def test_all_labelled_is_short_and_has_no_zeros() -> None:
    assert of_run(facts()) == [
        ("Labelled", ["9 of 9 segments in 4 of 4 videos", "5 negative, 4 positive"]),
        ("How sure", ["sentiment and emotion: accuracy about 0.984: agreement"]),
        ("Seen", ["9 text"]),
        ("Votes", ["9 agree"]),
        ("Decided", ["9 by consensus"]),
        ("Fusion", ["models/m/card.json in the store"]),
        ("Time", ["1,234.5 s, 2 times real time; 4 videos looked at"]),
    ]
    assert next_steps(facts()) == [
        "query @most_negative",
        'query "SELECT sentiment, text FROM labels"',
    ]


@pytest.mark.parametrize(
    ("videos", "said", "looked"),
    [
        (0, "nothing: no video was found", ""),
        (1, "nothing: no segment of speech in 1 video", "; no video was new"),
    ],
)
def test_nothing_to_label(videos: int, said: str, looked: str) -> None:
    """An empty feed, and a single silent film."""
    none = facts(videos=videos, videos_labelled=0, segments=0, labelled=0, emotions=0,
                 sentiments={}, words={}, videos_new=0, times_real_time=None)  # fmt: skip
    assert of_run(none) == [("Labelled", [said]), ("Time", [f"1,234.5 s{looked}"])]
    assert next_steps(none) == []


def test_a_run_with_nothing_to_do_has_no_speed() -> None:
    assert dict(of_run(facts(videos_new=0)))["Time"] == ["1,234.5 s; no video was new"]


@pytest.mark.parametrize("kind", [FAILED, REFUSED, LATER])
def test_what_was_not_looked_into_is_not_said_to_be_silent(kind: str) -> None:
    left = left_out(kind, [("a.mp4", "a.mp4: it is empty")])
    none = facts(videos=1, videos_labelled=0, segments=0, labelled=0, emotions=0, sentiments={},
                 words={}, videos_new=0, times_real_time=None, left_out=[left])  # fmt: skip
    parts = dict(of_run(none))
    assert parts["Labelled"] == ["nothing of 1 video"]
    assert parts["Time"] == ["1,234.5 s"]


def test_how_sure_it_is_comes_with_its_caveats_once() -> None:
    few = "9 segments are few"
    warned = [f"sentiment: {few}", f"emotion: {few}", "the face embedding is noise"]
    [_, (_, lines), *_] = tell(facts(warnings=warned))
    assert lines[1:] == [f"warning: sentiment and emotion: {few}",
                         "warning: the face embedding is noise"]  # fmt: skip
    # Where nothing is known that is said once; the reasons are for `vsa status`.
    unknown = facts(warnings=warned, estimates={"sentiment": UNKNOWN, "emotion": BLIND})
    [_, (_, lines), *_] = tell(unknown, brief=True)
    assert lines == [
        f"sentiment: {estimate_line(UNKNOWN)}",
        f"emotion: {estimate_line(BLIND)}",
        f"warning: emotion: {few}",
    ]
    [_, (_, [line]), *_] = tell(facts(estimates={}))
    assert line.startswith("accuracy not known: ")


def test_recognised_words_are_told_and_captions_need_no_word() -> None:
    assert "Words" not in dict(tell(facts()))
    words = {"captions": 3, "asr:pocketsphinx": 4, "auto_captions": 1}
    [line] = dict(tell(facts(words=words)))["Words"]
    assert line.startswith(
        "recognised by pocketsphinx for 4 of 8 videos; automatic captions for 1 of 8 videos: "
        "expect errors"
    )


def test_what_is_left_out_is_counted_with_an_example_or_two() -> None:
    kinds = [
        left_out("failed", [("/a/b.mp4", "/a/b.mp4 is not a video")]),
        left_out("refused", [("https://s.example/v", "it is private")], asked=1),
        left_out("no_speech", [(f"/a/{n}.mp4", None) for n in (3, 1, 2)], asked=3),
        left_out(INCOMPLETE, [("/a/c.mp4", "incomplete: 5 bytes are missing")]),
        left_out("foreign", [("/a/d.mp4", "speaks en, not de")], count=12),
        left_out("noted", [("/a/e.mp4", "e.info.json was not read")]),
    ]
    parts = dict(tell(facts(left_out=kinds)))
    assert parts["Left out"] == [
        "1 failed: /a/b.mp4 is not a video",
        "1 address not to be had: https://s.example/v: it is private",
        "3 videos without speech: nothing to label, e.g. 1.mp4; 2.mp4",
        "1 video with an end that is missing or damaged: /a/c.mp4: 5 bytes are missing",
        "12 segments in a language the text model does not know, without its vote, e.g. "
        "/a/d.mp4: speaks en, not de",
    ]
    assert parts["Notes"] == ["1 video with a note: /a/e.mp4: e.info.json was not read"]
    assert kinds[2]["count"] == kinds[2]["asked"] == 3
    assert next_steps(facts(left_out=kinds))[-1] == "query @not_labelled"
