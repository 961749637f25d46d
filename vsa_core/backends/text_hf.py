"""Text backends from transformers checkpoints: RoBERTa, XLM-R, any classifier, any encoder.

- `text-roberta`: cardiffnlp/twitter-roberta-base-sentiment-latest (Loureiro et al. 2022,
  arXiv 2202.03829), with emotions from another checkpoint when `emotion_model` names one, such as
  j-hartmann/emotion-english-distilroberta-base. English.
- `text-xlm-roberta`: cardiffnlp/twitter-xlm-roberta-base-sentiment (Barbieri et al. 2022,
  arXiv 2104.12250). The eight languages of its benchmark.
- `text-hf`: any sequence-classification checkpoint whose labels `label_maps` knows or is told.
- `text-bert`: any encoder, for its embedding; it never votes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from vsa_core.backends import Clip, Prediction
from vsa_core.backends.checkpoints import find_checkpoint
from vsa_core.backends.label_maps import LabelMap, map_labels
from vsa_core.backends.text_lines import read_text
from vsa_core.backends.text_network import CLASSIFIER, ENCODER, TextNetwork
from vsa_core.config import fingerprint
from vsa_core.errors import BackendError, ConfigError
from vsa_core.labels import EMOTIONS, Modality
from vsa_core.language import spoken_by

ENGLISH = ("en",)
# Those that XLM-T was evaluated on, one benchmark each; others were pretrained on, unmeasured.
XLM_T_LANGUAGES = ("ar", "en", "fr", "de", "hi", "it", "pt", "es")

# Part of the id: raise it when the same text would give other numbers.
_CODE_VERSION = 1
_LEAST_TOKENS, _MOST_TOKENS = 8, 8_192
_USER = re.compile(r"(?<!\S)@\S+")
_LINK = re.compile(r"(?<!\S)http\S*")


class TextClassifier:
    """Sentiment by a sequence classifier, emotions by it or by a second one.

    The embedding is the classifier's: the mean of its last hidden states over the line's tokens.

    Args:
        name: in the registry.
        votes: the classifier.
        label_map: what its classes are to us.
        emotions: a second classifier and what its classes are; None for none.
        languages: what they speak; None for anything.
        tweets: the classifier was trained on tweets in which user names are @user and links http.
        batch_size: lines given to `predict` at most.
    """

    modality = Modality.TEXT

    def __init__(
        self,
        name: str,
        votes: TextNetwork,
        label_map: LabelMap,
        emotions: tuple[TextNetwork, LabelMap] | None,
        languages: Sequence[str] | None,
        tweets: bool,
        batch_size: int,
    ) -> None:
        self.dim = votes.dim
        self.batch_size = batch_size
        self._name = name
        self._votes = votes
        self._label_map = label_map
        self._emotions = emotions
        self._languages = languages
        self._tweets = tweets
        parts = [(votes.key, label_map.targets)]
        if emotions is not None:
            parts.append((emotions[0].key, emotions[1].targets))
        self.id = f"{name}@{fingerprint(_CODE_VERSION, parts, languages, tweets)}"

    def read(self, clip: Clip) -> str | None:
        """The clip's text; None when there is nothing to read in it.

        Raises:
            LanguageNotSpoken: as `read_text`.
        """
        return read_text(clip.text, clip.language, self._languages, self._name)

    def predict(self, samples: Sequence[str]) -> Prediction:
        """Votes, emotions where there are any, and embeddings of B lines."""
        texts = [_as_tweet(text) for text in samples] if self._tweets else samples
        probs, embedding = self._votes.look(texts)
        sentiment_probs = self._label_map.sentiment_probs(probs)
        if self._emotions is None:
            emotion_probs = self._label_map.emotion_probs(probs)
        else:
            network, label_map = self._emotions
            emotion_probs = label_map.emotion_probs(network.look(samples)[0])
        return Prediction(sentiment_probs, emotion_probs, embedding)

    def unload(self) -> None:
        """Free the networks; the next use loads them again."""
        self._votes.unload()
        if self._emotions is not None:
            self._emotions[0].unload()


class TextEncoder:
    """An encoder's embedding of a line: the mean of its last hidden states over the tokens.

    Args:
        name: in the registry.
        network: the encoder.
        languages: what it speaks; None for anything.
        batch_size: lines given to `predict` at most.
    """

    modality = Modality.TEXT

    def __init__(
        self, name: str, network: TextNetwork, languages: Sequence[str] | None, batch_size: int
    ) -> None:
        self.dim = network.dim
        self.batch_size = batch_size
        self.id = f"{name}@{fingerprint(_CODE_VERSION, network.key, languages)}"
        self._name = name
        self._network = network
        self._languages = languages

    def read(self, clip: Clip) -> str | None:
        """The clip's text; None when there is nothing to read in it.

        Raises:
            LanguageNotSpoken: as `read_text`.
        """
        return read_text(clip.text, clip.language, self._languages, self._name)

    def predict(self, samples: Sequence[str]) -> Prediction:
        """Embeddings of B lines; it never votes."""
        return Prediction(None, None, self._network.look(samples)[1])

    def unload(self) -> None:
        """Free the network; the next use loads it again."""
        self._network.unload()


def load_roberta(
    model: str = "twitter-roberta",
    emotion_model: str | None = None,
    labels: Mapping[str, str | None] | None = None,
    max_tokens: int = 256,
    batch_size: int = 256,
    device: str = "auto",
    precision: str = "auto",
) -> TextClassifier:
    """`text-roberta`: English; user names and links are masked as the model's card asks.

    Args: as `load`.

    Raises: as `load`.
    """
    name = "text-roberta"
    return _classifier(
        name, model, labels, emotion_model, None, ENGLISH, True, max_tokens, batch_size, device,
        precision,
    )  # fmt: skip


def load_xlm_roberta(
    model: str = "twitter-xlm-roberta",
    emotion_model: str | None = None,
    labels: Mapping[str, str | None] | None = None,
    emotion_labels: Mapping[str, str | None] | None = None,
    languages: Sequence[str] | str | None = XLM_T_LANGUAGES,
    max_tokens: int = 256,
    batch_size: int = 256,
    device: str = "auto",
    precision: str = "auto",
) -> TextClassifier:
    """`text-xlm-roberta`: many languages; user names and links are masked as its card asks.

    Args: as `load`.

    Raises: as `load`.
    """
    name = "text-xlm-roberta"
    return _classifier(
        name, model, labels, emotion_model, emotion_labels, languages, True, max_tokens,
        batch_size, device, precision,
    )  # fmt: skip


def load(
    model: str,
    labels: Mapping[str, str | None] | None = None,
    emotion_model: str | None = None,
    emotion_labels: Mapping[str, str | None] | None = None,
    languages: Sequence[str] | str | None = ENGLISH,
    max_tokens: int = 256,
    batch_size: int = 256,
    device: str = "auto",
    precision: str = "auto",
) -> TextClassifier:
    """`text-hf`: any sequence-classification checkpoint.

    Args:
        model: the checkpoint: a catalogue name, a folder, or `hf:ORG/NAME[@REVISION]`. Its classes
            may be sentiments, or emotions, which imply a sentiment.
        labels: its names of its classes → ours, for those that `label_maps` does not know.
        emotion_model: a second checkpoint, for emotions; None takes those of `model`, if any.
        emotion_labels: `labels` of `emotion_model`.
        languages: tags of those it speaks; "any" or None for all. It abstains on others.
        max_tokens: what a line has beyond them is not read.
        batch_size: lines given to `predict` at most.
        device: auto, cpu or cuda.
        precision: auto, float32, float16, bfloat16, or int8 (on the CPU).

    Raises:
        ConfigError: an option out of range, or that the checkpoint does not fit.
        BackendError: the checkpoint is missing, broken or refused, or a class of it is unknown.
    """
    name = "text-hf"
    return _classifier(
        name, model, labels, emotion_model, emotion_labels, languages, False, max_tokens,
        batch_size, device, precision,
    )  # fmt: skip


def load_encoder(
    model: str = "bert-base-uncased",
    languages: Sequence[str] | str | None = ENGLISH,
    max_tokens: int = 256,
    batch_size: int = 256,
    device: str = "auto",
    precision: str = "auto",
) -> TextEncoder:
    """`text-bert`: any encoder, for its embedding.

    Args: as `load`.

    Raises: as `load`.
    """
    name = "text-bert"
    _check_sizes(name, max_tokens, batch_size)
    network = TextNetwork(find_checkpoint(model), ENCODER, max_tokens, device, precision)
    return TextEncoder(name, network, spoken_by(languages, name), batch_size)


def _classifier(
    name: str,
    model: str,
    labels: Mapping[str, str | None] | None,
    emotion_model: str | None,
    emotion_labels: Mapping[str, str | None] | None,
    languages: Sequence[str] | str | None,
    tweets: bool,
    max_tokens: int,
    batch_size: int,
    device: str,
    precision: str,
) -> TextClassifier:
    _check_sizes(name, max_tokens, batch_size)
    spoken = spoken_by(languages, name)
    votes, label_map = _mapped(name, model, labels, max_tokens, device, precision)
    emotions = None
    if emotion_model is not None:
        emotions = _mapped(name, emotion_model, emotion_labels, max_tokens, device, precision)
        if emotions[1].space is not EMOTIONS:
            raise ConfigError(
                f"{name}: emotion_model {emotion_model} tells sentiments, not emotions: give "
                "another, or null"
            )
    return TextClassifier(name, votes, label_map, emotions, spoken, tweets, batch_size)


def _mapped(
    name: str,
    model: str,
    labels: Mapping[str, str | None] | None,
    max_tokens: int,
    device: str,
    precision: str,
) -> tuple[TextNetwork, LabelMap]:
    """A classifier and what its classes are to us."""
    checkpoint = find_checkpoint(model)
    where = f"{name}: checkpoint {model}"
    if not checkpoint.labels:
        raise BackendError(f"{where} has no classes: use a sequence-classification checkpoint")
    kind = checkpoint.config.get("problem_type")
    if kind not in (None, "single_label_classification"):
        raise BackendError(
            f"{where} is a {kind}, so its outputs are not the probabilities of one choice: "
            "use one whose classes exclude each other"
        )
    label_map = map_labels(checkpoint.labels, labels, where=where)
    return TextNetwork(checkpoint, CLASSIFIER, max_tokens, device, precision), label_map


def _check_sizes(name: str, max_tokens: int, batch_size: int) -> None:
    if not _LEAST_TOKENS <= max_tokens <= _MOST_TOKENS:
        raise ConfigError(
            f"{name}: max_tokens is {max_tokens}: give {_LEAST_TOKENS} to {_MOST_TOKENS}"
        )
    if batch_size < 1:
        raise ConfigError(f"{name}: batch_size is {batch_size}: give 1 or more")


def _as_tweet(text: str) -> str:
    """User names and links as the tweets had them that the model was trained on."""
    return _LINK.sub("http", _USER.sub("@user", text))
