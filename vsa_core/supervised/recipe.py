"""The recipe of a supervised model: encoders, fusion, heads, loss, schedule, augmentation"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vsa_core.errors import ConfigError


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Encoder(_Section):
    """What every encoder has."""

    learning_rate: float = Field(gt=0, description="Peak learning rate of its own weights.")
    frozen_epochs: int = Field(
        0,
        ge=0,
        description="Epochs at the start in which it is not trained; more than there are: never.",
    )
    trained_blocks: int | None = Field(
        None, ge=1, description="Only its last so many blocks are trained; null: all of it.",
    )  # fmt: skip


class Text(_Encoder):
    """The encoder of what is said."""

    checkpoint: str = Field(
        "minilm", description="minilm (in the package), or a folder or a pulled name as "
        "bert-base-uncased.",
    )  # fmt: skip
    max_tokens: int = Field(96, ge=8, le=512, description="Tokens of the utterance read at most.")
    context_tokens: int = Field(
        0, ge=0, description="Tokens of what was said before that are read at most."
    )
    speakers: bool = Field(True, description="Whether names of speakers, where known, are read.")
    learning_rate: float = Field(5e-5, gt=0)


class Video(_Encoder):
    """The encoder of the picture."""

    network: Literal["r3d18", "resnet18", "resnet50", "vgg16"] = "r3d18"
    weights: Path | None = Field(
        None, description="A file of torchvision's weights; null begins at random."
    )
    frames: int = Field(16, ge=1, le=128, description="Frames, evenly over the whole utterance.")
    learning_rate: float = Field(1e-4, gt=0)


class Audio(_Encoder):
    """The encoder of the voice."""

    network: Literal["spectrogram", "wav2vec2"] = "spectrogram"
    checkpoint: str | None = Field(
        None, description="wav2vec2: a folder or a pulled name, as facebook/wav2vec2-base."
    )
    mels: int = Field(64, ge=16, le=128, description="spectrogram: mel bands.")
    max_s: float = Field(
        12.0, gt=0.2, le=60, description="Of a longer utterance the middle is heard, s."
    )
    learning_rate: float = Field(3e-4, gt=0)

    @model_validator(mode="after")
    def _has_checkpoint(self) -> Audio:
        if self.network == "wav2vec2" and self.checkpoint is None:
            raise ValueError("network wav2vec2 needs a checkpoint, as facebook/wav2vec2-base")
        return self


class Encoders(_Section):
    """Which modalities there are; null leaves one out."""

    text: Text | None = Text()
    video: Video | None = Video()
    audio: Audio | None = Audio()
    width: int = Field(128, ge=8, description="What each encoder comes to.")

    @model_validator(mode="after")
    def _any(self) -> Encoders:
        if not self.modalities:
            raise ValueError("at least one of text, video and audio is needed")
        return self

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of those there are, in order: text, video, audio."""
        return tuple(n for n in ("text", "video", "audio") if getattr(self, n) is not None)


class Fusion(_Section):
    """How the modalities meet."""

    kind: Literal["late", "early", "hybrid", "attention"] = Field(
        "late", description="late joins vectors; early joins sequences before a transformer; "
        "attention lets each look at the others; hybrid is late and attention side by side.",
    )  # fmt: skip
    width: int = Field(256, ge=8)
    layers: int = Field(2, ge=1, le=12, description="early, hybrid, attention.")
    heads: int = Field(4, ge=1, description="early, hybrid, attention: attention heads.")
    dropout: float = Field(0.3, ge=0, lt=1)
    modality_dropout: float = Field(
        0.1, ge=0, lt=1, description="How often a modality is hidden in training."
    )


class Loss(_Section):
    """What is minimised."""

    sentiment: float = Field(1.0, ge=0, description="Weight of the sentiment's loss.")
    emotion: float = Field(1.0, ge=0, description="Weight of the emotion's loss.")
    learned_weights: bool = Field(
        False, description="Learn both weights from how uncertain each target is."
    )
    class_weights: float = Field(
        0.0, ge=0, le=1, description="Power of the inverse frequency: 0 none, 1 balanced."
    )
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    consistency: float = Field(
        0.0, ge=0, description="Weight of the distance of the sentiment from what the emotion "
        "implies (surprise implies none).",
    )  # fmt: skip
    l1: float = Field(0.0, ge=0, description="On the weights of fusion and heads.")
    l2: float = Field(0.01, ge=0, description="Decoupled weight decay (AdamW).")


class Schedule(_Section):
    """How long and how fast."""

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(16, ge=1)
    accumulate: int = Field(1, ge=1, description="Batches whose gradients are added up.")
    learning_rate: float = Field(5e-4, gt=0, description="Of fusion and heads.")
    kind: Literal["cosine", "plateau"] = "cosine"
    warmup_share: float = Field(0.1, ge=0, lt=1, description="Of all steps.")
    clip_norm: float = Field(1.0, gt=0, description="Of all gradients together.")
    patience: int = Field(4, ge=1, description="Epochs without a better figure before the end.")
    plateau_patience: int = Field(1, ge=0, description="plateau: epochs before the rate is halved.")
    monitor: Literal["sentiment", "emotion", "mean", "loss"] = Field(
        "mean", description="Weighted F1 of the development set, or its loss."
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: float16 on cuda, float32 on the CPU."
    )
    checkpoint_minutes: float = Field(
        5.0, ge=0, description="A checkpoint also within an epoch, as often as this."
    )


class Augmentation(_Section):
    """What training changes at random; never at evaluation."""

    crop: bool = Field(True, description="A random part of 112 × 112 px instead of the middle.")
    flip: bool = Field(True, description="Left and right.")
    time_shift: float = Field(
        0.5, ge=0, le=1, description="Frames move by up to this share of their distance."
    )
    time_mask_s: float = Field(0.3, ge=0, description="SpecAugment: longest stretch hidden.")
    mel_mask: int = Field(8, ge=0, description="SpecAugment: most bands hidden.")
    token_dropout: float = Field(0.05, ge=0, lt=1, description="Share of tokens hidden.")


class Recipe(_Section):
    """All that decides what a supervised model becomes, but for its data."""

    encoders: Encoders = Encoders()
    fusion: Fusion = Fusion()
    loss: Loss = Loss()
    schedule: Schedule = Schedule()
    augmentation: Augmentation = Augmentation()
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _targets(self) -> Recipe:
        if self.loss.sentiment == self.loss.emotion == 0:
            raise ValueError("loss: sentiment and emotion cannot both weigh 0")
        return self

    @property
    def targets(self) -> tuple[str, ...]:
        """What is learned, of sentiment and emotion."""
        return tuple(t for t in ("sentiment", "emotion") if getattr(self.loss, t) > 0)


def load_recipe(path: Path) -> Recipe:
    """A recipe from a YAML file; what it does not name keeps its default.

    Raises:
        ConfigError: it cannot be read, or a key or value is wrong.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"recipe {path} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path} is no YAML: {' '.join(str(error).split())}") from error
    return recipe_of(found or {}, str(path))


def recipe_of(values: Any, name: str) -> Recipe:
    """A recipe from what a YAML file or a JSON card holds.

    Raises:
        ConfigError: a key or value is wrong.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ConfigError(f"recipe {name}: {where}: {first['msg']}") from error
