"""Which segments to review, and what their reviews say of all."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vsa_core.errors import UsageError
from vsa_core.fusion.review import (
    BLIND,
    choose_for_review,
    estimate_accuracy,
    estimate_without_reviews,
    held_out,
)


def _labels(
    off: float = 0.0, n: int = 3000, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Confidences and outcomes; `off` shifts the outcomes' logit."""
    rng = np.random.default_rng([seed, 11])
    logit = rng.normal(1.2, 1.2, n)
    right = rng.random(n) < 1 / (1 + np.exp(-(logit + off)))
    return 1 / (1 + np.exp(-logit)), right


def test_as_many_as_asked_for_each_once_and_the_same_again() -> None:
    confidence, _ = _labels()
    confidence[:100] = np.nan
    chosen = choose_for_review(confidence, 100, seed=3)
    assert len(np.unique(chosen.rows)) == 100
    assert chosen.rows.min() >= 100
    assert (chosen.rows == choose_for_review(confidence, 100, seed=3).rows).all()
    assert (chosen.rows != choose_for_review(confidence, 100, seed=4).rows).any()
    assert chosen.inclusion.sum() == pytest.approx(100)
    assert (chosen.inclusion[:100] == 0).all()


def test_inclusion_is_how_often_a_segment_is_chosen() -> None:
    confidence, _ = _labels(n=60)
    agree = np.arange(60) % 2 == 0
    often = np.zeros(60)
    for seed in range(3000):
        chosen = choose_for_review(confidence, 20, agree=agree, seed=seed)
        often[chosen.rows] += 1 / 3000
    assert often == pytest.approx(chosen.inclusion, abs=0.04)
    # The unsure ones more often, the sure ones sometimes.
    assert np.corrcoef(chosen.inclusion, confidence * (1 - confidence))[0, 1] > 0.8
    assert chosen.inclusion.min() > 0.05


def test_every_level_of_confidence_has_its_share() -> None:
    confidence, _ = _labels()
    spread = choose_for_review(confidence, 100, seed=1)
    order = np.argsort(confidence)
    mass = np.cumsum(spread.inclusion[order])
    place = np.searchsorted(np.sort(confidence), confidence[spread.rows])
    # One in each hundredth of the inclusion mass.
    assert (np.sort(np.floor(mass[place] - 1e-9)) == np.arange(100)).mean() > 0.95


def test_fewer_labels_than_asked_for_are_all_reviewed() -> None:
    confidence, right = _labels(n=30)
    chosen = choose_for_review(confidence, 100)
    assert (chosen.rows == np.arange(30)).all()
    for method in ("model", "difference"):
        found = estimate_accuracy(
            confidence, chosen.rows, right, inclusion=chosen.inclusion, method=method
        )
        assert found.value == found.low == found.high == right.mean()


@pytest.mark.parametrize("method", ["model", "difference"])
@pytest.mark.parametrize("off", [0.0, -0.3, -0.8, 0.5])
def test_intervals_hold_the_truth_as_often_as_they_say(method: str, off: float) -> None:
    held, error = [], []
    for seed in range(150):
        confidence, right = _labels(off, seed=seed)
        chosen = choose_for_review(confidence, 100, seed=seed)
        found = estimate_accuracy(
            confidence,
            chosen.rows,
            right[chosen.rows],
            inclusion=chosen.inclusion,
            method=method,
            level=0.9,
        )
        held.append(found.low <= right.mean() <= found.high)
        error.append(found.value - right.mean())
    assert np.mean(held) > 0.84
    assert np.abs(error).mean() < 0.04


def test_the_difference_is_without_bias_where_confidences_are_far_off() -> None:
    confidence, right = _labels(-2.0)
    errors = []
    for seed in range(300):
        chosen = choose_for_review(confidence, 100, seed=seed)
        found = estimate_accuracy(
            confidence,
            chosen.rows,
            right[chosen.rows],
            inclusion=chosen.inclusion,
            method="difference",
        )
        errors.append(found.value - right.mean())
    assert abs(np.mean(errors)) < 3 * np.std(errors) / np.sqrt(300)
    assert confidence.mean() - right.mean() > 0.3


def test_choosing_beats_plain_reviews_counted() -> None:
    counted, chosen_ = [], []
    for seed in range(150):
        confidence, right = _labels(seed=seed)
        plain = np.random.default_rng(seed).choice(len(right), 100, replace=False)
        rows = choose_for_review(confidence, 100, seed=seed).rows
        counted.append(right[plain].mean() - right.mean())
        chosen_.append(estimate_accuracy(confidence, rows, right[rows]).value - right.mean())
    assert np.abs(chosen_).mean() < 0.75 * np.abs(counted).mean()


def test_reviews_that_made_the_labels_are_judged_by_fits_without_them() -> None:
    rng = np.random.default_rng(0)
    honest, fooled = [], []
    for _ in range(30):
        y = rng.integers(0, 2, 1500)
        x = rng.normal(size=(1500, 40))
        x[:, 0] += 1.4 * y - 0.7

        def fit(
            rows: NDArray[np.intp], labels: NDArray[np.intp], x: NDArray[np.float64] = x
        ) -> NDArray[np.float64]:
            """Least squares on forty features: learns a hundred reviews nearly by heart."""
            w = np.linalg.solve(x[rows].T @ x[rows] + np.eye(40), x[rows].T @ (2.0 * labels - 1))
            p = 1 / (1 + np.exp(-2 * x @ w))
            return np.stack([1 - p, p], axis=1)

        rows = rng.choice(1500, 100, replace=False)
        made = fit(rows, y[rows])
        truth = (made.argmax(axis=1) == y).mean()
        for probs, errors in ((made, fooled), (held_out(fit, rows, y[rows], folds=10), honest)):
            right = probs[rows].argmax(axis=1) == y[rows]
            found = estimate_accuracy(probs.max(axis=1), rows, right)
            errors.append(found.value - truth)
    assert np.mean(fooled) > 0.1
    # Fits on nine tenths of the reviews are a little worse: the error is on the safe side.
    assert -0.03 < np.mean(honest) < 0.01


def test_without_reviews_the_estimate_names_what_it_cannot_see() -> None:
    found = estimate_without_reviews(np.array([0.8, 0.6, np.nan]))
    assert found.value == pytest.approx(0.7)
    assert found.method == BLIND
    assert found.low is None
    assert estimate_without_reviews(np.full(3, np.nan)).value is None


def test_what_makes_no_sense_is_refused() -> None:
    confidence, right = _labels(n=50)
    rows = np.arange(10)
    with pytest.raises(UsageError, match="take model or difference"):
        estimate_accuracy(confidence, rows, right[rows], method="guess")
    with pytest.raises(UsageError, match="no labelled segment is reviewed"):
        estimate_accuracy(confidence, rows[:0], right[:0])
    with pytest.raises(UsageError, match="no chance"):
        estimate_accuracy(
            confidence, rows, right[rows], inclusion=np.zeros(50), method="difference"
        )
    with pytest.raises(UsageError, match="1 or more"):
        choose_for_review(confidence, 0)
