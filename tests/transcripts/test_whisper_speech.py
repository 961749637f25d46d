"""What Whisper hears and what of it is believed, with engines that say what they are told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vsa_core.cues import Transcript
from vsa_core.errors import BackendError, ConfigError
from vsa_core.media import Media
from vsa_core.transcripts import whisper_speech
from vsa_core.transcripts.whisper_speech import (
    Decoded,
    Options,
    WhisperTranscriber,
    spoken_language,
    transcriber_id,
)
from vsa_core.transcripts.whisper_windows import Timed, Window, windows
from vsa_core.voice import Span

Samples = NDArray[np.float32]
RATE = 16_000
OPTIONS = Options(None, batch_size=2, beam_size=1, no_speech=0.6, min_logprob=-1.0)


# --- windows and words --------------------------------------------------------------------


def span(start_ms: int, end_ms: int) -> Span:
    return Span(start_ms, end_ms, np.zeros((end_ms - start_ms) * RATE // 1000, np.float32))


def test_windows_hold_as_many_spans_as_fit() -> None:
    spans = [span(ms, ms + 9_000) for ms in range(0, 70_000, 10_000)]
    found = list(windows(iter(spans)))
    assert [len(window.spans) for window in found] == [3, 3, 1]
    assert [each for window in found for each in window.spans] == spans
    assert found[0].samples.shape == (27 * RATE,)
    exact = [span(0, 28_600), span(30_000, 31_400), span(32_000, 32_300)]
    assert [len(window.spans) for window in windows(iter(exact))] == [2, 1]
    assert list(windows(iter(()))) == []


def test_a_damaged_sample_is_silence() -> None:
    broken = replace(span(0, 1000), samples=np.array([np.nan, np.inf, -np.inf, 3, 0.5], np.float32))
    np.testing.assert_array_equal(Window((broken,)).samples, [0, 1, -1, 1, 0.5])


def cues(words: Sequence[tuple[str, float, float]], *, spaced: bool = True) -> list[Any]:
    """Of 2 s from 1 s on and 3 s from a minute on."""
    window = Window((span(1_000, 3_000), span(60_000, 63_000)))
    found = list(window.cues([Timed(*word) for word in words], spaced=spaced))
    for cue in found:
        times = [ms for word in cue.words for ms in (word.start_ms, word.end_ms)]
        assert times == sorted(times)
        assert cue.start_ms <= times[0] <= times[-1] <= cue.end_ms
    return [
        (cue.start_ms, cue.end_ms, cue.text, [(w.start_ms, w.end_ms, w.text) for w in cue.words])
        for cue in found
    ]


def test_words_go_back_to_their_spans() -> None:
    found = cues([(" One", 0.1, 0.5), (" two.", 0.5, 1.9), (" Three", 2.5, 3.0)])
    assert found == [
        (1_000, 3_000, "One two.", [(1_100, 1_500, "One"), (1_500, 2_900, "two.")]),
        (60_000, 63_000, "Three", [(60_500, 61_000, "Three")]),
    ]


def test_a_word_across_a_pause_belongs_where_its_middle_is() -> None:
    assert cues([(" here", 1.2, 2.6)])[0][3] == [(2_200, 3_000, "here")]
    assert cues([(" there", 1.6, 2.6)])[0][3] == [(60_000, 60_600, "there")]


def test_times_never_run_backwards_or_out() -> None:
    found = cues([(" a", 0.5, 1.5), (" b", 1.0, 1.2), (" c", 4.0, 9.0), (" d", 0.1, 0.2)])
    assert found[0][3] == [(1_500, 2_500, "a"), (2_500, 2_500, "b")]
    assert found[1][3] == [(62_000, 63_000, "c"), (63_000, 63_000, "d")]


def test_pieces_without_a_space_belong_to_the_word_before() -> None:
    words = [(" twenty", 0.0, 0.4), ("-one", 0.4, 0.8), (" days", 0.8, 1.0)]
    assert cues(words)[0][2:] == (
        "twenty-one days",
        [(1_000, 1_800, "twenty-one"), (1_800, 2_000, "days")],
    )
    characters = [("你", 0.0, 0.4), ("好", 0.4, 0.8), (" ok", 0.8, 1.0)]
    assert cues(characters, spaced=False)[0][2:] == (
        "你好 ok",
        [(1_000, 1_400, "你"), (1_400, 1_800, "好"), (1_800, 2_000, "ok")],
    )


def test_what_is_no_text_is_no_cue() -> None:
    assert cues([(" …", 0.0, 0.4), ("\ufffd", 0.4, 0.5)]) == []
    assert cues([(" a\ufffd", 0.0, 0.4), (" \n", 0.4, 0.5)])[0][2:] == ("a", [(1_000, 1_400, "a")])


# --- options ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch_size", 0),
        ("batch_size", True),
        ("beam_size", 17),
        ("beam_size", 2.5),
        ("no_speech", 1.1),
        ("no_speech", "high"),
        ("min_logprob", 0.5),
        ("min_logprob", float("nan")),
        ("language", False),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"whisper: {option} is"):
        replace(OPTIONS, **{option: value}).check("whisper")


def test_languages_by_their_tags() -> None:
    spoken = ("de", "en", "jw", "no", "zh")
    codes = {"de": "de", "de-AT": "de", "EN_us": "en", "jv": "jw", "nb": "no", "cmn-Hans": "zh"}
    for tag, code in codes.items():
        assert replace(OPTIONS, language=tag).code("whisper", "m", spoken) == code
    assert OPTIONS.code("whisper", "m", spoken) is None
    assert OPTIONS.code("whisper", "m", ("en",)) == "en"
    with pytest.raises(ConfigError, match="'fr', and m speaks 5 other languages"):
        replace(OPTIONS, language="fr").code("whisper", "m", spoken)


def test_the_id_tells_what_changes_words() -> None:
    ids = {
        transcriber_id("whisper", OPTIONS, "hash", "float32"),
        transcriber_id("whisper", replace(OPTIONS, batch_size=8), "hash", "float32"),
        transcriber_id("whisper", OPTIONS, "other", "float32"),
        transcriber_id("whisper", OPTIONS, "hash", "float16"),
        *(
            transcriber_id("whisper", replace(OPTIONS, **change), "hash", "float32")
            for change in ({"language": "de"}, {"beam_size": 2}, {"no_speech": 0.5})
        ),
    }
    assert len(ids) == 6
    assert all(re.fullmatch("whisper@[0-9a-f]{12}", id_) for id_ in ids)


# --- what is believed ---------------------------------------------------------------------


LOOP = "and then " * 40


class Scripted:
    """An engine that says what it is told, by window and attempt; a window's text comes evenly."""

    attempts = 3

    def __init__(self, said: list[list[Decoded]], heard: list[dict[str, float]]) -> None:
        self.said, self.heard = said, heard
        self.windows = 0
        self.calls: list[tuple[list[int], str, int]] = []

    def encode(self, batch: Sequence[Samples]) -> list[tuple[int, float]]:
        first, self.windows = self.windows, self.windows + len(batch)
        return [(first + i, len(samples) / RATE) for i, samples in enumerate(batch)]

    def language_probs(self, encoded: list[tuple[int, float]]) -> list[dict[str, float]]:
        return [self.heard[number] for number, _ in encoded]

    def decode(
        self, encoded: list[tuple[int, float]], rows: Sequence[int], language: str, attempt: int
    ) -> list[Decoded]:
        numbers = [encoded[row][0] for row in rows]
        self.calls.append((numbers, language, attempt))
        return [self.said[number][attempt] for number in numbers]

    def words(
        self, encoded: list[tuple[int, float]], tokens: Sequence[list[int]], language: str
    ) -> list[list[Timed]]:
        return [
            [Timed(f" w{token}", seconds * i / len(t), seconds * (i + 1) / len(t))
             for i, token in enumerate(t)]
            for t, (_, seconds) in zip(tokens, encoded, strict=True)
        ]  # fmt: skip


def said(token: int, text: str = "words", logprob: float = -0.2, silence: float = 0.1) -> Decoded:
    return Decoded([token] * 40, text, logprob, silence)


SPOKEN = [span(ms, ms + 9_000) for ms in range(0, 90_000, 10_000)]  # three windows of three


def transcribed(transcriber: WhisperTranscriber, spoken: Sequence[Span]) -> Transcript:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whisper_speech, "speech_spans", lambda blocks, **_: iter(spoken))
        return transcriber.transcribe(Media(Path("unread"), 0, None, None, None, False, False))


def heard(
    engine: Scripted, options: Options = OPTIONS, spoken: Sequence[Span] = SPOKEN
) -> Transcript:
    transcriber = WhisperTranscriber("whisper@0", options, options.language, lambda: engine)
    return transcribed(transcriber, spoken)


def texts(found: Transcript) -> set[str]:
    return {word for cue in found.cues for word in cue.text.split()}


ENGLISH_HEARD = [{"en": 0.9, "de": 0.1}] * 3


def test_the_first_good_decoding_is_taken() -> None:
    bad = [said(1, LOOP), said(2, logprob=-1.5), said(3, logprob=-0.9)]
    engine = Scripted([[said(0)], bad, [said(9)]], ENGLISH_HEARD)
    found = heard(engine)
    assert engine.calls == [([0, 1], "en", 0), ([1], "en", 1), ([1], "en", 2), ([2], "en", 0)]
    assert texts(found) == {"w0", "w3", "w9"}
    assert [cue.start_ms for cue in found.cues] == [span.start_ms for span in SPOKEN]
    assert (found.source, found.language, found.note) == ("asr:whisper", "en", None)


def test_without_a_good_one_the_likeliest_that_does_not_loop() -> None:
    bad = [said(1, LOOP, logprob=-0.1), said(2, logprob=-1.5), said(3, logprob=-1.7)]
    found = heard(Scripted([[said(0)], bad, [said(9)]], ENGLISH_HEARD))
    assert texts(found) == {"w0", "w2", "w9"}
    assert found.note is None


@pytest.mark.parametrize(
    "invented",
    [
        [said(1, logprob=-1.1, silence=0.61)],  # silence, and unsure: not even tried again
        [said(1, LOOP)] * 3,
        [Decoded([], "", -0.1, 0.1)],
        [said(1, "…")],
    ],
    ids=["silence", "loop", "nothing", "no letter"],
)
def test_invented_text_is_left_out(invented: list[Decoded]) -> None:
    engine = Scripted([[said(0)], invented, [said(9)]], ENGLISH_HEARD)
    found = heard(engine)
    assert texts(found) == {"w0", "w9"}
    assert found.note == "3 of 9 stretches of speech gave no words to rely on"
    assert len([call for call in engine.calls if 1 in call[0]]) == len(invented)


def test_a_voice_that_may_be_silence_stands_when_the_text_is_sure() -> None:
    assert texts(heard(Scripted([[said(1, silence=0.99)]] * 3, ENGLISH_HEARD))) == {"w1"}


def test_the_language_is_voted_on() -> None:
    votes = [{"en": 0.9, "de": 0.1}, {"en": 0.2, "de": 0.8}, {"en": 0.1, "de": 0.9}]
    for size in (1, 2, 8):
        engine = Scripted([[said(0)]] * 3, list(votes))
        assert heard(engine, replace(OPTIONS, batch_size=size)).language == "de"
        assert {language for _, language, _ in engine.calls} == {"de"}
    assert spoken_language(votes[:2], [1.0, 9.0])[0] == "de"
    assert spoken_language(votes[:2], [9.0, 1.0]) == ("en", pytest.approx(0.83))


def test_the_first_two_minutes_vote_however_many_are_heard_at_once() -> None:
    spoken = [span(ms, ms + 20_000) for ms in range(0, 300_000, 30_000)]
    votes = [{"en": 0.6, "de": 0.4}] * 4 + [{"en": 0.0, "de": 1.0}] * 6
    for size in (1, 3, 8):
        engine = Scripted([[said(0)]] * 10, votes)
        found = heard(engine, replace(OPTIONS, batch_size=size), spoken)
        assert (found.language, len(found.cues)) == ("en", 10)


def test_an_unsure_language_is_decoded_but_not_told() -> None:
    engine = Scripted([[said(0)]] * 3, [{"jw": 0.45, "en": 0.3, "de": 0.25}] * 3)
    found = heard(engine)
    assert found.language is None
    assert found.note == "speech sounds most like jw, but only to 45%"
    assert engine.calls[0][1] == "jw"
    sure = heard(Scripted([[said(0)]] * 3, [{"jw": 0.9, "en": 0.1}] * 3))
    assert (sure.language, sure.note) == ("jv", None)


def test_a_given_language_is_not_found_out() -> None:
    engine = Scripted([[said(0)]] * 3, [])
    assert heard(engine, replace(OPTIONS, language="de")).language == "de"
    assert engine.calls[0][1] == "de"


def test_the_model_is_loaded_for_speech_and_once_until_it_is_unloaded() -> None:
    loads = []

    def engine() -> Scripted:
        loads.append(1)
        return Scripted([[said(0)]] * 3, ENGLISH_HEARD)

    transcriber = WhisperTranscriber("whisper@0", replace(OPTIONS, batch_size=8), "en", engine)
    assert transcribed(transcriber, []) == Transcript((), "asr:whisper", "en")
    assert not loads
    transcribed(transcriber, SPOKEN[:3])
    transcribed(transcriber, SPOKEN[:3])
    assert len(loads) == 1
    transcriber.unload()
    transcribed(transcriber, SPOKEN[:3])
    assert len(loads) == 2


def test_a_failing_model_is_told_in_a_line() -> None:
    class Failing(Scripted):
        def encode(self, batch: Sequence[Samples]) -> Any:
            raise RuntimeError("CUDA out of memory.\nTried to allocate …")

    with pytest.raises(BackendError, match=r"CUDA out of memory.*smaller batch_size") as caught:
        heard(Failing([], []))
    assert "\n" not in str(caught.value)
