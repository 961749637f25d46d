"""Confidences tempered to an estimate, and corrected by reviews."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vsa_core.errors import UsageError
from vsa_core.evaluate import calibration_error
from vsa_core.fusion.calibrate import recalibrate, temper, temperature_for, with_confidence


def _probs(n: int = 2000, k: int = 3, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).dirichlet(np.full(k, 0.2), n)


def _said(
    n: int, worth: float, offset: float, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Confidences, and outcomes whose logit is the confidences' times `worth` plus `offset`."""
    rng = np.random.default_rng(seed)
    confidence = 1 / (1 + np.exp(-rng.normal(1.5, 1.0, n)))
    logit = np.log(confidence / (1 - confidence))
    return confidence, rng.random(n) < 1 / (1 + np.exp(-(worth * logit + offset)))


@pytest.mark.parametrize("accuracy", [0.5, 0.7, 0.97])
def test_mean_confidence_is_brought_to_the_estimate(accuracy: float) -> None:
    probs = _probs()
    probs[3] = np.nan
    out = temper(probs, temperature_for(probs, accuracy))
    assert np.nanmean(out.max(axis=1)) == pytest.approx(accuracy, abs=1e-3)
    assert np.isnan(out[3]).all()
    kept = np.arange(len(probs)) != 3
    assert (out[kept].argmax(axis=1) == probs[kept].argmax(axis=1)).all()


def test_estimates_out_of_reach_give_finite_probabilities() -> None:
    probs = _probs(k=20)
    low = temper(probs, temperature_for(probs, 0.0))
    assert low.max(axis=1).mean() < 0.1
    high = temper(probs, temperature_for(probs, 1.0))
    assert high.max(axis=1).mean() > 0.98
    assert temperature_for(np.full((3, 2), np.nan), 0.5) == 1.0


def test_a_confidence_asked_for_is_given_and_the_label_stays() -> None:
    probs = _probs()
    wanted = np.random.default_rng(1).uniform(0.1, 1, len(probs))
    out = with_confidence(probs, wanted)
    assert out.sum(axis=1) == pytest.approx(1)
    assert (out.argmax(axis=1) == probs.argmax(axis=1)).all()
    assert out.max(axis=1) == pytest.approx(np.clip(wanted, 1 / 3 + 1e-3, 1))
    assert np.isnan(with_confidence(np.full((1, 3), np.nan), np.array([0.5]))).all()


def test_without_reviews_nothing_changes() -> None:
    confidence, _ = _said(200, 1, 0)
    same = recalibrate(confidence, np.zeros(0, int), np.zeros(0, bool))
    assert same.confidence(confidence) == pytest.approx(np.clip(confidence, 0.02, 0.98))
    assert same.reviewed == 0


def test_a_hundred_reviews_halve_the_error_of_confidences_that_are_off() -> None:
    errors = []
    for seed in range(10):
        confidence, right = _said(3000, 0.8, -1.2, seed)
        rows = np.random.default_rng(seed).choice(3000, 100, replace=False)
        fixed = recalibrate(confidence, rows, right[rows]).confidence(confidence)
        rest = np.ones(3000, bool)
        rest[rows] = False
        errors.append(
            (
                calibration_error(confidence[rest], right[rest]),
                calibration_error(fixed[rest], right[rest]),
            )
        )
    before, after = np.mean(errors, axis=0)
    assert before > 0.2
    assert after < before / 2


def test_a_hundred_reviews_spoil_good_confidences_little() -> None:
    errors = []
    for seed in range(10):
        confidence, right = _said(3000, 1, 0, seed)
        rows = np.random.default_rng(seed).choice(3000, 100, replace=False)
        fixed = recalibrate(confidence, rows, right[rows]).confidence(confidence)
        errors.append(calibration_error(fixed, right))
    assert np.mean(errors) < 0.035


def test_agreement_is_told_apart_where_it_misleads() -> None:
    confidence, right = _said(4000, 1, 0)
    agree = np.random.default_rng(5).random(4000) < 0.5
    right &= ~agree | (np.random.default_rng(6).random(4000) < 0.6)
    rows = np.arange(1000)
    fixed = recalibrate(confidence, rows, right[rows], agree)
    out = fixed.confidence(confidence, agree)
    for group in (agree, ~agree):
        assert out[group].mean() == pytest.approx(right[group].mean(), abs=0.05)
    with pytest.raises(UsageError, match="agreement"):
        fixed.confidence(confidence)


def test_segments_without_a_label_stay_without() -> None:
    confidence, right = _said(50, 1, 0)
    confidence[:5] = np.nan
    rows = np.arange(20)
    fixed = recalibrate(confidence, rows, right[rows])
    assert fixed.reviewed == 15
    assert np.isnan(fixed.confidence(confidence)[:5]).all()
    assert np.isfinite(fixed.confidence(confidence)[5:]).all()


def test_all_right_and_all_wrong_stay_short_of_certain() -> None:
    confidence = np.full(500, 0.7)
    rows = np.arange(30)
    for outcome in (True, False):
        value = recalibrate(confidence, rows, np.full(30, outcome)).confidence(confidence)[0]
        assert 0.01 < value < 0.99
        assert (value > 0.7) == outcome


@pytest.mark.parametrize(
    ("rows", "right", "why"),
    [([0, 0], [True, True], "twice"), ([0], [True, False], "one for each"), ([9], [True], "none")],
)
def test_reviews_that_do_not_fit_are_refused(rows: list[int], right: list[bool], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        recalibrate(np.full(5, 0.7), np.array(rows), np.array(right))
