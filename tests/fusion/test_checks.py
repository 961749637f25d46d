"""Warnings fire on a planted fault and keep quiet on healthy segments."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vsa_core.experiments.regimes import REGIMES, draw
from vsa_core.fusion.checks import (
    Moments,
    consensus,
    contradictions,
    embedding_drift,
    moments,
    noise,
    prior_drift,
)
from vsa_core.fusion.views import Views
from vsa_core.labels import SENTIMENTS

CLASSES = tuple(s.value for s in SENTIMENTS)
HEALTHY = ("random", "shifted", "three")


def _votes(views: Views) -> NDArray[np.intp]:
    probs = views.probs["sentiment"]
    said = np.isfinite(probs).all(axis=2)
    return np.where(said, np.nan_to_num(probs).argmax(axis=2), -1)


def _agreed(votes: NDArray[np.intp]) -> NDArray[np.intp]:
    same = (votes == votes[:, :1]).all(axis=1)
    return np.bincount(votes[same, 0], minlength=3)


@pytest.mark.parametrize("seed", [200, 201, 202])
@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_segments_give_no_warning(name: str, seed: int) -> None:
    views = draw(REGIMES[name], seed).views
    votes = _votes(views)
    assert consensus(_agreed(votes), len(votes), CLASSES) is None
    assert contradictions(votes, views.names) == []
    half = views.video < np.sort(np.unique(views.video))[15]
    shown = np.eye(3)[votes[:, 0]]
    shares = [moments(shown[part], views.video[part]) for part in (half, ~half)]
    assert prior_drift(shares[0], shares[1], CLASSES) is None
    for view, embedding in zip(views.names, views.embeddings, strict=True):
        x, video = np.asarray(embedding.vectors, np.float64), views.video[embedding.rows]
        first = half[embedding.rows]
        known = moments(x[first], video[first])
        assert embedding_drift(view, known, moments(x[~first], video[~first])) is None


def test_too_small_a_consensus() -> None:
    said = consensus(np.array([10, 5, 8]), 500, CLASSES)
    assert said is not None
    assert "23 of 500" in said
    assert consensus(np.array([20, 20, 20]), 5000, CLASSES) is not None
    assert consensus(np.array([20, 20, 20]), 200, CLASSES) is None


def test_a_one_sided_consensus() -> None:
    said = consensus(np.array([2, 950, 40]), 2000, CLASSES)
    assert said is not None
    assert f"96% of the 992 segments views agree on are {CLASSES[1]}" in said
    assert consensus(np.array([10, 850, 100]), 2000, CLASSES) is None


def test_noise() -> None:
    said = noise("face", 0.001, 3000)
    assert said is not None
    assert "face" in said
    assert noise("face", 0.05, 3000) is None


def test_two_views_that_contradict_are_both_named() -> None:
    views = draw(REGIMES["shifted"], 200).views
    votes = _votes(views)
    votes[:, 1] = (votes[:, 1] + 1) % 3
    said = contradictions(votes, views.names)
    assert len(said) == 1
    assert "text and face" in said[0]


def test_of_three_the_one_that_contradicts_stands_out() -> None:
    drawn = draw(REGIMES["three"], 200)
    views, votes = drawn.views, _votes(drawn.views)
    votes[:, 2] = (drawn.truth + 1) % 3
    said = contradictions(votes, views.names)
    assert len(said) == 1
    assert said[0].startswith("audio agrees with text and face less")


@pytest.mark.parametrize("seed", range(20))
def test_guesses_constants_and_few_votes_do_not_contradict(seed: int) -> None:
    rng = np.random.default_rng(seed)
    votes = rng.integers(0, 3, (500, 4))
    votes[:, 1] = 2
    votes[:, 3] = -1
    assert contradictions(votes, "abcd") == []
    assert contradictions(rng.integers(0, 3, (10, 2)), "ab") == []


def _shares(
    prior: tuple[float, ...], videos: int, rng: np.random.Generator, alike: float = 20.0
) -> Moments:
    """Labels of videos with 50 segments, each with shares of its own around the prior."""
    own = rng.dirichlet(alike * np.array(prior), videos)
    labels = np.concatenate([rng.choice(3, 50, p=p) for p in own])
    return moments(np.eye(3)[labels], np.repeat(np.arange(videos), 50))


def test_a_prior_that_drifted() -> None:
    rng = np.random.default_rng(0)
    before = _shares((0.3, 0.4, 0.3), 40, rng)
    said = prior_drift(before, _shares((0.1, 0.4, 0.5), 40, rng), CLASSES)
    assert said is not None
    assert said.startswith((CLASSES[0], CLASSES[2]))
    # A small one is no matter, and of one video nobody can tell.
    assert prior_drift(before, _shares((0.27, 0.41, 0.32), 400, rng), CLASSES) is None
    one = _shares((0.3, 0.4, 0.3), 1, rng)
    assert prior_drift(one, _shares((0.05, 0.05, 0.9), 1, rng), CLASSES) is None


@pytest.mark.parametrize("videos", [2, 5, 30])
def test_prior_drift_by_chance_is_rare(videos: int) -> None:
    rng = np.random.default_rng(0)
    fired = 0
    for _ in range(300):
        a, b = (_shares((0.2, 0.3, 0.5), videos, rng, alike=5.0) for _ in range(2))
        fired += prior_drift(a, b, CLASSES) is not None
    assert fired <= 3


def test_a_shifted_or_rescaled_embedding() -> None:
    views = draw(REGIMES["shifted"], 200).views
    x, video = np.asarray(views.embeddings[0].vectors, np.float64), views.video
    known = moments(x, video)
    said = embedding_drift("text", known, moments(x + 1.0, video))
    assert said is not None
    assert "text" in said
    other = np.asarray(draw(REGIMES["shifted"], 201).views.embeddings[0].vectors) + 2
    assert embedding_drift("text", known, moments(other, video)) is not None
    assert embedding_drift("text", known, moments(x[:, :10], video)) is not None


def test_one_odd_video_is_no_drift() -> None:
    views = draw(REGIMES["shifted"], 200).views
    x, video = np.asarray(views.embeddings[1].vectors, np.float64), views.video
    names = np.unique(video)
    quiet = 0
    for name in names:
        one = video == name
        known = moments(x[~one], video[~one])
        quiet += embedding_drift("face", known, moments(x[one], video[one])) is None
    assert quiet >= 0.9 * len(names)


def test_moments_by_hand() -> None:
    found = moments(np.array([[0.0], [2.0], [4.0], [6.0]]), np.array(["a", "a", "b", "b"]))
    assert found.mean == pytest.approx([3])
    assert found.scale == pytest.approx([np.sqrt(5)])
    assert found.between == pytest.approx([np.sqrt(8)])
    assert found.videos == 2
