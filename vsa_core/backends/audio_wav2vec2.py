"""Emotions heard in a voice: any wav2vec 2.0, HuBERT or WavLM classifier of speech; it votes.

The default, `superb/wav2vec2-base-superb-er` (Yang et al. 2021, SUPERB), tells neutral, happy,
angry and sad, and is right on 63 % of IEMOCAP, where actors speak American English in a studio.
What follows from that:

- Surprise, fear and disgust are unknown to it: a voice full of them gets the nearest of the four.
  Its sentiment is made of these alone, negative for angry and sad, positive for happy. Its emotions
  say nothing on the other three, neither for nor against, see `label_maps`.
- Other voices than it was trained on it hears less well, and it is often unsure: below
  `agree.min_confidence` it abstains as any voter does, and fusion weighs it by how far it goes
  together with the others.
- How pleasant a voice is, such networks take in good part from the words (Wagner et al. 2023,
  arXiv 2203.07378), so in a language that it was not trained on it abstains (option `languages`).
  The embedding stays: what it means in that language fusion learns from the other modalities.

The embedding is what the classifier's head reads: hidden states (their learned sum over the layers
where the checkpoint has one), averaged over time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsa_core import voice
from vsa_core.backends import Clip, Prediction
from vsa_core.backends.checkpoints import Checkpoint, find_checkpoint
from vsa_core.backends.hearing import Voice, listen
from vsa_core.backends.label_maps import LabelMap, map_labels
from vsa_core.backends.voice_network import VoiceNetwork
from vsa_core.errors import BackendError, ConfigError
from vsa_core.labels import Modality
from vsa_core.language import speaks, spoken_by
from vsa_core.media import SAMPLE_RATE_HZ

Floats = NDArray[np.float32]

# Part of the id: raise it with any change to what comes out.
_CODE_VERSION = 1

FAMILIES = ("wav2vec2", "hubert", "wavlm")
_NAME = "audio-wav2vec2-ser"
# Of estimates on scales, which are no classes.
_SCALES = {"arousal", "valence", "dominance", "activation"}


@dataclass(frozen=True, slots=True)
class Utterance:
    """One segment's voice.

    Attributes:
        voice: the sound, and where in it is speech.
        spoken: False where it is in a language that the model must abstain on.
    """

    voice: Voice
    spoken: bool = True


class AudioWav2vec2:
    """A classifier of voices; safe to use from several threads."""

    modality = Modality.AUDIO

    def __init__(
        self,
        checkpoint: Checkpoint,
        classes: LabelMap,
        network: VoiceNetwork,
        *,
        normalise: bool,
        max_s: float,
        languages: tuple[str, ...] | None,
        batch_size: int,
    ) -> None:
        self.batch_size = batch_size
        self.dim: int = checkpoint.config["hidden_size"]
        self._classes, self._network, self._normalise = classes, network, normalise
        self._max_samples = round(max_s * SAMPLE_RATE_HZ)
        self._languages = languages
        made_of = repr(
            (
                _CODE_VERSION,
                voice.WEIGHTS_SHA256,
                checkpoint.sha256,
                classes.targets,
                network.tag,
                self._max_samples,
                languages,
            )
        )
        self.id = f"{_NAME}@{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"

    def read(self, clip: Clip) -> Utterance | None:
        """The segment's voice; None where nobody speaks in it, as `hearing.listen` has it.

        Raises:
            MediaError: the file cannot be opened any more, or its sound holds NaN or infinity.
        """
        heard = listen(clip)
        if heard is None:
            return None
        return Utterance(heard, self._languages is None or speaks(self._languages, clip.language))

    def predict(self, samples: Sequence[Utterance]) -> Prediction:
        """Votes and embeddings of B voices; rows of NaN where the language is not spoken.

        A voice longer than `max_s` is heard in windows of one length; those in which somebody
        speaks count by how long.
        """
        windows = [
            (row, self._front(wave), weight)
            for row, sample in enumerate(samples)
            for wave, weight in _windows(sample.voice, self._max_samples)
        ]
        probs, read = self._network.hear([wave for _, wave, _ in windows])
        share = np.zeros((len(samples), len(windows)), np.float32)
        for column, (row, _, weight) in enumerate(windows):
            share[row, column] = weight
        theirs = share @ probs
        sentiment_probs = self._classes.sentiment_probs(theirs)
        emotion_probs = self._classes.emotion_probs(theirs)
        foreign = np.array([not sample.spoken for sample in samples], bool)
        sentiment_probs[foreign] = np.nan
        if emotion_probs is not None:
            emotion_probs[foreign] = np.nan
        return Prediction(sentiment_probs, emotion_probs, share @ read)

    def unload(self) -> None:
        """Free the network; the next use loads it again, and says the same."""
        self._network.unload()

    def _front(self, wave: Floats) -> Floats:
        """What the network takes: the sound as it is, or with mean 0 and variance 1."""
        if not self._normalise:
            return wave
        return (wave - wave.mean()) / np.sqrt(wave.var() + np.float32(1e-7))


def load(
    model: str = "wav2vec2-er",
    labels: Mapping[str, str | None] | None = None,
    max_s: float = 15.0,
    languages: Sequence[str] | str | None = ("en",),
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 16,
) -> AudioWav2vec2:
    """The voice classifier; its network is loaded at the first `predict`.

    Args:
        model: name in the catalogue, folder, or `hf:ORG/NAME[@REVISION]`.
        labels: their name of a class → one of our emotions (or sentiments), null for none; needed
            where `label_maps` has no rule for a name.
        max_s: longest sound heard at once, 1 to 60; bounds memory. Longer ones are cut.
        languages: BCP 47 tags that it was trained on, "any" or None for all; in others it
            abstains. A segment of unknown language is taken for one of them.
        device: auto, cpu or cuda.
        precision: auto, float32, float16, bfloat16 or int8.
        batch_size: how many segments `predict` is given at most; changes no result.

    Raises:
        ConfigError: an option outside its range, or a checkpoint for another rate than 16 kHz.
        BackendError: the checkpoint is not here or altered, is no classifier of voices of a family
            in `FAMILIES`, or has classes that are not known; voice activity's weights are missing.
    """
    if not 1 <= max_s <= 60:
        raise ConfigError(f"{_NAME}: max_s is {max_s}, allowed are 1 to 60")
    if batch_size < 1:
        raise ConfigError(f"{_NAME}: batch_size is {batch_size}, at least 1 is needed")
    spoken = spoken_by(languages, _NAME)
    checkpoint = find_checkpoint(model)
    where = f"{_NAME} with {checkpoint.folder}"
    voice.speech_probability(np.zeros(voice.WINDOW, np.float32))  # missing weights show here
    _check_family(checkpoint, where)
    return AudioWav2vec2(
        checkpoint,
        map_labels(checkpoint.labels, labels, where=where),
        VoiceNetwork(checkpoint, device, precision),
        normalise=_normalises(checkpoint, where),
        max_s=max_s,
        languages=spoken,
        batch_size=batch_size,
    )


def _check_family(checkpoint: Checkpoint, where: str) -> None:
    """Refuse what does not take a sound and give one of some classes."""
    other = "give a checkpoint that classifies emotions, such as wav2vec2-er"
    family = checkpoint.config["model_type"]
    if family not in FAMILIES:
        raise BackendError(
            f"{where}: it is of the family {family}, not {', '.join(FAMILIES)}: {other}"
        )
    scales = {label.casefold() for label in checkpoint.labels} & _SCALES
    if scales or checkpoint.config.get("problem_type") == "regression":
        named = ", ".join(sorted(scales)) or "numbers"
        raise BackendError(f"{where}: it estimates {named} on a scale, no emotions: {other}")
    if checkpoint.config.get("problem_type") == "multi_label_classification":
        raise BackendError(f"{where}: its classes do not exclude one another: {other}")
    if len(checkpoint.labels) < 2:
        raise BackendError(f"{where}: it has no classes: {other}")
    if "hidden_size" not in checkpoint.config:
        raise BackendError(f"{where}: config.json states no hidden_size: {other}")


def _normalises(checkpoint: Checkpoint, where: str) -> bool:
    """Whether the network takes sounds of mean 0 and variance 1.

    Source: transformers' Wav2Vec2FeatureExtractor.
    """
    path = checkpoint.folder / "preprocessor_config.json"
    if not path.is_file():
        raise BackendError(
            f"{where}: {path.name} is missing, which says what the network takes: pull it again"
        )
    settings = json.loads(path.read_text(encoding="utf-8"))
    rate, size = settings.get("sampling_rate", SAMPLE_RATE_HZ), settings.get("feature_size", 1)
    if rate != SAMPLE_RATE_HZ or size != 1:
        raise ConfigError(
            f"{where}: it takes {size} × {rate} Hz, and segments are heard at {SAMPLE_RATE_HZ} Hz: "
            "give a checkpoint for that"
        )
    return bool(settings.get("do_normalize", True))


def _windows(heard: Voice, longest: int) -> list[tuple[Floats, float]]:
    """A voice in as few pieces of one length as are not longer than `longest` samples.

    Each with its share of the speech; pieces without speech are left out.
    """
    n = len(heard.samples)
    count = -(-n // longest)
    if count == 1:
        return [(heard.samples, 1.0)]
    size = n // count
    spoken = np.repeat(heard.speech >= voice.OPEN_AT, voice.WINDOW)[:n]
    parts = [slice(start, start + size) for start in range(0, count * size, size)]
    held = np.array([spoken[part].sum() for part in parts])
    # Speech may lie in the few samples that are left over alone.
    share = held / held.sum() if held.any() else np.full(count, 1 / count)
    return [
        (heard.samples[part], weight)
        for part, weight in zip(parts, share.tolist(), strict=True)
        if weight > 0
    ]
