"""What the voice classifier hears, on small checkpoints in the layout of the real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests import bad_media
from tests.small_audio import FAMILIES, SUPERB, WIDTH, wav2vec2_er
from vsa_core.backends import Clip, voice_network
from vsa_core.backends.audio_wav2vec2 import AudioWav2vec2, Utterance, load
from vsa_core.backends.hearing import Voice
from vsa_core.errors import BackendError, ConfigError, MediaError
from vsa_core.labels import EMOTIONS, sentiment_from_emotion
from vsa_core.media import SAMPLE_RATE_HZ, probe
from vsa_core.registry import Unloadable

LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
# Where a checkpoint's convolutions norm over time, and whether its head reads all layers.
SHAPES: dict[str, dict[str, Any]] = {
    "base": {},
    "large": LAYER,
    "last layer": {"use_weighted_layer_sum": False},
    "large, last layer": LAYER | {"use_weighted_layer_sum": False},
}
SPANS_MS = [(0, 2000), (3000, 6500), (8000, 8600), (5000, 7000), (200, 11_000)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wav2vec2_er(tmp_path_factory.mktemp("er") / "checkpoint")


@pytest.fixture(scope="module")
def backend(folder: Path) -> AudioWav2vec2:
    return load(str(folder))


@pytest.fixture(scope="module")
def speech(shared: Path) -> Path:
    return shared / "speech" / "whisper_jfk.flac"


@pytest.fixture(scope="module")
def waves(speech: Path) -> list[NDArray[np.float32]]:
    """Real speech, some of it of one length."""
    media = probe(speech)
    return [media.audio_between(*span) for span in SPANS_MS]


def said(*waves: NDArray[np.float32], spoken: bool = True) -> list[Utterance]:
    """As `read` gives them, speech everywhere."""
    return [
        Utterance(Voice(wave, np.ones(-(-len(wave) // 512), np.float32)), spoken) for wave in waves
    ]


def emotions_of(probs: NDArray[np.floating], labels: tuple[str, ...] = SUPERB) -> NDArray[Any]:
    """(B, 7) of (B, 4) by hand: three are unknown, with a seventh each."""
    ours = {"neu": "neutral", "hap": "joy", "ang": "anger", "sad": "sadness"}
    out = np.full((len(probs), 7), 1 / 7)
    for label, column in zip(labels, probs.T, strict=True):
        out[:, EMOTIONS.index(ours[label])] = column * 4 / 7  # type: ignore[arg-type]
    return out


def theirs(folder: Path, waves: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """What transformers' own pipeline says, one wave at a time, in the order of the labels."""
    from transformers import pipeline

    classify = pipeline("audio-classification", model=str(folder), device="cpu")
    labels = json.loads((folder / "config.json").read_text())["id2label"].values()
    rows = []
    for wave in waves:
        found = {one["label"]: one["score"] for one in classify(wave.copy(), top_k=None)}
        rows.append([found[label] for label in labels])
    return np.array(rows, np.float32)


# --- the same numbers as the library's own ------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_it_says_what_the_pipeline_says(
    family: str, shape: str, tmp_path: Path, waves: list[NDArray[np.float32]]
) -> None:
    folder = wav2vec2_er(tmp_path, seed=3, family=family, **SHAPES[shape])
    found = load(str(folder)).predict(said(*waves))
    due = theirs(folder, waves)
    assert np.ptp(due, axis=0).max() > 0.01  # the waves differ, so the test can tell
    np.testing.assert_allclose(found.emotion_probs, emotions_of(due), atol=1e-4)
    assert found.embedding.shape == (len(waves), WIDTH)


@pytest.mark.parametrize("normalised", [True, False])
def test_the_front_end_is_as_its_file_says(
    tmp_path: Path, waves: list[NDArray[np.float32]], normalised: bool
) -> None:
    folder = wav2vec2_er(tmp_path, front_end={"do_normalize": normalised})
    quiet = [(0.05 * wave + 0.01).astype(np.float32) for wave in waves]
    found = load(str(folder)).predict(said(*quiet))
    np.testing.assert_allclose(found.emotion_probs, emotions_of(theirs(folder, quiet)), atol=1e-4)


def test_the_published_file_with_its_old_names_loads_whole(
    folder: Path, backend: AudioWav2vec2, tmp_path: Path, waves: list[NDArray[np.float32]]
) -> None:
    """`weight_g` and `weight_v` in a pickle: the same network under other names."""
    old = load(str(wav2vec2_er(tmp_path, pickled=True)))
    assert [path.name for path in tmp_path.glob("*.bin")] == ["pytorch_model.bin"]
    found, due = old.predict(said(*waves)), backend.predict(said(*waves))
    np.testing.assert_allclose(found.emotion_probs, due.emotion_probs, atol=1e-6)
    np.testing.assert_allclose(found.embedding, due.embedding, atol=1e-5)
    assert old.id != backend.id  # another file


def test_the_embedding_is_what_the_head_reads(
    folder: Path, backend: AudioWav2vec2, waves: list[NDArray[np.float32]]
) -> None:
    """Through the checkpoint's own head it gives the votes; it is not the votes."""
    from safetensors.torch import load_file

    head = {name: value.numpy() for name, value in load_file(folder / "model.safetensors").items()}
    found = backend.predict(said(*waves))
    x = found.embedding @ head["projector.weight"].T + head["projector.bias"]
    logits = x @ head["classifier.weight"].T + head["classifier.bias"]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.emotion_probs, emotions_of(probs), atol=1e-4)


# --- batches ------------------------------------------------------------------------------


# transformers' WavLM gives torch masks of two kinds where waves are padded.
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")
@pytest.mark.parametrize("at_once_s", [0.0, 5.0, 1000.0])
@pytest.mark.parametrize("shape", ["base", "large"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_changes_nothing(
    family: str,
    shape: str,
    at_once_s: float,
    tmp_path: Path,
    waves: list[NDArray[np.float32]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many go through the network at once, as on a GPU."""
    monkeypatch.setitem(voice_network._AT_ONCE_S, "cpu", at_once_s)
    backend = load(str(wav2vec2_er(tmp_path, seed=3, family=family, **SHAPES[shape])))
    together = backend.predict(said(*waves))
    for row, wave in enumerate(waves):
        alone = backend.predict(said(wave))
        np.testing.assert_allclose(alone.emotion_probs[0], together.emotion_probs[row], atol=1e-4)
        np.testing.assert_allclose(alone.embedding[0], together.embedding[row], atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "sizes"), [("base", [1, 2, 1, 1]), ("large", [5]), ("last layer", [1, 2, 1, 1])]
)
def test_only_networks_trained_with_a_mask_get_padding(
    shape: str,
    sizes: list[int],
    tmp_path: Path,
    waves: list[NDArray[np.float32]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(voice_network._AT_ONCE_S, "cpu", 1000.0)
    backend = load(str(wav2vec2_er(tmp_path, **SHAPES[shape])))
    batches = list(backend._network._batches([len(wave) for wave in waves]))
    assert [len(batch) for batch in batches] == sizes
    assert sorted(row for batch in batches for row in batch) == list(range(len(waves)))


# --- windows ------------------------------------------------------------------------------


def test_a_long_voice_is_heard_in_windows(
    folder: Path, backend: AudioWav2vec2, waves: list[NDArray[np.float32]]
) -> None:
    """10.8 s at most 4 s at once: three windows of 3.6 s."""
    long = waves[-1]
    found = load(str(folder), max_s=4).predict(said(long))
    third = len(long) // 3
    parts = backend.predict(said(*(long[i * third : (i + 1) * third] for i in range(3))))
    np.testing.assert_allclose(found.emotion_probs[0], parts.emotion_probs.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.embedding[0], parts.embedding.mean(axis=0), atol=1e-5)


def test_windows_count_by_the_speech_in_them(
    folder: Path, backend: AudioWav2vec2, waves: list[NDArray[np.float32]]
) -> None:
    """Speech in the first window and half of the second; the third is not heard at all."""
    long = waves[-1][: 3 * 4 * SAMPLE_RATE_HZ // 2]
    size = len(long) // 3
    speech = np.zeros(-(-len(long) // 512), np.float32)
    speech[: round(1.5 * size / 512)] = 0.9
    cut = load(str(folder), max_s=2)
    found = cut.predict([Utterance(Voice(long, speech))])
    parts = backend.predict(said(long[:size], long[size : 2 * size]))
    weights = np.array([2 / 3, 1 / 3])
    np.testing.assert_allclose(found.emotion_probs[0], weights @ parts.emotion_probs, atol=2e-3)
    noisy = long.copy()
    noisy[2 * size :] = np.random.default_rng(0).standard_normal(len(long) - 2 * size)
    again = cut.predict([Utterance(Voice(noisy, speech))])
    np.testing.assert_array_equal(again.embedding, found.embedding)


# --- emotions and sentiment ---------------------------------------------------------------


def test_what_it_does_not_know_it_says_nothing_on(
    folder: Path, backend: AudioWav2vec2, waves: list[NDArray[np.float32]]
) -> None:
    found = backend.predict(said(*waves))
    unknown = [EMOTIONS.index(name) for name in ("disgust", "fear", "surprise")]  # type: ignore[arg-type]
    np.testing.assert_allclose(found.emotion_probs[:, unknown], 1 / 7, atol=1e-6)
    np.testing.assert_allclose(found.emotion_probs.sum(axis=1), 1, atol=1e-6)
    assert found.emotion_probs.dtype == found.sentiment_probs.dtype == np.float32
    due = theirs(folder, waves)
    neu, hap, ang, sad = due.T
    np.testing.assert_allclose(
        found.sentiment_probs, np.stack([ang + sad, neu, hap], axis=1), atol=1e-4
    )


def test_all_seven_imply_the_sentiment_as_everywhere(
    tmp_path: Path, waves: list[NDArray[np.float32]]
) -> None:
    labels = ("angry", "disgust", "fearful", "happy", "neutral", "sad", "surprised", "calm")
    folder = wav2vec2_er(tmp_path, labels=labels)
    found = load(str(folder)).predict(said(*waves))
    due = theirs(folder, waves)
    due[:, 4] += due[:, 7]
    np.testing.assert_allclose(found.emotion_probs, due[:, :7], atol=1e-4)
    np.testing.assert_allclose(
        found.sentiment_probs, sentiment_from_emotion(found.emotion_probs), atol=1e-6
    )


def test_unknown_classes_are_refused_with_what_to_write(tmp_path: Path) -> None:
    labels = ("neu", "hap", "ang", "sad", "bored")
    folder = str(wav2vec2_er(tmp_path, labels=labels))
    with pytest.raises(BackendError, match=r"bored.*`labels: \{.*bored: …") as error:
        load(folder)
    assert "\n" not in str(error.value)
    given = load(folder, labels={"bored": "neutral"})
    assert given.id != load(folder, labels={"bored": "sadness"}).id
    with pytest.raises(ConfigError, match="labels has 'dull', which is none of its"):
        load(folder, labels={"dull": "neutral"})


# --- what it abstains on ------------------------------------------------------------------


def test_in_a_foreign_language_it_abstains_and_keeps_the_embedding(
    folder: Path, backend: AudioWav2vec2, speech: Path
) -> None:
    clip = Clip("s", 0, 3000, media=probe(speech))
    heard = {
        tag: backend.read(Clip("s", 0, 3000, language=tag, media=clip.media))
        for tag in ("en", "en-GB", None, "es", "zh-Hans")
    }
    assert {tag: one.spoken for tag, one in heard.items()} == {
        "en": True,
        "en-GB": True,
        None: True,
        "es": False,
        "zh-Hans": False,
    }
    home, abroad = (backend.predict([heard[tag]]) for tag in ("en", "es"))
    assert np.isnan(abroad.sentiment_probs).all()
    assert np.isnan(abroad.emotion_probs).all()
    np.testing.assert_array_equal(abroad.embedding, home.embedding)
    everywhere = load(str(folder), languages=None)
    assert everywhere.read(Clip("s", 0, 3000, language="es", media=clip.media)).spoken
    assert everywhere.id != backend.id


def test_silence_and_what_is_no_voice_is_absence(backend: AudioWav2vec2, tmp_path: Path) -> None:
    for name in ("silent", "video only", "zero-length audio", "audio only"):  # the last: a tone
        media = probe(bad_media.make(name, tmp_path))
        assert backend.read(Clip("s", 0, 2000, media=media)) is None
    assert backend.read(Clip("s", 0, 2000)) is None


def test_sound_that_is_no_number_is_an_error(backend: AudioWav2vec2, tmp_path: Path) -> None:
    samples = np.random.default_rng(0).standard_normal(32_000).astype(np.float32)
    samples[16_000:16_100] = np.nan
    path = bad_media.write(tmp_path / "nan.wav", None, samples, audio_codec="pcm_f32le")
    with pytest.raises(MediaError, match=r"nan\.wav.*export it again"):
        backend.read(Clip("s", 0, 2000, media=probe(path)))


# --- what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model_type": "whisper"}, "of the family whisper, not wav2vec2, hubert, wavlm"),
        ({"problem_type": "regression"}, "estimates numbers on a scale, no emotions"),
        (
            {"id2label": {"0": "arousal", "1": "dominance", "2": "valence"}},
            "estimates arousal, dominance, valence on a scale, no emotions",
        ),
        ({"problem_type": "multi_label_classification"}, "do not exclude one another"),
        ({"id2label": None, "architectures": ["Wav2Vec2ForCTC"]}, "has no classes"),
        ({"hidden_size": None}, "states no hidden_size"),
    ],
)
def test_what_classifies_no_emotions_is_refused(
    folder: Path, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    config = json.loads((folder / "config.json").read_text()) | changed
    other = _copied(folder, tmp_path, "config.json", {k: v for k, v in config.items() if v})
    with pytest.raises(BackendError, match=f"{message}.*wav2vec2-er"):
        load(str(other))


@pytest.mark.parametrize("front_end", [{"sampling_rate": 8000}, {"feature_size": 80}])
def test_another_sampling_rate_is_refused(tmp_path: Path, front_end: dict[str, int]) -> None:
    folder = wav2vec2_er(tmp_path, front_end=front_end)
    with pytest.raises(ConfigError, match=r"it takes .* Hz, and segments are heard at 16000 Hz"):
        load(str(folder))


@pytest.mark.parametrize("content", [None, "[]", "{"])
def test_without_a_front_end_it_is_refused(
    folder: Path, tmp_path: Path, content: str | None
) -> None:
    other = _copied(folder, tmp_path, "preprocessor_config.json", None)
    if content is not None:
        (other / "preprocessor_config.json").write_text(content)
    with pytest.raises(BackendError, match=r"preprocessor_config\.json .*pull it again"):
        load(str(other))


def test_a_head_that_the_file_does_not_fill_is_refused(
    folder: Path, tmp_path: Path, waves: list[NDArray[np.float32]]
) -> None:
    """Heads of another make load as random ones in transformers: nobody would notice."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["classifier.dense.weight"] = weights.pop("projector.weight")
    other = _copied(folder, tmp_path, "model.safetensors", None)
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(BackendError, match=r"lack projector\.weight"):
        load(str(other)).predict(said(waves[0]))


def _copied(folder: Path, target: Path, name: str, content: dict[str, Any] | None) -> Path:
    """A copy of a checkpoint in which one file is another, or none."""
    for file in folder.iterdir():
        if file.name != name:
            (target / file.name).write_bytes(file.read_bytes())
    if content is not None:
        (target / name).write_text(json.dumps(content))
    return target


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_s": 0.5}, "max_s is 0.5, allowed are 1 to 60"),
        ({"max_s": 61}, "max_s is 61"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"languages": "en"}, r"languages is 'en': write \[en\]"),
        ({"precision": "float8"}, "precision is 'float8'"),
    ],
)
def test_options_out_of_range_are_refused(
    folder: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(str(folder), **options)


def test_it_is_found_in_a_cache_in_the_layout_of_the_hub(
    folder: Path, backend: AudioWav2vec2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    there = tmp_path / "models--someone--er" / "snapshots" / ("0" * 40)
    there.mkdir(parents=True)
    _copied(folder, there, "", None)
    assert load(f"hf:someone/er@{'0' * 40}").id == backend.id  # wherever the same files lie


def test_a_checkpoint_that_is_not_here_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="missing"):
        load(str(tmp_path / "missing"))


# --- its life -----------------------------------------------------------------------------


def test_the_id_follows_what_changes_the_numbers(folder: Path, tmp_path: Path) -> None:
    path = str(folder)
    usual = load(path).id
    assert load(path, batch_size=3).id == usual
    assert load(path, device="cpu").id == usual
    changes: list[dict[str, Any]] = [
        {"max_s": 10},
        {"languages": ("en", "de")},
        {"precision": "int8"},
        {"labels": {"sad": "fear"}},
    ]
    others = {load(path, **changed).id for changed in changes}
    others.add(load(str(wav2vec2_er(tmp_path, front_end={"do_normalize": False}))).id)
    assert len(others - {usual}) == 5


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The classes of the networks that are loaded while a test runs."""
    from vsa_core.backends import checkpoints

    loads: list[str] = []
    usual: Callable[..., Any] = checkpoints._load

    def load_and_count(checkpoint: Any, auto_class: str, *rest: Any) -> Any:
        loads.append(auto_class)
        return usual(checkpoint, auto_class, *rest)

    monkeypatch.setattr(checkpoints, "_load", load_and_count)
    return loads


def test_it_is_loaded_at_its_first_use_and_again_after_unloading(
    folder: Path, waves: list[NDArray[np.float32]], counted: list[str]
) -> None:
    backend = load(str(folder))
    assert isinstance(backend, Unloadable)
    backend.unload()  # nothing is loaded yet
    assert counted == []
    first = backend.predict(said(waves[0]))
    backend.predict(said(waves[1]))
    assert len(counted) == 1
    backend.unload()
    again = backend.predict(said(waves[0]))
    assert len(counted) == 2
    np.testing.assert_array_equal(again.embedding, first.embedding)


def test_two_threads_at_once_see_the_same(
    folder: Path, waves: list[NDArray[np.float32]], counted: list[str]
) -> None:
    backend = load(str(folder))
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: backend.predict(said(*waves)), range(4)))
    assert len(counted) == 1
    for one in found[1:]:
        np.testing.assert_allclose(one.embedding, found[0].embedding, atol=1e-6)
        np.testing.assert_allclose(one.emotion_probs, found[0].emotion_probs, atol=1e-6)


@pytest.mark.parametrize(("precision", "close"), [("int8", 0.05), ("bfloat16", 0.05)])
@pytest.mark.parametrize("shape", ["base", "large"])
def test_other_precisions_say_nearly_the_same(
    shape: str, precision: str, close: float, tmp_path: Path, waves: list[NDArray[np.float32]]
) -> None:
    # 16 channels a group; published networks have 48 and more. With 4 to 12, bfloat16 on a
    # processor with AMX is garbage in PyTorch 2.13 (its oneDNN's grouped convolutions).
    groups = {"num_conv_pos_embedding_groups": WIDTH // 16}
    folder = str(wav2vec2_er(tmp_path, **SHAPES[shape], **groups))
    whole, less = (load(folder, precision=p).predict(said(*waves)) for p in ("float32", precision))
    np.testing.assert_allclose(less.emotion_probs, whole.emotion_probs, atol=close)
    assert np.abs(less.embedding - whole.embedding).max() > 1e-6  # it is another network
    assert less.embedding.dtype == np.float32
