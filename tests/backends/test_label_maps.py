"""Label maps: which names are known, what they become, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from vsa_core.backends.label_maps import DECIDED, map_labels
from vsa_core.errors import BackendError, ConfigError
from vsa_core.labels import EMOTIONS, SENTIMENTS

WHERE = "text-hf: checkpoint there"
# The class names of published checkpoints, and what they have to become.
CARDIFF = ("negative", "neutral", "positive")
PYSENTIMIENTO = ("NEG", "NEU", "POS")
SST2 = ("NEGATIVE", "POSITIVE")
NLPTOWN = ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")
TABULARIS = ("Very Negative", "Negative", "Neutral", "Positive", "Very Positive")
HARTMANN = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
DAIR = ("sadness", "joy", "love", "anger", "fear", "surprise")
SUPERB = ("neu", "hap", "ang", "sad")
RAVDESS = ("angry", "calm", "disgust", "fearful", "happy", "neutral", "sad", "surprised")
GO_EMOTIONS = (
    "admiration", "amusement", "anger", "annoyance", "approval", "caring", "confusion",
    "curiosity", "desire", "disappointment", "disapproval", "disgust", "embarrassment",
    "excitement", "fear", "gratitude", "grief", "joy", "love", "nervousness", "optimism", "pride",
    "realization", "relief", "remorse", "sadness", "surprise", "neutral",
)  # fmt: skip


def certain(labels: Sequence[str], label: str) -> np.ndarray:
    return np.array([[float(name == label) for name in labels]], np.float32)


@pytest.mark.parametrize(
    ("labels", "ours"),
    [
        (CARDIFF, "negative neutral positive"),
        (("Positive", "NEUTRAL", " negative "), "positive neutral negative"),
        (PYSENTIMIENTO, "negative neutral positive"),
        (SST2, "negative positive"),
        (NLPTOWN, "negative negative neutral positive positive"),
        (TABULARIS, "negative negative neutral positive positive"),
        (("very_negative", "somewhat-negative", "neutral", "positive"),
         "negative negative neutral positive"),
    ],
)  # fmt: skip
def test_sentiments_are_known_by_their_names(labels: Sequence[str], ours: str) -> None:
    found = map_labels(labels, where=WHERE)
    assert found.space is SENTIMENTS
    assert found.targets == tuple(ours.split())
    for label, due in zip(labels, ours.split(), strict=True):
        probs = found.sentiment_probs(certain(labels, label))
        assert probs.dtype == np.float32
        assert SENTIMENTS[probs[0].argmax()] == due
        assert found.emotion_probs(certain(labels, label)) is None


@pytest.mark.parametrize(
    ("labels", "ours"),
    [
        (HARTMANN, "anger disgust fear joy neutral sadness surprise"),
        (DAIR, "sadness joy joy anger fear surprise"),
        (SUPERB, "neutral joy anger sadness"),
        (RAVDESS, "anger neutral disgust fear joy neutral sadness surprise"),
        (GO_EMOTIONS,
         "joy joy anger anger joy joy surprise surprise joy sadness anger disgust sadness joy fear "
         "joy sadness joy joy fear joy joy surprise joy sadness sadness surprise neutral"),
    ],
)  # fmt: skip
def test_emotions_are_known_by_their_names(labels: Sequence[str], ours: str) -> None:
    found = map_labels(labels, where=WHERE)
    assert found.space is EMOTIONS
    assert found.targets == tuple(ours.split())


def test_classes_of_one_name_add_up() -> None:
    found = map_labels(NLPTOWN, where=WHERE)
    probs = np.array([[0.1, 0.2, 0.25, 0.3, 0.15]], np.float32)
    np.testing.assert_allclose(found.sentiment_probs(probs), [[0.3, 0.25, 0.45]], atol=1e-6)
    found = map_labels(RAVDESS, where=WHERE)
    probs = np.full((2, 8), 1 / 8, np.float32)
    np.testing.assert_allclose(found.emotion_probs(probs)[1], [1 / 8] * 4 + [1 / 4] + [1 / 8] * 2)


def test_emotions_imply_a_sentiment() -> None:
    found = map_labels(SUPERB, where=WHERE)
    probs = np.array([[0.1, 0.6, 0.1, 0.2]], np.float32)
    np.testing.assert_allclose(found.sentiment_probs(probs), [[0.3, 0.1, 0.6]], atol=1e-6)


def test_emotions_that_a_checkpoint_does_not_know_are_as_likely_as_any() -> None:
    found = map_labels(SUPERB, where=WHERE)
    probs = found.emotion_probs(np.array([[0.1, 0.6, 0.1, 0.2], [np.nan] * 4], np.float32))
    unknown, known = 1 / 7, np.array([0.1, 0.6, 0.1, 0.2]) * 4 / 7
    due = [known[0], unknown, unknown, known[1], known[2], known[3], unknown]
    np.testing.assert_allclose(probs[0], due, atol=1e-6)
    assert np.isnan(probs[1]).all()


def test_a_model_without_neutral_abstains_where_it_is_undecided() -> None:
    found = map_labels(SST2, where=WHERE)
    sure, unsure = DECIDED + 0.01, DECIDED - 0.01
    probs = found.sentiment_probs(
        np.array([[sure, 1 - sure], [unsure, 1 - unsure], [0.5, 0.5], [0.02, 0.98]], np.float32)
    )
    np.testing.assert_allclose(probs[0], [sure, 0, 1 - sure], atol=1e-6)
    assert np.isnan(probs[1:3]).all()
    np.testing.assert_allclose(probs[3], [0.02, 0, 0.98], atol=1e-6)


# --- told by the configuration ------------------------------------------------------------


def test_a_map_is_taken_at_its_word() -> None:
    numbered = ("LABEL_0", "LABEL_1", "LABEL_2")
    given = {"label_2": "negative", "LABEL_0": "positive", "LABEL_1": "neutral"}
    found = map_labels(numbered, given, where=WHERE)
    assert found.targets == ("positive", "neutral", "negative")
    found = map_labels(("Bearish", "neutral", "Bullish"), {"bearish": "negative", "bullish": "positive"}, where=WHERE)  # fmt: skip  # noqa: E501
    assert found.space is SENTIMENTS
    found = map_labels(SUPERB, {"neu": "surprise"}, where=WHERE)
    assert found.targets[0] == "surprise", "it goes before the rules"
    found = map_labels(numbered[:2], {"LABEL_0": "anger", "LABEL_1": "neutral"}, where=WHERE)
    assert found.space is EMOTIONS


def test_a_class_that_is_none_of_ours_is_left_out_or_abstained_on() -> None:
    labels = ("negative", "neutral", "positive", "skip")
    found = map_labels(labels, {"skip": None}, where=WHERE)
    assert found.targets == ("negative", "neutral", "positive", None)
    probs = found.sentiment_probs(
        np.array([[0.4, 0.2, 0.2, 0.2], [0.3, 0.1, 0.1, 0.5], [0, 0, 0, 1]], np.float32)
    )
    np.testing.assert_allclose(probs[0], [0.5, 0.25, 0.25], atol=1e-6)
    assert np.isnan(probs[1:]).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"LABEL_7": "negative"}, "'LABEL_7', which is none of its: LABEL_0, LABEL_1"),
        ({"LABEL_0": "bad"}, "maps 'LABEL_0' to 'bad': give negative, neutral, positive"),
        (["negative", "positive"], "write `labels: "),
    ],
)
def test_a_map_that_does_not_fit_is_refused(given: dict[str, str | None], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        map_labels(("LABEL_0", "LABEL_1"), given, where=WHERE)


# --- refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        ("LABEL_0", "LABEL_1", "LABEL_2"),
        ("negative", "neutral", "bullish"),
        ("negative", "positive", "joy"),  # of both spaces
        ("negative", "neutral"),
        ("neutral", "neu"),
        ("positive",),
        ("1", "2", "3", "4", "5"),
        ("joy",),
        ("very angry", "happy"),
    ],
)
def test_what_is_not_known_is_not_guessed(labels: Sequence[str]) -> None:
    with pytest.raises(BackendError, match=r"write `labels: \{") as refusal:
        map_labels(labels, where=WHERE)
    message = str(refusal.value)
    assert message.startswith(WHERE)
    assert all(label in message for label in labels)


def test_the_refusal_shows_the_line_to_write() -> None:
    with pytest.raises(BackendError) as refusal:
        map_labels(("LABEL_0", "LABEL_1"), where=WHERE)
    assert "`labels: {LABEL_0: …, LABEL_1: …}`" in str(refusal.value)
    with pytest.raises(BackendError) as refusal:
        map_labels(['a: "b"', "x" * 500, *map(str, range(1000))], where=WHERE)
    message = str(refusal.value)
    assert r'{"a: \"b\"": …, ' in message
    assert len(message) < 900


def test_a_partial_map_leaves_the_rest_to_the_rules() -> None:
    found = map_labels(("negative", "LABEL_1", "positive"), {"LABEL_1": "neutral"}, where=WHERE)
    assert found.targets == CARDIFF
    with pytest.raises(BackendError, match="LABEL_0"):
        map_labels(("LABEL_0", "LABEL_1"), {"LABEL_1": "positive"}, where=WHERE)
