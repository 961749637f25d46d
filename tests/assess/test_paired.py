"""McNemar's test and paired differences against scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, chi2
from sklearn.metrics import f1_score

from tests.assess.meld import Meld, made
from vsa_core.assess.paired import compare, mcnemar


def right(both: int, first: int, second: int) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(True, True)] * both + [(True, False)] * first + [(False, True)] * second
    return tuple(np.array(pairs + [(False, False)] * 3).T)


def test_few_discordant_rows_are_tested_exactly() -> None:
    for first, second in ((3, 9), (9, 3), (0, 1), (12, 12), (1, 23)):
        found = mcnemar(*right(50, first, second))
        assert (found.only_first, found.only_second) == (first, second)
        assert (found.method, found.statistic) == ("exact", None)
        assert found.p == pytest.approx(binomtest(first, first + second, 0.5).pvalue)
    # By hand: 2 · (1 + 4) / 2⁴.
    assert mcnemar(*right(0, 1, 3)).p == pytest.approx(0.625)


def test_many_are_tested_by_corrected_chi_squared() -> None:
    found = mcnemar(*right(5, 30, 50))
    assert found.method == "chi2"
    assert found.statistic == pytest.approx(19**2 / 80)
    assert found.p == pytest.approx(chi2.sf(19**2 / 80, 1))
    assert mcnemar(*right(5, 13, 12)).statistic == 0
    assert mcnemar(*right(5, 13, 13)).p == 1


def test_no_discordant_row_is_no_difference() -> None:
    assert mcnemar(*right(5, 0, 0)).p == 1


class TestOnMeld:
    def test_on_all_rows_silence_is_not_right(self, meld: Meld) -> None:
        truth = meld.truth["emotion"]
        video = np.unique(meld.dialogues, return_inverse=True)[1]
        a, b = (made(meld, skill=s, seed=i).said["emotion"] for i, s in enumerate((2.0, 1.5)))
        found = compare(truth, a, b, video, 7)
        assert found.all.n == 2610
        assert found.all.accuracy == pytest.approx(((a == truth).mean(), (b == truth).mean()))
        expected = [f1_score(truth, s, average="weighted", labels=range(7)) for s in (a, b)]
        assert found.all.weighted_f1 == pytest.approx(expected)
        difference = found.all.accuracy_difference
        assert difference.value == pytest.approx((a == truth).mean() - (b == truth).mean())
        assert 0 < difference.low < difference.value < difference.high
        assert found.all.weighted_f1_difference.value == pytest.approx(expected[0] - expected[1])
        assert found.all.mcnemar.only_first == ((a == truth) & (b != truth)).sum()
        both = (a >= 0) & (b >= 0)
        assert found.both_decided is not None
        assert found.both_decided.n == both.sum() < 2610
        assert found.both_decided.accuracy[1] == pytest.approx((b == truth)[both].mean())

    def test_a_system_is_no_better_than_itself(self, meld: Meld) -> None:
        said = made(meld, skill=1.0, seed=3, floor=0.0).said["sentiment"]
        video = np.unique(meld.dialogues, return_inverse=True)[1]
        found = compare(meld.truth["sentiment"], said, said, video, 3)
        assert found.both_decided == found.all
        for difference in (found.all.accuracy_difference, found.all.weighted_f1_difference):
            assert (difference.value, difference.low, difference.high) == (0, 0, 0)
        assert found.all.mcnemar.p == 1

    def test_a_paired_interval_is_narrower_than_that_of_strangers(self, meld: Meld) -> None:
        """Two systems that share most decisions differ less by chance than two that share none."""
        truth = meld.truth["sentiment"]
        video = np.unique(meld.dialogues, return_inverse=True)[1]
        a = made(meld, skill=1.0, seed=4, floor=0.0).said["sentiment"]
        other = made(meld, skill=1.0, seed=5, floor=0.0).said["sentiment"]
        near = np.where(np.arange(len(a)) % 10 == 0, other, a)
        widths = [
            found.high - found.low
            for b in (near, other)
            for found in [compare(truth, a, b, video, 3).all.accuracy_difference]
        ]
        assert widths[0] < 0.6 * widths[1]


def test_systems_that_never_both_decide() -> None:
    found = compare(
        np.array([0, 1]), np.array([0, -1]), np.array([-1, 1]), np.array([0, 1]), classes=2
    )
    assert found.both_decided is None
    assert found.all.accuracy == (0.5, 0.5)
