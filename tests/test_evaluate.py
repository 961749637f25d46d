"""Scores against scikit-learn's, and what abstaining does to them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from vsa_core.evaluate import (
    Bin,
    Part,
    calibration_error,
    confusion_by_video,
    f1_of,
    interval_by_video,
    reliability,
    split_scores,
)


def test_calibration_error_by_hand() -> None:
    # Two bins of .5: two at .4 of which one is right, two at .9 of which both are.
    confidence = np.array([0.4, 0.4, 0.9, 0.9])
    right = np.array([True, False, True, True])
    expected = 0.5 * abs(0.4 - 0.5) + 0.5 * abs(0.9 - 1.0)
    assert calibration_error(confidence, right, bins=2) == pytest.approx(expected)
    assert calibration_error(np.array([1.0, 1.0]), np.array([True, True])) == 0
    assert calibration_error(np.array([0.0]), np.array([False])) == 0


def test_bins_by_hand() -> None:
    confidence = np.array([0.0, 0.4, 0.5, 0.9])
    low, high = reliability(confidence, np.array([False, True, True, False]), bins=2)
    assert (low.low, low.high, low.rows) == (0, 0.5, 3)
    assert (low.confidence, low.accuracy) == (pytest.approx(0.3), pytest.approx(2 / 3))
    assert high == Bin(0.5, 1.0, 1, 0.9, 0.0)
    [*_, empty] = reliability(np.zeros(0), np.zeros(0, bool))
    assert (empty.rows, empty.confidence, empty.accuracy) == (0, None, None)


def test_calibrated_confidence_has_little_error_and_overconfidence_shows() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(1 / 3, 1, 20_000)
    right = rng.random(20_000) < confidence
    assert calibration_error(confidence, right) < 0.02
    assert calibration_error(np.minimum(confidence + 0.2, 1), right) > 0.1


def test_split_scores_are_those_of_scikit_learn_on_each_part() -> None:
    rng = np.random.default_rng(3)
    truth, agreeing = rng.integers(-1, 4, 500), rng.random(500) < 0.4
    said = np.where(rng.random(500) < 0.6, truth, rng.integers(0, 4, 500))
    said[rng.random(500) < 0.2] = -1
    split = split_scores(truth, said, agreeing)
    for part, mask in (
        (split.all, np.ones(500, bool)),
        (split.agreeing, agreeing),
        (split.disagreeing, ~agreeing),
    ):
        known = mask & (truth >= 0)
        made = known & (said >= 0)
        assert part.rows == known.sum()
        assert part.coverage == pytest.approx(made.sum() / known.sum())
        assert part.accuracy == pytest.approx(accuracy_score(truth[made], said[made]))
        assert part.macro_f1 == pytest.approx(f1_score(truth[made], said[made], average="macro"))


def test_split_scores_by_hand() -> None:
    truth, said = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, -1, -1])
    split = split_scores(truth, said, np.array([True, True, False, False, False]))
    # Class 0: precision 1, recall 1/2; class 1 the other way round; class 2 is never decided.
    assert split.all == Part(5, 0.6, pytest.approx(2 / 3), pytest.approx((2 / 3 + 2 / 3 + 0) / 3))
    assert split.agreeing == Part(2, 1.0, 0.5, pytest.approx(2 / 3))
    assert split.disagreeing == Part(3, pytest.approx(1 / 3), 1.0, 0.5)
    none = np.zeros(5, bool)
    assert split_scores(truth, said, none).agreeing == Part(0, 0.0, None, None)
    assert split_scores(truth, said, none, none).disagreeing == Part(0, 0.0, None, None)
    assert split_scores(truth, said, none).disagreeing == split.all


class TestByVideo:
    def test_counts_and_f1_worked_out_by_hand(self) -> None:
        truth, said = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, -1, 1])
        counts = confusion_by_video(truth, said, np.array([0, 0, 0, 1, 1]), 3)
        assert counts.shape == (2, 3, 4)
        assert counts[0].tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
        assert counts[1].tolist() == [[0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]
        # 2/3 of class 0, 4/6 of class 1: undecided is not right; class 2 does not occur.
        assert f1_of(counts.sum(axis=0)) == pytest.approx(2 / 3)
        assert f1_of(counts[1], weighted=True) == pytest.approx(2 / 3)
        assert np.isnan(f1_of(np.zeros((3, 3))))

    def test_videos_that_err_together_widen_the_interval(self) -> None:
        rng = np.random.default_rng(0)

        def mean(total: np.ndarray) -> float:
            return float(total[0] / total[1])

        apart = np.column_stack([rng.binomial(10, 0.5, 40), np.full(40, 10)])
        together = np.column_stack([10 * rng.binomial(1, 0.5, 40), np.full(40, 10)])
        widths = []
        for sums in (apart, together):
            found = interval_by_video(sums, mean)
            assert found is not None
            assert found[0] < mean(sums.sum(axis=0)) < found[1]
            widths.append(found[1] - found[0])
        assert widths[1] > 2 * widths[0]
        assert interval_by_video(apart, mean) == interval_by_video(apart, mean)

    def test_it_holds_the_truth_as_often_as_it_says_also_of_few_videos(self) -> None:
        rng = np.random.default_rng(1)
        held = 0
        for _ in range(200):
            sums = np.column_stack([rng.normal(0.0, 1.0, 5), np.ones(5)])
            found = interval_by_video(sums, lambda s: float(s[0] / s[1]), draws=200)
            assert found is not None
            held += found[0] <= 0 <= found[1]
        assert 0.83 < held / 200 < 0.97

    def test_one_video_or_no_figure_has_none(self) -> None:
        assert interval_by_video(np.ones((1, 2)), lambda s: float(s[0])) is None
        assert interval_by_video(np.ones((3, 2)), lambda s: float("nan")) is None
