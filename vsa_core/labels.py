"""The label space: sentiments, emotions, modalities, and how an emotion implies a sentiment."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class Sentiment(StrEnum):
    """Three-way polarity; the order is the order of every `sentiment_probs`."""

    NEGATIVE = "negative"
    NEUTRAL = "neutral"
    POSITIVE = "positive"


class Emotion(StrEnum):
    """MELD's seven emotions (Ekman's six and neutral); the order of every `emotion_probs`."""

    ANGER = "anger"
    DISGUST = "disgust"
    FEAR = "fear"
    JOY = "joy"
    NEUTRAL = "neutral"
    SADNESS = "sadness"
    SURPRISE = "surprise"


class Modality(StrEnum):
    """What a backend looks at."""

    TEXT = "text"
    FACE = "face"
    AUDIO = "audio"


class Status(StrEnum):
    """What became of one segment in one backend."""

    OK = "ok"
    ABSENT = "absent"
    FOREIGN = "foreign"
    ERROR = "error"


class Agreement(StrEnum):
    """How the votes on a segment relate; a missing modality never counts as agreeing."""

    AGREE = "agree"
    DISAGREE = "disagree"
    SINGLE = "single"
    UNCERTAIN = "uncertain"
    ABSENT = "absent"


class Origin(StrEnum):
    """Who decided a label."""

    CONSENSUS = "consensus"
    FUSION = "fusion"
    SINGLE = "single"
    HUMAN = "human"
    NONE = "none"


SENTIMENTS: tuple[Sentiment, ...] = tuple(Sentiment)
EMOTIONS: tuple[Emotion, ...] = tuple(Emotion)
MODALITIES: tuple[Modality, ...] = tuple(Modality)

# P(sentiment | emotion), rows in the order of EMOTIONS, columns in the order of SENTIMENTS.
# In MELD every emotion but surprise has one sentiment; surprise is two-sided there (591 positive
# to 614 negative in train), so it says nothing about polarity and is split in halves.
SENTIMENT_GIVEN_EMOTION: NDArray[np.float32] = np.array(
    [
        [1.0, 0.0, 0.0],  # anger
        [1.0, 0.0, 0.0],  # disgust
        [1.0, 0.0, 0.0],  # fear
        [0.0, 0.0, 1.0],  # joy
        [0.0, 1.0, 0.0],  # neutral
        [1.0, 0.0, 0.0],  # sadness
        [0.5, 0.0, 0.5],  # surprise
    ],
    dtype=np.float32,
)
SENTIMENT_GIVEN_EMOTION.setflags(write=False)


def sentiment_from_emotion(emotion_probs: NDArray[np.floating]) -> NDArray[np.float32]:
    """Sentiment probabilities implied by emotion probabilities.

    Args:
        emotion_probs: (..., 7) in the order of `EMOTIONS`, each row summing to 1.

    Returns:
        (..., 3) float32 in the order of `SENTIMENTS`, each row summing to 1.

    Source: the emotion to sentiment map of MELD (Poria et al. 2019), with surprise split in
    halves where TF-MVSA's code calls it positive.
    """
    probs: NDArray[np.float32] = np.asarray(emotion_probs, np.float32) @ SENTIMENT_GIVEN_EMOTION
    return probs


def total_variation(one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float32]:
    """How far apart two sets of probabilities are: half the sum of their differences.

    Args:
        one: (..., K), each row summing to 1, or NaN.
        other: the same shape.

    Returns:
        (...) float32 from 0, the same, to 1, nothing in common; NaN where either is.
    """
    apart = np.abs(np.asarray(one, np.float32) - np.asarray(other, np.float32)).sum(axis=-1) / 2
    return np.asarray(np.minimum(apart, 1), np.float32)
