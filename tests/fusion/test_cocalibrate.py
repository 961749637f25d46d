"""Views calibrated against one another, without a label."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fusion.evidence import made_evidence
from vsa_core.errors import UsageError
from vsa_core.evaluate import calibration_error
from vsa_core.fusion.cocalibrate import EXPECTED_SLOPE, cocalibrate


@pytest.mark.parametrize("claims", [(3.0, 2.0), (1.0, 1.0), (6.0, 1.0), (2.0, 3.0, 4.0)])
def test_finds_what_each_view_overstates(claims: tuple[float, ...]) -> None:
    evidence, y = made_evidence(4000, strengths=(1.5, 1.2, 1.2)[: len(claims)], claims=claims)
    found = cocalibrate(evidence)
    assert found.slopes[:, 0] == pytest.approx(1 / np.array(claims), rel=0.2)
    probs = found.probs(evidence)
    assert probs.max(axis=1).mean() == pytest.approx((probs.argmax(axis=1) == y).mean(), abs=0.025)


def test_estimates_accuracies_and_calibrates_better_than_what_is_claimed() -> None:
    evidence, y = made_evidence(strengths=(1.5, 0.8), claims=(3.0, 3.0))
    claimed = np.exp(evidence.sum(axis=1) - evidence.sum(axis=1).max(axis=1, keepdims=True))
    claimed /= claimed.sum(axis=1, keepdims=True)
    right = claimed.argmax(axis=1) == y
    found = cocalibrate(evidence)
    probs = found.probs(evidence)
    assert calibration_error(claimed.max(axis=1), right) > 0.1
    assert calibration_error(probs.max(axis=1), probs.argmax(axis=1) == y) < 0.04
    truth = (evidence.argmax(axis=2) == y[:, None]).mean(axis=0)
    assert found.accuracy(evidence) == pytest.approx(truth, abs=0.05)


def test_shares_of_classes_are_found() -> None:
    prior = np.array([0.1, 0.3, 0.6])
    evidence, _ = made_evidence(4000, strengths=(1.5, 1.5), prior=prior)
    found = cocalibrate(evidence)
    assert found.prior == pytest.approx(prior, abs=0.03)


def test_noise_is_given_no_weight() -> None:
    evidence, y = made_evidence(4000, strengths=(1.5, 1.5), claims=(2.0, 2.0))
    noise = 3 * np.random.default_rng(1).normal(size=(4000, 1, 3))
    found = cocalibrate(np.concatenate([evidence, noise], axis=1))
    assert found.slopes[2, 0] < 0.1 < found.slopes[:2, 0].min()
    two = cocalibrate(evidence).probs(evidence).argmax(axis=1)
    three = found.probs(np.concatenate([evidence, noise], axis=1)).argmax(axis=1)
    assert (three == y).mean() > (two == y).mean() - 0.01


def test_a_piece_of_evidence_that_is_wrong_by_itself_is_dropped() -> None:
    evidence, y = made_evidence(4000, strengths=(1.5, 1.5), claims=(2.0, 2.0))
    idle = 2 * np.random.default_rng(1).normal(size=evidence.shape)
    pieces = np.stack([evidence, idle], axis=2)
    found = cocalibrate(pieces)
    assert (found.slopes[:, 1] < 0.1).all()
    assert (found.probs(pieces).argmax(axis=1) == y).mean() > 0.7


def test_permuted_views_give_chance() -> None:
    evidence, _ = made_evidence(4000, strengths=(2.0, 2.0))
    evidence[:, 1] = np.random.default_rng(0).permutation(evidence[:, 1])
    found = cocalibrate(evidence)
    assert found.slopes.max() < EXPECTED_SLOPE / 5
    # Both tell the class at .9 if they are right; permuted, nobody can be believed.
    assert found.probs(evidence).max(axis=1).mean() < 0.55


def test_views_that_contradict_each_other_give_chance() -> None:
    evidence, _ = made_evidence(4000, strengths=(2.0, 2.0))
    evidence[:, 1] = np.roll(evidence[:, 1], 1, axis=1)
    assert cocalibrate(evidence).accuracy(evidence).max() < 0.6


def test_is_blind_to_what_is_wrong_together() -> None:
    """Stated in every estimate: here both views are right on half of what they agree on."""
    evidence, y = made_evidence(3000, strengths=(2.0, 2.0), claims=(1.0, 1.0))
    misled = np.random.default_rng(0).random(3000) < 0.4
    evidence[misled] = np.roll(evidence[misled], 1, axis=2)
    probs = cocalibrate(evidence).probs(evidence)
    assert probs.max(axis=1).mean() > (probs.argmax(axis=1) == y).mean() + 0.2


@pytest.mark.parametrize("classes", [2, 20])
@pytest.mark.parametrize("views", [2, 8])
def test_any_number_of_views_and_classes(classes: int, views: int) -> None:
    evidence, y = made_evidence(
        1500, classes, strengths=(2.0,) * views, claims=(2.0,) * views, seed=3
    )
    probs = cocalibrate(evidence).probs(evidence)
    assert probs.sum(axis=1) == pytest.approx(1)
    right = (probs.argmax(axis=1) == y).mean()
    assert probs.max(axis=1).mean() == pytest.approx(right, abs=0.06)


def test_thirty_segments_stay_near_what_is_expected() -> None:
    evidence, _ = made_evidence(30, 20, strengths=(1.0, 1.0))
    slopes = cocalibrate(evidence).slopes
    assert ((slopes > EXPECTED_SLOPE / 5) & (slopes < EXPECTED_SLOPE * 5)).all()


def test_absent_and_single_views() -> None:
    evidence, y = made_evidence(4000, strengths=(1.5, 1.5))
    evidence[:2000, 1] = np.nan
    evidence[2000:2100] = np.nan
    found = cocalibrate(evidence)
    probs = found.probs(evidence)
    assert found.shared == 1900
    assert np.isnan(probs[2000:2100]).all()
    assert probs[:2000] == pytest.approx(found.views(evidence)[:2000, 0])
    right = (probs.argmax(axis=1) == y)[:2000].mean()
    assert probs[:2000].max(axis=1).mean() == pytest.approx(right, abs=0.04)


def test_one_view_keeps_what_was_expected_of_it() -> None:
    evidence, _ = made_evidence(500, strengths=(1.5,), claims=(2.0,))
    found = cocalibrate(evidence)
    assert found.shared == 0
    assert found.slopes == pytest.approx(EXPECTED_SLOPE)
    assert np.isfinite(found.probs(evidence)).all()


def test_a_constant_view_changes_nothing() -> None:
    evidence, _ = made_evidence(2000, strengths=(1.5, 1.5))
    constant = np.broadcast_to([5.0, 0, 0], (2000, 1, 3))
    found = cocalibrate(np.concatenate([evidence, constant], axis=1))
    assert found.views(np.concatenate([evidence, constant], axis=1))[:, 2] == pytest.approx(
        np.broadcast_to(found.prior, (2000, 3)), abs=1e-3
    )
    alone = cocalibrate(evidence)
    assert found.slopes[:2] == pytest.approx(alone.slopes, rel=0.05)


def test_nothing_at_all() -> None:
    empty = np.full((5, 2, 3), np.nan)
    found = cocalibrate(empty)
    assert np.isnan(found.probs(empty)).all()
    assert np.isnan(found.accuracy(empty)).all()
    assert cocalibrate(np.zeros((0, 2, 3))).shared == 0


def test_same_seed_same_slopes_on_a_sample() -> None:
    evidence, _ = made_evidence(12_000, strengths=(1.0, 1.0))
    first, again = cocalibrate(evidence, seed=4), cocalibrate(evidence, seed=4)
    assert (first.slopes == again.slopes).all()
    assert first.slopes == pytest.approx(cocalibrate(evidence, seed=5).slopes, rel=0.15)


def test_wrong_shape_is_refused() -> None:
    with pytest.raises(UsageError, match="shape"):
        cocalibrate(np.zeros((5, 3)))
