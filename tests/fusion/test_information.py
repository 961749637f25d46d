"""The weights of greatest mutual information: right where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vsa_core.fusion import information as engine
from vsa_core.fusion.information import fit_weights, information, log_softmax, softmax

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

K = 3


def _gaussian(
    n: int, size: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.floating], NDArray[np.floating]]:
    """Truth (n,), exact log-likelihoods (2, n, K) less their mean, and the posterior (n, K)."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, K, n)
    x = size * np.eye(K)[truth] + rng.normal(size=(2, n, K))
    logs = size * x
    logs -= logs.mean(axis=2, keepdims=True)
    return truth, logs, softmax(logs.sum(axis=0))


def _videos(n: int, count: int = 20) -> NDArray[np.intp]:
    return np.sort(np.arange(n) % count)


@pytest.mark.parametrize("mixing", [True, False])
@pytest.mark.parametrize("with_known", [True, False])
@pytest.mark.parametrize("size", [0.5, 3.0])
def test_the_gradient_is_that_of_the_loss(mixing: bool, with_known: bool, size: float) -> None:
    rng = np.random.default_rng(3)
    n, views = 40, 3
    votes, expert = rng.normal(size=(2, views, n, K))
    present = rng.random((n, views)) < 0.7
    known = (np.array([1, 5, 30]), np.array([0, 2, 1])) if with_known else None
    problem = engine._Problem(votes, expert, present, _videos(n, 4), mixing, known)
    at = size * rng.normal(size=len(problem.start)) / 3
    _, gradient = problem.loss(at)
    step = 1e-6
    slopes = [
        (problem.loss(at + step * e)[0] - problem.loss(at - step * e)[0]) / (2 * step)
        for e in np.eye(len(at))
    ]
    assert np.allclose(gradient, slopes, rtol=1e-4, atol=1e-6)


def test_the_gradient_holds_where_probabilities_are_floored() -> None:
    rng = np.random.default_rng(4)
    votes, expert = 900 * rng.normal(size=(2, 2, 30, K))
    present = np.ones((30, 2), bool)
    problem = engine._Problem(votes, expert, present, _videos(30, 3), True, None)
    at = 0.05 * rng.normal(size=len(problem.start))
    value, gradient = problem.loss(at)
    assert np.isfinite(value)
    bias = slice(problem.views * 2, problem.views * (2 + K))
    step = 1e-5
    for i in range(bias.start, bias.stop):
        e = np.eye(1, len(at), i)[0]
        slope = (problem.loss(at + step * e)[0] - problem.loss(at - step * e)[0]) / (2 * step)
        assert gradient[i] == pytest.approx(slope, rel=1e-3, abs=1e-4)


def test_an_absurd_prior_overflows_nothing_and_is_drawn_back() -> None:
    rng = np.random.default_rng(5)
    votes, expert = rng.normal(size=(2, 5, 50, K))
    problem = engine._Problem(votes, expert, np.ones((50, 5), bool), _videos(50, 5), True, None)
    at = problem.start.copy()
    at[5 * 2 + 5 * K] = -2000.0  # the log-prior of the first class
    with np.errstate(all="raise", under="ignore"):
        value, gradient = problem.loss(at)
    assert np.isfinite(value)
    assert gradient[5 * 2 + 5 * K] < 0  # descending brings it up
    assert np.isfinite(problem.weights(at).log_prior).all()


def test_planted_overconfidence_is_undone() -> None:
    """Views that say three times too much, and half of it, come out as they were."""
    truth, logs, posterior = _gaussian(6000, 1.2, 0)
    wrong = logs * np.array([3.0, 0.5])[:, None, None]
    present = np.ones((6000, 2), bool)
    weights = fit_weights(wrong, np.zeros_like(wrong), present, _videos(6000))
    evidence = weights.evidence(wrong, np.zeros_like(wrong), present)
    found = softmax(evidence.sum(axis=0) + weights.log_prior)
    naive = softmax(wrong.sum(axis=0))
    assert np.abs(found - posterior).mean() < 0.6 * np.abs(naive - posterior).mean()
    assert np.mean(found.argmax(axis=1) == truth) >= np.mean(naive.argmax(axis=1) == truth)
    assert np.diag(weights.votes[0]).mean() < 0.5 * np.diag(weights.votes[1]).mean()


def test_a_view_of_noise_is_turned_down() -> None:
    _, logs, _ = _gaussian(4000, 1.5, 1)
    noise = 2 * np.random.default_rng(0).normal(size=(1, *logs.shape[1:]))
    three = np.concatenate([logs, noise - noise.mean(axis=2, keepdims=True)])
    present = np.ones((4000, 3), bool)
    weights = fit_weights(three, np.zeros_like(three), present, _videos(4000))
    size = np.ptp(weights.evidence(three, np.zeros_like(three), present), axis=2).mean(axis=1)
    assert size[2] < 0.1 * size[:2].min()


def test_mixed_up_classes_are_unmixed() -> None:
    """A view that half the time calls class 0 class 1 is heard for what it means."""
    truth, logs, _ = _gaussian(6000, 1.5, 2)
    mixing = np.array([[0.4, 0.6, 0.0], [0.6, 0.4, 0.0], [0.0, 0.0, 1.0]])
    mixed = logs.copy()
    mixed[1] = logs[1] @ mixing
    present = np.ones((6000, 2), bool)
    nothing = np.zeros_like(mixed)

    def accuracy(mix: bool) -> float:
        weights = fit_weights(mixed, nothing, present, _videos(6000), mixing=mix)
        total = weights.evidence(mixed, nothing, present).sum(axis=0) + weights.log_prior
        return float(np.mean(total.argmax(axis=1) == truth))

    assert accuracy(True) > accuracy(False) + 0.01


def test_known_labels_pull_the_weights() -> None:
    """Without an association the weights cannot tell; labels say that the first view is right."""
    rng = np.random.default_rng(6)
    truth = rng.integers(0, K, 800)
    votes = 1.5 * np.eye(K)[np.stack([truth, rng.integers(0, K, 800)])]
    votes += 0.3 * rng.normal(size=votes.shape)
    votes -= votes.mean(axis=2, keepdims=True)
    present, nothing = np.ones((800, 2), bool), np.zeros_like(votes)
    rows = np.arange(400)
    weights = fit_weights(votes, nothing, present, _videos(800), known=(rows, truth[rows]))
    size = np.ptp(weights.evidence(votes, nothing, present), axis=2).mean(axis=1)
    assert size[0] > 3 * size[1]


def test_information_of_unrelated_views_is_not_above_nothing() -> None:
    rng = np.random.default_rng(7)
    votes = rng.normal(size=(2, 4000, K))
    votes -= votes.mean(axis=2, keepdims=True)
    present, video = np.ones((4000, 2), bool), _videos(4000)
    nothing = np.zeros_like(votes)
    half = np.arange(4000) % 2 == 0
    weights = fit_weights(votes[:, half], nothing[:, half], present[half], video[half])
    evidence = weights.evidence(votes[:, ~half], nothing[:, ~half], present[~half])
    told = information(weights.log_prior, evidence, present[~half], video[~half])
    assert told.mean() < 2 * told.std() / np.sqrt(len(told))


def test_information_counts_nothing_that_a_video_shares() -> None:
    """Two views that only tell the video tell nothing about one another within it."""
    video = _videos(4000, 10)
    log_prior = np.full(K, -np.log(K))
    sure = 4 * np.eye(K)[video % K]
    evidence = np.stack([log_softmax(sure) - log_prior] * 2)
    told = information(log_prior, evidence, np.ones((4000, 2), bool), video)
    apart = information(log_prior, evidence, np.ones((4000, 2), bool), np.arange(4000) % 10)
    assert told.mean() < 0.1
    assert apart.mean() > 0.5


def test_information_is_nothing_where_one_view_is_alone() -> None:
    _, logs, _ = _gaussian(200, 1.5, 8)
    present = np.ones((200, 2), bool)
    present[:50, 1] = False
    log_prior = np.full(K, -np.log(K))
    evidence = log_softmax(logs) - log_prior
    evidence[~present.T] = 0
    told = information(log_prior, evidence, present, _videos(200, 4))
    assert (told[:50] == 0).all()
    assert (told[50:] != 0).all()


def test_no_segments_give_the_weights_it_starts_from() -> None:
    nothing = np.zeros((2, 0, K))
    weights = fit_weights(nothing, nothing, np.zeros((0, 2), bool), np.zeros(0, np.intp))
    assert np.allclose(softmax(weights.log_prior), 1 / K)
    assert np.allclose(weights.votes, engine.VOTE_WEIGHT * (np.eye(K) - 1 / K))
