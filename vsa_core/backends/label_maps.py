"""A checkpoint's own label names turned into our sentiments or emotions, by rules that are stated.

Names are compared without case, `_` and `-`. The rules, in this order:

1. What the configuration's `labels` says.
2. Sentiments: negative, neutral, positive and their usual short forms; "very" and "somewhat" are
   left out ("Very Negative" is negative).
3. Stars: "1 star" to "5 stars"; one and two are negative, three is neutral, four and five positive.
4. Emotions: ours, their adjectives, and the short forms of speech corpora (ang, hap, neu, …). Calm
   is neutral, excitement joy and frustration anger, as is usual with RAVDESS and IEMOCAP; contempt
   is nearest to disgust; the 27 emotions of GoEmotions are grouped as its authors group them
   (Demszky et al. 2020, arXiv 2005.00547).

All classes must fall into one of the two spaces, sentiments or emotions; a name that neither rule
knows (`LABEL_0`, "bullish") is never guessed. Several classes of one name add up. Emotions imply a
sentiment by `labels.sentiment_from_emotion`. Those of our seven that no class of a checkpoint
stands for get 1/7 each, and its classes share the rest: a probability of 0 would claim that it saw
that there is no fear, and in a product with other models none could find any against it.

A checkpoint without a neutral class (negative and positive alone) gives neutral a probability of
0, and abstains where it is undecided between the two, below `DECIDED`: what is neutral must not
become whichever of them is a little ahead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsa_core.errors import BackendError, ConfigError
from vsa_core.labels import (
    EMOTIONS,
    SENTIMENTS,
    Emotion,
    Sentiment,
    sentiment_from_emotion,
)

# Odds of two to one.
DECIDED = 2 / 3

_SENTIMENT_NAMES = {
    Sentiment.NEGATIVE: "negative neg",
    Sentiment.NEUTRAL: "neutral neu",
    Sentiment.POSITIVE: "positive pos",
}
_STARS = {
    "1 star": Sentiment.NEGATIVE,
    "2 stars": Sentiment.NEGATIVE,
    "3 stars": Sentiment.NEUTRAL,
    "4 stars": Sentiment.POSITIVE,
    "5 stars": Sentiment.POSITIVE,
}
_EMOTION_NAMES = {
    Emotion.ANGER: "anger angry ang annoyance disapproval frustrated frustration fru",
    Emotion.DISGUST: "disgust disgusted dis contempt",
    Emotion.FEAR: "fear fearful fea nervousness",
    Emotion.JOY: "joy joyful happy happiness hap excited exc admiration amusement approval caring "
    "desire excitement gratitude love optimism pride relief",
    Emotion.NEUTRAL: "neutral neu calm",
    Emotion.SADNESS: "sadness sad disappointment embarrassment grief remorse",
    Emotion.SURPRISE: "surprise surprised sur confusion curiosity realization",
}
_SENTIMENT_OF = {
    name: sentiment for sentiment, names in _SENTIMENT_NAMES.items() for name in names.split()
} | _STARS
_EMOTION_OF = {name: emotion for emotion, names in _EMOTION_NAMES.items() for name in names.split()}
_DEGREE = re.compile("^(very|somewhat) ")
_MOST_SHOWN = 12


@dataclass(frozen=True, slots=True)
class LabelMap:
    """What each class of a checkpoint is to us.

    Attributes:
        targets: for each class, by its index, a name of `space`; None for one that is none of ours.
        space: `SENTIMENTS` or `EMOTIONS`.
    """

    targets: tuple[str | None, ...]
    space: tuple[Sentiment, ...] | tuple[Emotion, ...]

    def sentiment_probs(self, probs: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, K) probabilities of the checkpoint's classes to (B, 3); NaN where it abstains."""
        ours = self._ours(probs)
        if self.space is EMOTIONS:
            return sentiment_from_emotion(ours)
        if Sentiment.NEUTRAL not in self.targets:
            ours[ours.max(axis=1) < DECIDED] = np.nan
        return ours

    def emotion_probs(self, probs: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """(B, K) to (B, 7), NaN where it abstains; None when the classes are sentiments."""
        if self.space is not EMOTIONS:
            return None
        ours = self._ours(probs)
        unknown = np.array([emotion not in self.targets for emotion in EMOTIONS])
        ours *= np.float32(1 - unknown.mean())
        ours[np.ix_(~np.isnan(ours).any(axis=1), unknown)] = np.float32(1 / len(EMOTIONS))
        return ours

    def _ours(self, probs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities in `space`; NaN where a class that is none of ours is the most probable."""
        share = np.array([[target == one for one in self.space] for target in self.targets])
        ours = np.asarray(probs, np.float64) @ share
        total = ours.sum(axis=1, keepdims=True)
        none = [target is None for target in self.targets]
        if any(none):
            total[probs[:, none].max(axis=1) >= probs.max(axis=1)] = np.nan
        with np.errstate(invalid="ignore"):
            result: NDArray[np.float32] = (ours / total).astype(np.float32)
        return result


def map_labels(
    labels: Sequence[str], given: Mapping[str, str | None] | None = None, *, where: str
) -> LabelMap:
    """How a checkpoint's classes become ours.

    Args:
        labels: the checkpoint's names of its classes, by index.
        given: the configuration's `labels`: their name → one of our sentiments or emotions, or
            null for a class that is none of ours.
        where: which backend and checkpoint, for messages.

    Raises:
        ConfigError: `given` names a class that the checkpoint does not have, or maps to something
            that is neither a sentiment nor an emotion.
        BackendError: a class that no rule knows, classes of both spaces, or too few different ones
            to tell anything.
    """
    told = _told(labels, given or {}, where)
    for space, names in ((SENTIMENTS, _SENTIMENT_OF), (EMOTIONS, _EMOTION_OF)):
        targets = tuple(
            told[label] if label in told else names.get(_plain(label, names)) for label in labels
        )
        unknown = [
            label
            for label, target in zip(labels, targets, strict=True)
            if target not in space and not (target is None and label in told)
        ]
        if not unknown and _tells(set(targets)):
            return LabelMap(targets, space)
    shown = [_quoted(label) for label in labels[:_MOST_SHOWN]]
    more = ", …" if len(labels) > _MOST_SHOWN else ""
    raise BackendError(
        f"{where}: its classes {', '.join(shown)}{more} are not known to be sentiments or emotions:"
        f" write `labels: {{{', '.join(f'{label}: …' for label in shown)}{more}}}` in the backend's"
        f" options, with {', '.join(SENTIMENTS)}, or {', '.join(EMOTIONS)}, or null for each …"
    )


def _told(
    labels: Sequence[str], given: Mapping[str, str | None], where: str
) -> dict[str, str | None]:
    """The configuration's map under the checkpoint's own spelling of its labels."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: labels is {given!r}: write `labels: {{THEIRS: ours, …}}`")
    own = {label.casefold(): label for label in labels}
    told = {}
    for theirs, ours in given.items():
        label = own.get(str(theirs).casefold())
        if label is None:
            known = ", ".join(_quoted(name) for name in labels[:_MOST_SHOWN])
            raise ConfigError(f"{where}: labels has {theirs!r}, which is none of its: {known}")
        if ours is not None and ours not in {*SENTIMENTS, *EMOTIONS}:
            raise ConfigError(
                f"{where}: labels maps {theirs!r} to {ours!r}: give {', '.join(SENTIMENTS)}, or "
                f"{', '.join(EMOTIONS)}, or null"
            )
        told[label] = ours
    return told


def _plain(label: str, names: Mapping[str, str]) -> str:
    name = " ".join(re.split(r"[\s_-]+", label.casefold().strip()))
    return _DEGREE.sub("", name) if names is _SENTIMENT_OF else name


def _tells(targets: set[str | None]) -> bool:
    """Whether classes of these targets can disagree about sentiment."""
    if targets & {Sentiment.NEGATIVE, Sentiment.POSITIVE}:
        return {Sentiment.NEGATIVE, Sentiment.POSITIVE} <= targets
    return len(targets - {None}) > 1


def _quoted(label: str) -> str:
    """A label as a YAML key."""
    short = label if len(label) <= 40 else f"{label[:39]}…"
    return short if re.fullmatch(r"[A-Za-z]\w*", short) else json.dumps(short, ensure_ascii=False)
