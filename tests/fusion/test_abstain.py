"""Risk against coverage, and conformal sets."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vsa_core.errors import UsageError
from vsa_core.fusion.abstain import (
    EXPECTED,
    REVIEWED,
    conformal_sets,
    pick_threshold,
    risk_coverage,
)


def test_a_curve_by_hand() -> None:
    confidence = np.array([0.9, 0.6, 0.8, np.nan, 0.8])
    curve = risk_coverage(confidence, right=np.array([True, False, True, False, False]))
    assert curve.threshold.tolist() == [0.9, 0.8, 0.6]
    assert curve.coverage == pytest.approx([0.2, 0.6, 0.8])
    assert curve.risk == pytest.approx([0, 1 / 3, 1 / 2])
    assert curve.aurc == pytest.approx((0 * 0.2 + 0.4 / 3 + 0.2 / 2) / 0.8)
    assert curve.basis == REVIEWED
    assert pick_threshold(curve, 0.35) == pytest.approx((0.8, 0.6))
    assert pick_threshold(curve, 0.5) == pytest.approx((0.6, 0.8))


def test_without_reviews_the_risk_is_what_confidences_say() -> None:
    curve = risk_coverage(np.array([0.9, 0.5]))
    assert curve.risk == pytest.approx([0.1, 0.3])
    assert curve.basis == EXPECTED
    assert pick_threshold(curve, 0.05) is None


def test_a_reviewed_part_gives_the_whole_curve() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.4, 1, 20_000)
    right = rng.random(20_000) < confidence
    inclusion = np.where(confidence < 0.7, 0.2, 0.05)
    rows = np.flatnonzero(rng.random(20_000) < inclusion)
    whole = risk_coverage(confidence, right=right)
    part = risk_coverage(confidence, right=right[rows], rows=rows, inclusion=inclusion)
    # Counting each review once would lean to the unsure ones, reviewed more often.
    assert part.aurc == pytest.approx(whole.aurc, abs=0.015)
    assert part.risk[-1] == pytest.approx(whole.risk[-1], abs=0.02)
    unweighted = risk_coverage(confidence, right=right[rows], rows=rows)
    assert unweighted.risk[-1] > whole.risk[-1] + 0.05


def test_thinned_keeps_the_ends() -> None:
    curve = risk_coverage(np.linspace(0.3, 1, 1001))
    thin = curve.thinned(20)
    assert len(thin.risk) == 20
    assert (thin.coverage[0], thin.coverage[-1]) == (curve.coverage[0], 1.0)
    assert thin.aurc == curve.aurc
    assert curve.thinned(5000) is curve


def test_no_label_at_all() -> None:
    curve = risk_coverage(np.full(3, np.nan))
    assert curve.aurc is None
    assert pick_threshold(curve, 0.5) is None


def test_outcomes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="one for each"):
        risk_coverage(np.full(3, 0.5), right=np.array([True]))


def _problem(
    n: int, seed: int, prior: tuple[float, ...] = (0.2, 0.3, 0.5)
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Overconfident probabilities and classes."""
    rng = np.random.default_rng(seed)
    y = rng.choice(3, n, p=prior)
    z = 3 * (1.2 * np.eye(3)[y] + rng.normal(size=(n, 3)))
    z = np.exp(z - z.max(axis=1, keepdims=True))
    return z / z.sum(axis=1, keepdims=True), y


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_sets_hold_the_truth_as_promised(alpha: float) -> None:
    held, size = [], []
    for seed in range(100):
        probs, y = _problem(600, seed)
        sets = conformal_sets(probs, np.arange(100), y[:100], alpha)[100:]
        held.append(sets[np.arange(500), y[100:]].mean())
        size.append(sets.sum(axis=1).mean())
    assert np.mean(held) == pytest.approx(1 - alpha, abs=0.017)
    assert np.mean(size) < 2.6


def test_the_promise_can_be_kept_for_each_class() -> None:
    held: list[list[float]] = [[], [], []]
    plain: list[float] = []
    for seed in range(100):
        probs, y = _problem(800, seed, (0.1, 0.3, 0.6))
        probs = probs * [0.2, 1, 1]
        probs /= probs.sum(axis=1, keepdims=True)
        sets = conformal_sets(probs, np.arange(300), y[:300], 0.2, per_class=True)[300:]
        marginal = conformal_sets(probs, np.arange(300), y[:300], 0.2)[300:]
        for c in range(3):
            held[c].append(sets[y[300:] == c, c].mean())
        plain.append(marginal[y[300:] == 0, 0].mean())
    assert np.mean(held, axis=1) == pytest.approx([0.81, 0.81, 0.81], abs=0.025)
    assert np.mean(plain) < 0.7


def test_reviews_chosen_by_confidence_are_weighed() -> None:
    held, naive = [], []
    for seed in range(100):
        probs, y = _problem(3000, seed)
        inclusion = np.where(probs.max(axis=1) > 0.9, 0.3, 0.05)
        rows = np.flatnonzero(np.random.default_rng([seed, 1]).random(3000) < inclusion)
        truth = (np.arange(3000), y)
        weighed = conformal_sets(probs, rows, y[rows], 0.2, inclusion=inclusion)
        held.append(weighed[truth].mean())
        naive.append(conformal_sets(probs, rows, y[rows], 0.2)[truth].mean())
    assert np.mean(held) == pytest.approx(0.8, abs=0.025)
    assert abs(np.mean(naive) - 0.8) > 0.03


def test_too_few_reviews_promise_by_naming_all() -> None:
    probs, y = _problem(50, 0)
    assert conformal_sets(probs, np.arange(5), y[:5], 0.1).all()
    only = conformal_sets(probs, np.flatnonzero(y == 2)[:10], np.full(10, 2), 0.3, per_class=True)
    assert only[:, :2].all()
    assert not only[:, 2].all()


def test_a_segment_without_probabilities_gets_all_classes() -> None:
    probs, y = _problem(200, 0)
    probs[150] = np.nan
    sets = conformal_sets(probs, np.arange(100), y[:100], 0.3)
    assert sets[150].all()
    assert not sets.all()


@pytest.mark.parametrize(
    ("rows", "labels", "alpha", "why"),
    [
        ([], [], 0.1, "need reviewed segments"),
        ([0], [1], 0.0, "between 0 and 1"),
        ([0], [5], 0.1, "names class 5"),
        ([0, 1], [1], 0.1, "one for each"),
    ],
)
def test_sets_that_cannot_be_promised_are_refused(
    rows: list[int], labels: list[int], alpha: float, why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        conformal_sets(np.full((5, 3), 1 / 3), np.array(rows, int), np.array(labels, int), alpha)
