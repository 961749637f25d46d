"""CMU-MOSI: positive or negative opinions in YouTube videos, from text, voice and face features."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vsa_core import config, progress
from vsa_core.errors import UsageError
from vsa_core.experiments.real import (
    TARGET,
    Scores,
    Setting,
    data_file,
    score_setting,
)
from vsa_core.experiments.real_page import outcome
from vsa_core.experiments.study import Outcome
from vsa_core.fusion.views import Views, views_from_arrays
from vsa_core.labels import SENTIMENTS, Sentiment

ORIGIN = "declare-lab/multimodal-deep-learning on GitHub, bc-LSTM/data; see docs/real-data.md"
CLASSES = (Sentiment.NEGATIVE.value, Sentiment.POSITIVE.value)
MODALITIES = ("text", "audio", "video")
# Of the 62 train videos, those whose labels the "pretrained" heads are fitted to.
SOURCE_VIDEOS = 20
# Inverse ridge of the heads. Not chosen by cross-validation: the train part's text and video
# features were trained on its labels, so that it would find hardly any ridge needed.
RIDGE, LOOSE_RIDGE = 0.01, 1.0


@dataclass(frozen=True, slots=True)
class Mosi:
    """The utterances, in the order of the files.

    Attributes:
        video: (n,) name of the video.
        test: (n,) bool; the videos of the two parts are disjoint.
        positive: (n,) 1 where the rating is 0 or more.
        text: n transcripts, without punctuation.
        features: per modality (n, d); those of text, and partly of video, were trained on the
            labels of the train part.
    """

    video: NDArray[np.str_]
    test: NDArray[np.bool_]
    positive: NDArray[np.intp]
    text: tuple[str, ...]
    features: dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Packaged:
    """What the text backend that ships says of every utterance; it never saw MOSI.

    Attributes:
        probs: (n, 2) of negative and positive, renormalised without neutral.
        vectors: (n, 384).
    """

    probs: NDArray[np.float64]
    vectors: NDArray[np.float32]


def run(data: Path, seeds: Sequence[int]) -> Outcome:
    """Score every strategy on the test part of MOSI.

    Args:
        data: the folder with `mosi/utterances.csv` and `mosi/features.npz`.
        seeds: each draws another source split and trains anew.

    Raises:
        UsageError: a file is missing, or is not what it should be.
        BackendError: the text backend cannot be loaded.
    """
    mosi = read(data)
    packaged = packaged_text(mosi)
    scores = Scores()
    settings = [(seed, setting) for seed in seeds for setting in settings_of(mosi, packaged, seed)]
    progress.begin("experiment", len(settings))
    for seed, setting in settings:
        score_setting(scores, setting, seed)
        progress.advance("experiment", 1)
    scores.facts.append(spread(mosi))
    return outcome("mosi", scores)


def read(data: Path) -> Mosi:
    """The utterances and their features.

    Raises:
        UsageError: a file is missing, or the two do not fit.
    """
    table = data_file(data, "mosi/utterances.csv", ORIGIN)
    arrays = data_file(data, "mosi/features.npz", ORIGIN)
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        with np.load(arrays) as found:
            features = {name: found[name] for name in MODALITIES}
        mosi = Mosi(
            np.array([row["video"] for row in rows]),
            np.array([row["part"] == "test" for row in rows]),
            np.array([int(row["positive"]) for row in rows], np.intp),
            tuple(row["text"] for row in rows),
            features,
        )
    except (KeyError, ValueError, OSError) as error:
        raise UsageError(f"{data / 'mosi'} is not the MOSI it should be: {error}") from error
    if any(len(x) != len(rows) for x in features.values()):
        raise UsageError(f"{arrays} has not as many rows as {table}: get both again ({ORIGIN})")
    return mosi


def packaged_text(mosi: Mosi) -> Packaged:
    """The text backend over the transcripts.

    Raises:
        BackendError: a package or weights are missing.
    """
    from vsa_core.backends.text_minilm import load

    said = load().predict(list(mosi.text))
    assert said.sentiment_probs is not None
    columns = [SENTIMENTS.index(Sentiment(name)) for name in CLASSES]
    probs = np.maximum(said.sentiment_probs[:, columns].astype(np.float64), 1e-6)
    return Packaged(probs / probs.sum(axis=1, keepdims=True), said.embedding)


def settings_of(mosi: Mosi, packaged: Packaged, seed: int) -> list[Setting]:
    """The ways to see the test part, by how much of MOSI's own labels the views rest on.

    The features of "three views" rest on the labels of the whole train part, its heads on those
    of the source split; "no label" rests on none.
    """
    source = source_rows(mosi, seed)
    x = mosi.features
    silent = np.full((len(mosi.video), len(CLASSES)), np.nan)

    def heads(ridge: float) -> dict[str, NDArray[np.float64]]:
        return {name: head(x[name], mosi.positive, source, ridge) for name in MODALITIES}

    firm, loose = heads(RIDGE), heads(LOOSE_RIDGE)
    own = {name: (firm[name], x[name]) for name in MODALITIES}
    sure = {name: (loose[name], x[name]) for name in MODALITIES}
    vectors = packaged.vectors
    ours = {"text": (packaged.probs, vectors)}
    fitted = {"text": (head(vectors, mosi.positive, source, RIDGE), vectors)}
    mute = {name: (silent, x[name]) for name in ("audio", "video")}
    return [
        _setting("three views", mosi, own),
        _setting("three views, overconfident heads", mosi, sure),
        _setting("label-free text vectors + audio", mosi, fitted | {"audio": own["audio"]}),
        _setting("packaged text + audio + video", mosi, own | ours),
        _setting("no label: only the packaged text votes", mosi, ours | mute),
    ]


def source_rows(mosi: Mosi, seed: int) -> NDArray[np.bool_]:
    """(n,) the utterances of `SOURCE_VIDEOS` train videos, drawn by the seed."""
    videos = np.unique(mosi.video[~mosi.test])
    drawn = np.random.default_rng(seed).permutation(videos)[:SOURCE_VIDEOS]
    return np.isin(mosi.video, drawn)


def head(
    x: NDArray[np.floating], y: NDArray[np.intp], source: NDArray[np.bool_], ridge: float
) -> NDArray[np.float64]:
    """What a logistic regression fitted to the source rows says of all n: (n, 2)."""
    from sklearn.linear_model import LogisticRegression

    z = (x - x[source].mean(axis=0)) / (x[source].std(axis=0) + 1e-6)
    model = LogisticRegression(C=ridge, max_iter=500).fit(z[source], y[source])
    probs: NDArray[np.float64] = model.predict_proba(z)
    return probs


def spread(mosi: Mosi) -> str:
    """How far the test videos differ in how often their speakers are positive, one line."""
    _, video = np.unique(mosi.video[mosi.test], return_inverse=True)
    size = np.bincount(video)
    share = np.bincount(video, mosi.positive[mosi.test]) / size
    overall = mosi.positive[mosi.test].mean()
    chance = np.sqrt((overall * (1 - overall) / size).mean())
    return (
        f"{size.sum()} utterances of {len(size)} videos, {overall:.1%} of them positive; "
        f"from video to video that share has a standard deviation of {share.std():.3f}, where "
        f"{chance:.3f} would be chance."
    )


def _setting(
    name: str, mosi: Mosi, seen: dict[str, tuple[NDArray[np.float64], NDArray[np.float32]]]
) -> Setting:
    """The test part alone: nothing else reaches a strategy."""
    rows = mosi.test
    views: Views = views_from_arrays(
        mosi.video[rows],
        np.stack([probs[rows] for probs, _ in seen.values()], axis=1),
        [x[rows] for _, x in seen.values()],
        names=tuple(seen),
        classes=CLASSES,
        target=TARGET,
    )
    return Setting(name, views, mosi.positive[rows], config.Agree().min_confidence)
