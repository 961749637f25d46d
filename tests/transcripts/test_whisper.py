"""Both Whisper transcribers on real files: words end to end, and files nobody should trust."""

from __future__ import annotations

import json
import re
import shutil
import sys
import threading
import wave
import zipfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.small_whisper import (
    ENGLISH,
    SENTENCE,
    ctranslate2_folder,
    dimensions,
    openai_file,
    state,
    tokenizer,
)
from vsa_core.cues import Transcript
from vsa_core.errors import BackendError, ConfigError
from vsa_core.media import Media, probe
from vsa_core.transcripts.asr import Transcriber, load_transcriber
from vsa_core.transcripts.whisper_ct2 import FasterWhisper
from vsa_core.transcripts.whisper_ct2 import load as load_ct2
from vsa_core.transcripts.whisper_file import alignment_heads, languages, read_dimensions
from vsa_core.transcripts.whisper_openai import OpenAIWhisper
from vsa_core.transcripts.whisper_openai import load as load_openai
from vsa_core.transcripts.whisper_speech import (
    Options,
    WhisperTranscriber,
)
from vsa_core.transcripts.whisper_timing import cheapest_way, timed_words
from vsa_core.transcripts.whisper_windows import Timed

Samples = NDArray[np.float32]
RATE = 16_000
OPTIONS = Options(None, batch_size=2, beam_size=1, no_speech=0.6, min_logprob=-1.0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in a run: torch's threads wait for one another for seconds on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def jfk(shared: Path) -> Media:
    """11 s of speech with pauses."""
    return probe(shared / "speech" / "whisper_jfk.flac")


@pytest.fixture(scope="module")
def long_speech(jfk: Media, tmp_path_factory: pytest.TempPathFactory) -> Media:
    """44 s of the same: two windows."""
    path = tmp_path_factory.mktemp("speech") / "long.wav"
    once = np.concatenate([samples for _, samples in jfk.audio()])
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((np.tile(once, 4) * 32767).astype("<i2").tobytes())
    return probe(path)


@pytest.fixture
def silence(tmp_path: Path) -> Media:
    path = tmp_path / "silence.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(bytes(2 * 3 * RATE))
    return probe(path)


# --- words end to end -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return state()


@pytest.fixture(scope="module")
def small_file(weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return openai_file(tmp_path_factory.mktemp("whisper") / "small.pt", weights)


@pytest.fixture(scope="module")
def small_folder(
    weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return ctranslate2_folder(tmp_path_factory.mktemp("whisper") / "small", weights)


def openai(path: Path, **options: Any) -> WhisperTranscriber:
    return load_openai(str(path), device="cpu", **options)


def ct2(path: Path, **options: Any) -> WhisperTranscriber:
    return load_ct2(str(path), device="cpu", **options)


@pytest.fixture(params=["openai", "ct2"])
def small(request: pytest.FixtureRequest, small_file: Path, small_folder: Path) -> Any:
    """Loads either transcriber with options."""
    if request.param == "openai":
        return lambda **options: openai(small_file, **options)
    return lambda **options: ct2(small_folder, **options)


def test_words_of_a_real_recording(
    small: Callable[..., Transcriber], jfk: Media, capfd: pytest.CaptureFixture[str]
) -> None:
    transcriber = small(beam_size=2)
    assert isinstance(transcriber, Transcriber)
    assert transcriber.language is None
    found = transcriber.transcribe(jfk)
    name = transcriber.id.partition("@")[0]
    assert (found.source, found.language, found.note) == (f"asr:{name}", "en", None)
    assert " ".join(cue.text for cue in found.cues) == SENTENCE.strip()
    assert len(found.cues) > 1
    assert all(left.end_ms <= right.start_ms for left, right in pairwise(found.cues))
    for cue in found.cues:
        assert " ".join(word.text for word in cue.words) == cue.text
        times = [ms for word in cue.words for ms in (word.start_ms, word.end_ms)]
        assert times == sorted(times)
        assert cue.start_ms <= times[0] <= times[-1] <= cue.end_ms
    assert capfd.readouterr().out == ""


def test_where_nobody_speaks_no_model_is_loaded(
    small: Callable[..., Transcriber], silence: Media, monkeypatch: pytest.MonkeyPatch
) -> None:
    for engine in (OpenAIWhisper, FasterWhisper):
        monkeypatch.setattr(engine, "__init__", None)
    assert small().transcribe(silence).cues == ()


def test_batches_threads_and_beams_hear_the_same(
    small: Callable[..., Transcriber], long_speech: Media
) -> None:
    expected = small(batch_size=1).transcribe(long_speech)
    assert len(expected.cues) > 5
    transcriber = small(batch_size=8)
    found: list[Transcript] = []
    threads = [
        threading.Thread(target=lambda: found.append(transcriber.transcribe(long_speech)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 2


def test_both_find_the_same_words_at_the_same_times(
    small_file: Path, small_folder: Path, jfk: Media
) -> None:
    ours = openai(small_file).transcribe(jfk)
    theirs = ct2(small_folder, precision="float32").transcribe(jfk)
    assert [cue.text for cue in ours.cues] == [cue.text for cue in theirs.cues]
    for cue, other in zip(ours.cues, theirs.cues, strict=True):
        for word, same in zip(cue.words, other.words, strict=True):
            assert word.text == same.text
            assert abs(word.start_ms - same.start_ms) <= 20
            assert abs(word.end_ms - same.end_ms) <= 20


@pytest.fixture(scope="module")
def unsure_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whisper") / "unsure.pt"
    return openai_file(path, state(sureness=0.05, text_ctx=32), text_ctx=32)


def test_sampling_is_the_same_each_time(unsure_file: Path, jfk: Media) -> None:
    """A model that is sure of nothing is sampled; nobody else's random numbers change."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    transcriber = openai(unsure_file, language="en", min_logprob=-0.5)
    first = transcriber.transcribe(jfk)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    torch.rand(7)
    assert transcriber.transcribe(jfk) == first
    engine = OpenAIWhisper(unsure_file, "cpu", "float32", 1)
    encoded = engine.encode([np.zeros(RATE, np.float32)] * 2)
    texts = [engine.decode(encoded, [0, 1], "en", attempt) for attempt in (0, 3, 5)]
    assert all(one.tokens == other.tokens for one, other in texts)
    assert len({tuple(one.tokens) for one, _ in texts}) == 3


def test_an_unsure_language_of_a_real_model(unsure_file: Path, jfk: Media) -> None:
    found = openai(unsure_file).transcribe(jfk)
    assert found.language is None
    assert re.match(r"speech sounds most like \w\w, but only to \d+%", found.note or "")


def test_a_loop_of_a_real_model_is_left_out(jfk: Media, tmp_path: Path) -> None:
    weights = state(" so" * 20, sureness=3.0)
    found = openai(openai_file(tmp_path / "loops.pt", weights)).transcribe(jfk)
    assert found.cues == ()
    assert found.note == "3 of 3 stretches of speech gave no words to rely on"
    # CTranslate2 is told not to repeat itself.
    engine = FasterWhisper(ctranslate2_folder(tmp_path / "loops", weights), "cpu", "int8", 2)
    encoded = engine.encode([np.zeros(RATE, np.float32)] * 2)
    assert [decoded.loops for decoded in engine.decode(encoded, [0, 1], "en", 0)] == [True] * 2
    (again,) = engine.decode(encoded, [1], "en", 1)
    assert not again.loops


def test_silence_of_a_real_model_is_left_out(jfk: Media, tmp_path: Path) -> None:
    path = openai_file(tmp_path / "quiet.pt", state(no_speech=3.0, sureness=0.3))
    assert openai(path, language="en", min_logprob=0.0).transcribe(jfk).cues == ()
    assert openai(path, language="en", min_logprob=-99).transcribe(jfk).cues


def test_half_precision_says_the_same(small_file: Path) -> None:
    """What a GPU computes in, here on the processor."""
    sound = [np.random.default_rng(0).normal(0, 0.1, 3 * RATE).astype(np.float32)]
    whole, half = (OpenAIWhisper(small_file, "cpu", p, 1) for p in ("float32", "float16"))
    assert half._model.decoder.blocks[0].mlp[0].weight.dtype == torch.float16
    (one,) = whole.decode(whole.encode(sound), [0], "en", 0)
    encoded = half.encode(sound)
    (other,) = half.decode(encoded, [0], "en", 0)
    assert one.text == other.text == SENTENCE.strip()
    (words,) = half.words(encoded, [other.tokens], "en")
    assert "".join(word.text for word in words) == SENTENCE


def test_word_times_are_the_package_s_own(
    small_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import whisper
    from whisper import timing

    monkeypatch.setattr(timing, "dtw", lambda x: np.stack(cheapest_way(x.double().numpy())))
    model = whisper.load_model(str(small_file))
    rng = np.random.default_rng(0)
    mel = whisper.pad_or_trim(
        whisper.log_mel_spectrogram(rng.normal(0, 0.1, 5 * RATE).astype(np.float32)), 3000
    )
    words = tokenizer()
    tokens = words.encode(SENTENCE)
    expected = timing.find_alignment(model, words, tokens, mel, 500)
    timing.merge_punctuations(expected, "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、")
    with torch.inference_mode():
        states = model.encoder(mel[None])[0]
    found = timed_words(model, words, tokens, states, 250)
    assert found == [Timed(each.word, each.start, each.end) for each in expected if each.word]
    assert len({word.start_s for word in found}) > 3
    assert not model.decoder.blocks[1].cross_attn._forward_pre_hooks


def test_the_cheapest_way_is_the_package_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from whisper import timing

    monkeypatch.setattr(timing, "backtrace", timing.backtrace.py_func)
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (1, 5), (5, 1), (7, 30), (30, 7)):
        cost = rng.integers(0, 4, shape).astype(float)  # with ties
        found = cheapest_way(cost)
        np.testing.assert_array_equal(np.stack(found), timing.dtw_cpu.py_func(cost))


@pytest.mark.parametrize("name", ["whisper", "faster-whisper"])
def test_devices_and_precisions_out_of_range_are_refused(name: str) -> None:
    for options in ({"device": "tpu"}, {"precision": "int4"}, {"precision": "float16"}):
        with pytest.raises(ConfigError, match="give auto"):
            load_transcriber(name, {"model": "unread", "device": "cpu", **options})
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="none here"):
            load_transcriber(name, {"model": "unread", "device": "cuda"})


# --- English only -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["openai", "ct2"])
def test_an_english_model_speaks_english(kind: str, jfk: Media, tmp_path: Path) -> None:
    load, write = {"openai": (openai, openai_file), "ct2": (ct2, ctranslate2_folder)}[kind]
    path = write(tmp_path / "english", state(vocabulary=ENGLISH, no_speech=3.0, sureness=0.3))
    transcriber = load(path, min_logprob=-99)  # it takes any sound for no speech
    assert transcriber.language == "en"
    found = transcriber.transcribe(jfk)
    assert found.language == "en"
    assert " ".join(cue.text for cue in found.cues) == SENTENCE.strip()
    assert load(path, no_speech=0.3, min_logprob=0).transcribe(jfk).cues == ()
    assert load(path, language="en-GB").language == "en-GB"
    with pytest.raises(ConfigError, match="speaks only English"):
        load(path, language="de")


def test_languages_and_heads_by_dimensions() -> None:
    import whisper

    assert len(languages(dimensions())) == 99
    assert languages(dimensions(51_866))[-1] == "yue"
    tiny = dimensions(layers=4)
    assert alignment_heads(tiny) == whisper._ALIGNMENT_HEADS["tiny"]
    assert alignment_heads(tiny | {"n_vocab": ENGLISH}) == whisper._ALIGNMENT_HEADS["tiny.en"]
    turbo = dimensions(51_866, layers=32) | {"n_mels": 128, "n_text_layer": 4}
    assert alignment_heads(turbo) == whisper._ALIGNMENT_HEADS["turbo"]
    assert alignment_heads(dimensions()) is None


# --- files nobody should trust ------------------------------------------------------------


class Code:
    def __reduce__(self) -> Any:
        return (exec, ("raise KeyboardInterrupt",))  # would end the tests


def write_code(path: Path, state: dict[str, Any]) -> None:
    torch.save({"dims": dimensions(), "model_state_dict": Code()}, path)


def write_text(path: Path, state: dict[str, Any]) -> None:
    path.write_text("404: not found")


def write_empty(path: Path, state: dict[str, Any]) -> None:
    path.touch()


def write_truncated(path: Path, state: dict[str, Any]) -> None:
    torch.save({"dims": dimensions(), "model_state_dict": state}, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_packed(path: Path, state: dict[str, Any]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(10_000_000))


def write_list(path: Path, state: dict[str, Any]) -> None:
    torch.save([1, 2], path)


def write_wide(path: Path, state: dict[str, Any]) -> None:
    torch.save({"dims": dimensions(width=10**9), "model_state_dict": state}, path)


def write_deep(path: Path, state: dict[str, Any]) -> None:
    """Within the limits, but more than the file has: one number shown again and again."""
    one = torch.zeros(1)
    dims = dimensions(width=2048, layers=64)
    from whisper.model import AudioEncoder, TextDecoder

    with torch.device("meta"):
        parts = {
            "encoder": AudioEncoder(80, 1500, 2048, 2, 64),
            "decoder": TextDecoder(dims["n_vocab"], 448, 2048, 2, 64),
        }
    false = {
        f"{part}.{name}": one.expand(value.shape)
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }
    torch.save({"dims": dims, "model_state_dict": false}, path)


def write_odd_heads(path: Path, state: dict[str, Any]) -> None:
    torch.save({"dims": dimensions(heads=3), "model_state_dict": state}, path)


def write_other_dims(path: Path, state: dict[str, Any]) -> None:
    dims: dict[str, Any] = dimensions() | {"trust_remote_code": True}
    torch.save({"dims": dims, "model_state_dict": state}, path)


def write_float(path: Path, state: dict[str, Any]) -> None:
    torch.save({"dims": dimensions() | {"n_mels": 80.0}, "model_state_dict": state}, path)


def write_missing(path: Path, state: dict[str, Any]) -> None:
    rest = {name: value for name, value in state.items() if name != "encoder.conv1.weight"}
    torch.save({"dims": dimensions(), "model_state_dict": rest}, path)


def write_other_shape(path: Path, state: dict[str, Any]) -> None:
    other = state | {"encoder.conv1.weight": torch.zeros(64, 80, 5)}
    torch.save({"dims": dimensions(), "model_state_dict": other}, path)


def write_more(path: Path, state: dict[str, Any]) -> None:
    other = state | {"encoder.head.weight": torch.zeros(1)}
    torch.save({"dims": dimensions(), "model_state_dict": other}, path)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (write_code, "UnpicklingError in reading it"),
        (write_text, "Error in reading it"),
        (write_empty, "EOFError in reading it"),
        (write_truncated, "Error in reading it"),
        (write_packed, "ValueError in reading it"),
        (write_list, "no dims and model_state_dict"),
        (write_wide, "n_audio_state is 1000000000"),
        (write_deep, "smaller than its weights"),
        (write_odd_heads, "contradict one another"),
        (write_other_dims, "not Whisper's"),
        (write_float, "n_mels is 80.0"),
        (write_missing, r"has no encoder\.conv1\.weight"),
        (write_other_shape, r"\[64, 80, 5\], not \[64, 80, 3\]"),
        (write_more, r"Whisper has not: 'encoder\.head\.weight'"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused(
    write: Callable[[Path, dict[str, Any]], None],
    reason: str,
    weights: dict[str, torch.Tensor],
    tmp_path: Path,
) -> None:
    path = tmp_path / "whisper.pt"
    write(path, weights)
    with pytest.raises(BackendError, match=reason) as caught:
        openai(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_folder_is_no_checkpoint_and_a_missing_file_none(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no file"):
        read_dimensions(tmp_path)
    for load in (openai, ct2):
        with pytest.raises(BackendError, match="no-such"):
            load(tmp_path / "no-such")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("model.bin", None, "no model.bin"),
        ("tokenizer.json", None, "no tokenizer.json"),
        ("vocabulary.json", None, "no vocabulary"),
        ("vocabulary.json", "{}", "no vocabulary"),
        ("vocabulary.json", "[" * 100_000, "is not JSON"),
        ("vocabulary.json", '["a", "b"]', "has 2 words"),
        ("vocabulary.json", b"\xff\xfe", "cannot be read"),
        ("preprocessor_config.json", '{"n_fft": 2000000000}', "other features"),
        ("preprocessor_config.json", "[]", "other features"),
        ("model.bin", "404: not found", "does not load"),
        ("model.bin", b"", "does not load"),
        ("model.bin", "half", "does not load"),
        ("tokenizer.json", "{}", "does not load"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(
    name: str, content: Any, reason: str, small_folder: Path, jfk: Media, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(small_folder, folder)
    if content is None:
        (folder / name).unlink()
    elif content == "half":
        (folder / name).write_bytes((folder / name).read_bytes()[:1_000_000])
    else:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BackendError, match=reason) as caught:
        ct2(folder).transcribe(jfk)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_folder_without_its_languages_needs_one(
    small_folder: Path, jfk: Media, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(small_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"lang_ids": []}))
    with pytest.raises(BackendError, match="set language"):
        ct2(folder).transcribe(jfk)
    assert ct2(folder, language="en").transcribe(jfk).cues


def test_an_older_folder_lists_its_vocabulary_as_text(small_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(small_folder, folder)
    words = json.loads((folder / "vocabulary.json").read_text())
    (folder / "vocabulary.json").unlink()
    (folder / "vocabulary.txt").write_text("\n".join(words) + "\n")
    engine = FasterWhisper(folder, "cpu", "int8", 1)
    (decoded,) = engine.decode(engine.encode([np.zeros(RATE, np.float32)]), [0], "en", 0)
    assert decoded.text == SENTENCE.strip()


def test_a_missing_package_is_named(
    small_file: Path, small_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(BackendError, match=r"pip install 'vsa\[faster-whisper\]'"):
        ct2(small_folder)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match="pip install openai-whisper"):
        openai(small_file)


def test_eight_bits_are_the_processor_s_default(small_folder: Path) -> None:
    assert ct2(small_folder).id == ct2(small_folder, precision="int8").id
    assert ct2(small_folder).id != ct2(small_folder, precision="float32").id
