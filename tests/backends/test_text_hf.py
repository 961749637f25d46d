"""The transformers text backends: what they read, what they say, and what they refuse."""

from __future__ import annotations

import csv
import gc
import importlib.util
import shutil
import socket
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from tests.small_checkpoints import EMOTIONS as EMOTION_NAMES
from tests.small_checkpoints import WIDTH, bert, edit_config, roberta, xlm_roberta
from vsa_core.backends import Backend, Clip, Prediction, checkpoints, text_network
from vsa_core.backends.text_hf import load, load_encoder, load_roberta, load_xlm_roberta
from vsa_core.errors import BackendError, ConfigError, LanguageNotSpoken
from vsa_core.labels import SENTIMENTS, sentiment_from_emotion
from vsa_core.registry import Unloadable
from vsa_core.weights.catalogue import WEIGHTS
from vsa_core.weights.keep import add

FOREIGN = {
    "de": "Das ist ein wirklich sehr schöner Film.",
    "hi": "यह बहुत अच्छा है, मुझे यह पसंद है।",
    "ja": "素晴らしい映画でした",
    "ru": "Отличный фильм",
}


@dataclass(frozen=True)
class Made:
    """Small checkpoints; not to be changed."""

    bpe: Path
    sentiment: str
    emotion: str
    multilingual: str
    encoder: str
    lines: list[str]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower on two."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(usual)


@pytest.fixture(scope="module")
def made(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    root, bpe = tmp_path_factory.mktemp("text"), shared / "roberta_bpe"
    with (shared / "meld" / "dev.csv").open(encoding="utf-8", newline="") as file:
        lines = [row["Utterance"] for row in csv.DictReader(file)][:50]
    return Made(
        bpe,
        str(roberta(root / "sentiment", bpe, pickled=True)),
        str(roberta(root / "emotion", bpe, 1, labels=EMOTION_NAMES, num_hidden_layers=1)),
        str(xlm_roberta(root / "multilingual")),
        str(bert(root / "encoder", " ".join(lines).lower().split())),
        lines,
    )


@pytest.fixture(scope="module")
def roberta_backend(made: Made) -> Backend:
    return load_roberta(made.sentiment, made.emotion)


def clip(text: str, language: str | None = "en") -> Clip:
    return Clip("one", 0, 1000, text, language)


def says(backend: Backend, texts: Sequence[str]) -> Prediction:
    samples = [backend.read(clip(text)) for text in texts]
    assert all(samples)
    return backend.predict(samples)


def assert_same(found: Prediction, due: Prediction, rows: Any = slice(None)) -> None:
    for name in ("sentiment_probs", "emotion_probs", "embedding"):
        one, other = getattr(found, name), getattr(due, name)
        np.testing.assert_allclose(one, other[rows], rtol=0, atol=1e-5)


def piped(folder: str, texts: Sequence[str], labels: Sequence[str]) -> NDArray[np.float32]:
    """What transformers' own pipeline says, in the order of the labels."""
    pipeline = transformers.pipeline("text-classification", folder, top_k=None, device="cpu")
    rows = [{one["label"]: one["score"] for one in found} for found in pipeline(list(texts))]
    return np.array([[row[label] for label in labels] for row in rows], np.float32)


# --- what is read -------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", " \n\t", "...", "😀", "[Music]", "(laughs)", "♪ ♪"])
def test_nothing_is_read_where_nothing_is_said(roberta_backend: Backend, text: str) -> None:
    assert roberta_backend.read(clip(text)) is None


def test_text_is_cleaned(roberta_backend: Backend) -> None:
    said = "[Music] You must\x92ve – “won”\x85\n half a \ud83d pair ♪"
    assert roberta_backend.read(clip(said)) == 'You must\'ve - "won"... half a pair'


@pytest.mark.parametrize("language", [None, "", "en", "en-US", "EN_gb", "und", "nonsense"])
def test_english_and_unknown_languages_are_tried(
    roberta_backend: Backend, language: str | None
) -> None:
    assert roberta_backend.read(clip("This is great.", language)) == "This is great."


def test_a_language_that_is_not_spoken_is_refused(roberta_backend: Backend) -> None:
    for language, text in FOREIGN.items():
        with pytest.raises(LanguageNotSpoken, match=f"text-roberta speaks en, not {language}"):
            roberta_backend.read(clip(text, language))
    for language in (None, "en"):
        with pytest.raises(LanguageNotSpoken, match="other letters"):
            roberta_backend.read(clip(FOREIGN["ru"], language))
    assert roberta_backend.read(clip("...", "de")) is None, "nothing is said in any language"


def test_a_multilingual_model_speaks_what_it_was_measured_on(made: Made) -> None:
    usual = load_xlm_roberta(made.multilingual)
    for language in ("de", "hi", "en-GB", "pt-BR", "ar"):
        assert usual.read(clip(FOREIGN["hi"], language)) is not None
    for language in ("ja", "ru"):
        with pytest.raises(LanguageNotSpoken, match="speaks ar, de, en, es, fr, hi, it, pt, not"):
            usual.read(clip(FOREIGN[language], language))
    some = load_xlm_roberta(made.multilingual, languages=["ja", "ru"])
    everything = load_xlm_roberta(made.multilingual, languages="any")
    for language, text in FOREIGN.items():
        assert everything.read(clip(text, language)) is not None
    assert some.read(clip(FOREIGN["ja"], "ja-JP")) is not None
    with pytest.raises(LanguageNotSpoken):
        some.read(clip(FOREIGN["de"], "de"))


# --- what it says -------------------------------------------------------------------------


def test_it_says_what_transformers_pipeline_says(made: Made, roberta_backend: Backend) -> None:
    found = says(roberta_backend, made.lines)
    texts = [roberta_backend.read(clip(line)) for line in made.lines]
    due = piped(made.sentiment, texts, SENTIMENTS)
    np.testing.assert_allclose(found.sentiment_probs, due, rtol=0, atol=1e-5)
    assert due.std(axis=0).min() > 0.01, "lines differ"
    due = piped(made.emotion, texts, EMOTION_NAMES)
    np.testing.assert_allclose(found.emotion_probs, due, rtol=0, atol=1e-5)
    multilingual = load_xlm_roberta(made.multilingual)
    texts = list(FOREIGN.values())
    due = piped(made.multilingual, texts, SENTIMENTS)
    np.testing.assert_allclose(multilingual.predict(texts).sentiment_probs, due, atol=1e-5)


def test_shapes_and_sums(made: Made, roberta_backend: Backend) -> None:
    found = says(roberta_backend, made.lines)
    n = len(made.lines)
    shapes = {"sentiment_probs": (n, 3), "emotion_probs": (n, 7), "embedding": (n, WIDTH)}
    for name, shape in shapes.items():
        values = getattr(found, name)
        assert values.shape == shape
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
        if name != "embedding":
            np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-6)
    nothing = roberta_backend.predict([])
    assert [getattr(nothing, name).shape for name in shapes] == [(0, 3), (0, 7), (0, WIDTH)]


def test_the_embedding_is_the_mean_over_all_tokens(made: Made, roberta_backend: Backend) -> None:
    model = transformers.AutoModel.from_pretrained(made.sentiment)
    tokenizer = transformers.AutoTokenizer.from_pretrained(made.sentiment)
    for line in made.lines[:3]:
        with torch.inference_mode():
            states = model(**tokenizer(line, return_tensors="pt")).last_hidden_state
        found = roberta_backend.predict([line]).embedding[0]
        np.testing.assert_allclose(found, states[0].mean(dim=0), rtol=0, atol=1e-5)


def test_neither_batch_nor_order_nor_repetition_matters(
    made: Made, roberta_backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [*made.lines[:12], "word " * 300]
    due = says(roberta_backend, lines)
    order = [5, 0, 12, 3, 3, 1, 5, 11]
    assert_same(says(roberta_backend, [lines[row] for row in order]), due, order)
    monkeypatch.setitem(text_network.TOKENS_AT_ONCE, "cpu", 1)
    assert_same(says(roberta_backend, lines), due)


def test_the_same_comes_out_again_and_in_threads(made: Made, roberta_backend: Backend) -> None:
    due = says(roberta_backend, made.lines)
    fresh = load_roberta(made.sentiment, made.emotion)
    assert fresh.id == roberta_backend.id
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(lambda _: says(fresh, made.lines), range(3)):
            assert_same(found, due)
    again = says(roberta_backend, made.lines)
    np.testing.assert_array_equal(again.sentiment_probs, due.sentiment_probs)


def test_classes_are_found_by_name_not_by_place(made: Made, tmp_path: Path) -> None:
    other = shutil.copytree(made.sentiment, tmp_path / "other")
    names = {"0": "POSITIVE", "1": "Negative", "2": "neutral"}
    edit_config(other, id2label=names, label2id=None)
    usual, turned = (load_roberta(str(folder), None) for folder in (made.sentiment, other))
    due = says(usual, made.lines).sentiment_probs
    np.testing.assert_allclose(says(turned, made.lines).sentiment_probs, due[:, [1, 2, 0]])
    assert turned.id != usual.id


def test_names_and_links_are_masked_as_in_the_tweets_it_learnt_from(made: Made) -> None:
    masked, plain = load_roberta(made.sentiment, None), load(made.sentiment)
    raw = ["@joe look: https://a.b/c?d", "me@home is a @ sign, http"]
    card = ["@user look: http", "me@home is a @ sign, http"]
    np.testing.assert_array_equal(says(masked, raw).embedding, says(masked, card).embedding)
    apart = np.abs(says(plain, raw).embedding - says(plain, card).embedding).max(axis=1)
    assert apart[0] > 0.01
    assert apart[1] < 1e-5


def test_what_is_too_long_is_not_read(made: Made) -> None:
    for max_tokens, due in ((8, 8), (512, 512), (8192, 512)):  # 514 positions, two lost
        backend = load(made.sentiment, max_tokens=max_tokens)
        long, cut = "word " * 10_000, "word " * (due - 2)
        np.testing.assert_array_equal(
            says(backend, [long]).embedding, says(backend, [cut]).embedding
        )
    assert backend.id == load(made.sentiment, max_tokens=512).id


# --- emotions -----------------------------------------------------------------------------


def test_emotions_come_from_a_second_model_or_not_at_all(
    made: Made, roberta_backend: Backend
) -> None:
    alone = load_roberta(made.sentiment, None)
    assert says(alone, made.lines).emotion_probs is None
    assert alone.id != roberta_backend.id
    both, feels = says(roberta_backend, made.lines), load(made.emotion)
    due = says(feels, made.lines)
    np.testing.assert_allclose(both.emotion_probs, due.emotion_probs, atol=1e-6)
    np.testing.assert_allclose(
        due.sentiment_probs, sentiment_from_emotion(due.emotion_probs), atol=1e-6
    )
    with pytest.raises(ConfigError, match="tells sentiments, not emotions"):
        load_roberta(made.sentiment, made.sentiment)


# --- any checkpoint -----------------------------------------------------------------------


def test_unknown_labels_need_a_map(made: Made, tmp_path: Path) -> None:
    numbered = shutil.copytree(made.sentiment, tmp_path / "numbered")
    names = {str(i): f"LABEL_{i}" for i in range(3)}
    edit_config(numbered, id2label=names, label2id=None)
    with pytest.raises(BackendError, match=r"`labels: \{LABEL_0: …, LABEL_1: …, LABEL_2: …\}`"):
        load(str(numbered))
    given = {"LABEL_0": "negative", "LABEL_1": "neutral", "LABEL_2": "positive"}
    told, usual = load(str(numbered), labels=given), load(made.sentiment)
    due = says(usual, made.lines).sentiment_probs
    np.testing.assert_array_equal(says(told, made.lines).sentiment_probs, due)
    turned = load(str(numbered), labels=given | {"LABEL_0": "positive", "LABEL_2": "negative"})
    np.testing.assert_array_equal(says(turned, made.lines).sentiment_probs, due[:, ::-1])
    assert turned.id != told.id


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"problem_type": "multi_label_classification"}, "a multi_label_classification"),
        ({"problem_type": "regression"}, "a regression"),
        (
            {"id2label": None, "label2id": None, "architectures": ["RobertaModel"]},
            "has no classes",
        ),
        ({"hidden_size": None}, "states no hidden_size"),
        ({"max_position_embeddings": 4}, "leaves 2 positions"),
    ],
)
def test_what_is_no_choice_between_labels_is_refused(
    made: Made, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    folder = edit_config(shutil.copytree(made.sentiment, tmp_path / "other"), **changed)
    with pytest.raises(BackendError, match=said):
        load(str(folder))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_tokens": 7}, "max_tokens is 7: give 8 to"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"languages": []}, r"languages is \[\]"),
        ({"languages": ["english please"]}, "give tags as"),
        ({"precision": "int4"}, "precision is 'int4'"),
        ({"device": "tpu"}, "device is 'tpu'"),
    ],
)
def test_an_option_out_of_range_is_refused(made: Made, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(made.sentiment, **options)


def test_an_encoder_gives_an_embedding_and_never_votes(made: Made) -> None:
    for folder in (made.encoder, made.sentiment):
        backend = load_encoder(folder)
        found = says(backend, made.lines)
        assert found.sentiment_probs is None
        assert found.emotion_probs is None
        assert found.embedding.shape == (len(made.lines), backend.dim) == (50, WIDTH)
        assert np.isfinite(found.embedding).all()
        assert len(np.unique(found.embedding.round(4), axis=0)) == len(set(made.lines))


# --- tokenizers ---------------------------------------------------------------------------


def test_the_real_tokenizer_gives_the_real_ids(made: Made, tmp_path: Path) -> None:
    backend = load(str(roberta(tmp_path, made.bpe, merges=None)))
    tokenizer, padding = backend._votes._loaded()
    assert tokenizer.encode("Hello world").ids == [0, 31414, 232, 2]
    assert padding == 1


def test_a_tokenizer_reads_the_same_from_either_of_its_files(made: Made, tmp_path: Path) -> None:
    folder = shutil.copytree(made.sentiment, tmp_path / "both")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    (folder / "vocab.json").unlink()
    (folder / "merges.txt").unlink()
    tokenizer.save_pretrained(folder)
    assert (folder / "tokenizer.json").is_file()
    due = says(load(made.sentiment), made.lines).embedding
    np.testing.assert_array_equal(says(load(str(folder)), made.lines).embedding, due)


def test_a_sentencepiece_file_alone_needs_its_packages(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(made.multilingual, tmp_path / "sentencepiece")
    (folder / "tokenizer.json").rename(folder / "sentencepiece.bpe.model")
    usual = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "sentencepiece" else usual(name)
    )
    with pytest.raises(BackendError, match=r"needs sentencepiece.*: pip install sentencepiece"):
        load_xlm_roberta(str(folder))


def test_a_sentencepiece_file_alone_is_read(made: Made, tmp_path: Path) -> None:
    import sentencepiece

    folder = xlm_roberta(tmp_path / "sentencepiece", vocab_size=132)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    text = tmp_path / "text"
    text.write_text("\n".join([*made.lines, *FOREIGN.values()]), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(tmp_path / "small"), vocab_size=130, minloglevel=2
    )
    shutil.copyfile(tmp_path / "small.model", folder / "sentencepiece.bpe.model")
    own = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "small.model"))
    backend = load_xlm_roberta(str(folder))
    assert says(backend, made.lines).sentiment_probs is not None
    tokenizer = backend._votes._loaded()[0]
    for line in made.lines:
        pieces = own.encode(line, out_type=str)
        expected = [piece if own.piece_to_id(piece) else "<unk>" for piece in pieces]
        assert tokenizer.encode(line).tokens == ["<s>", *expected, "</s>"]


@pytest.mark.parametrize("broken", [b"", b"{}", b"\xff\xfe"])
def test_a_broken_tokenizer_is_refused(made: Made, tmp_path: Path, broken: bytes) -> None:
    folder = shutil.copytree(made.multilingual, tmp_path / "broken")
    (folder / "tokenizer.json").write_bytes(broken)
    backend = load_xlm_roberta(str(folder))
    with pytest.raises(BackendError, match="its tokenizer cannot be loaded"):
        says(backend, made.lines)


def test_a_tokenizer_of_another_network_is_refused(made: Made, tmp_path: Path) -> None:
    folder = roberta(tmp_path, made.bpe, vocab_size=2_000)
    with pytest.raises(BackendError, match="they are of different checkpoints"):
        says(load(str(folder)), made.lines)


def test_nobody_is_asked_for_anything(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    dialled = []

    def refuse(*args: Any, **_: Any) -> Any:
        dialled.append(args)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    says(load_roberta(made.sentiment, made.emotion), made.lines[:2])
    says(load_xlm_roberta(made.multilingual), made.lines[:2])
    says(load_encoder(made.encoder), made.lines[:2])
    assert dialled == []


# --- what it costs ------------------------------------------------------------------------


def test_nothing_is_loaded_before_the_first_line_and_all_is_freed(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[weakref.ref[torch.nn.Module]] = []
    usual = checkpoints._load

    def load_and_count(*args: Any) -> torch.nn.Module:
        model = usual(*args)
        loaded.append(weakref.ref(model))
        return model

    monkeypatch.setattr(checkpoints, "_load", load_and_count)
    backend = load_roberta(made.sentiment, made.emotion)
    assert isinstance(backend, Unloadable)
    assert loaded == []
    due = says(backend, made.lines)
    assert len(loaded) == 2
    backend.unload()
    gc.collect()
    assert [model() for model in loaded] == [None, None]
    assert_same(says(backend, made.lines), due)


def test_eight_bits_say_nearly_the_same(made: Made, roberta_backend: Backend) -> None:
    eight_bits = load_roberta(made.sentiment, made.emotion, precision="int8")
    assert eight_bits.id != roberta_backend.id
    due, found = says(roberta_backend, made.lines), says(eight_bits, made.lines)
    for name in ("sentiment_probs", "emotion_probs"):
        whole, less = getattr(due, name), getattr(found, name)
        assert 0 < np.abs(whole - less).max() < 0.1
        assert (whole.argmax(axis=1) == less.argmax(axis=1)).mean() > 0.9
    alone = [says(eight_bits, [line]) for line in made.lines[:5]]
    for row, one in enumerate(alone):
        assert_same(one, found, [row])


# --- ids ----------------------------------------------------------------------------------


def test_an_id_is_over_what_changes_the_numbers(made: Made, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(made.sentiment, tmp_path / "elsewhere")
    usual = load(made.sentiment).id
    for same in (load(str(elsewhere)), load(made.sentiment, batch_size=3, device="cpu")):
        assert same.id == usual
    others = [
        load(made.sentiment, max_tokens=64),
        load(made.sentiment, languages=["en", "de"]),
        load(made.sentiment, languages="any"),
        load(made.sentiment, emotion_model=made.emotion),
        load(made.sentiment, precision="bfloat16"),
        load(made.emotion),
        load_roberta(made.sentiment, None),
        load_xlm_roberta(made.sentiment),
        load_encoder(made.sentiment),
    ]
    assert len({usual, *(backend.id for backend in others)}) == 1 + len(others)
    roberta(elsewhere, made.bpe, seed=5, pickled=True)  # other weights, the same labels
    assert load(str(elsewhere)).id != usual


# --- from the store -----------------------------------------------------------------------


def test_defaults_come_from_the_store(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VSA_CACHE_DIR", str(tmp_path))
    with pytest.raises(BackendError, match="vsa models pull twitter-roberta"):
        load_roberta()
    for name, folder in (
        ("twitter-roberta", made.sentiment),
        ("emotion-distilroberta", made.emotion),
        ("twitter-xlm-roberta", made.multilingual),
        ("bert-base-uncased", made.encoder),
    ):
        add(WEIGHTS[name], Path(folder), trust=True)
    assert load_roberta().id == load_roberta(made.sentiment).id
    asked = load_roberta(emotion_model="emotion-distilroberta")
    assert asked.id == load_roberta(made.sentiment, made.emotion).id
    assert load_xlm_roberta().id == load_xlm_roberta(made.multilingual).id
    assert load_encoder().id == load_encoder(made.encoder).id
