"""Figures of one target against scikit-learn's, and what abstaining does to each of them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from tests.assess.meld import Meld, made
from vsa_core.assess import assess_arrays
from vsa_core.errors import UsageError
from vsa_core.evaluate import calibration_error
from vsa_core.truths import CLASSES

ABC = ("a", "b", "c")


@pytest.mark.parametrize("target", CLASSES)
def test_figures_are_those_of_scikit_learn_on_the_decided_rows(meld: Meld, target: str) -> None:
    system, truth = made(meld, skill=1.5, seed=1), meld.truth[target]
    said, sure = system.said[target], system.sure[target]
    k = len(CLASSES[target])
    about = assess_arrays(truth, said, meld.dialogues, CLASSES[target], confidence=sure)
    kept = said >= 0
    assert 0 < (~kept).sum() < len(truth)
    assert (about.n, about.videos) == (2610, 280)
    assert about.coverage.value == pytest.approx(kept.mean())
    assert about.accuracy.value == pytest.approx(accuracy_score(truth[kept], said[kept]))
    for average, figures in (
        ("macro", (about.macro_precision, about.macro_recall, about.macro_f1.value)),
        ("weighted", (about.weighted_precision, about.weighted_recall, about.weighted_f1.value)),
    ):
        expected = precision_recall_fscore_support(truth[kept], said[kept], average=average)
        assert figures == pytest.approx(expected[:3])
    each = precision_recall_fscore_support(truth[kept], said[kept], labels=range(k))
    for c, found in enumerate(about.by_class):
        assert (found.precision, found.recall, found.f1) == pytest.approx([e[c] for e in each[:3]])
        assert found.decided == each[3][c]
        assert found.support == (truth == c).sum()
    confusion = np.array(about.confusion)
    assert (confusion[:, :k] == confusion_matrix(truth[kept], said[kept], labels=range(k))).all()
    assert (confusion[:, k] == np.bincount(truth[~kept], minlength=k)).all()
    assert about.ece == pytest.approx(calibration_error(sure[kept], (truth == said)[kept]))
    for figure in (about.coverage, about.accuracy, about.macro_f1, about.weighted_f1):
        assert figure.low is not None
        assert figure.high is not None
        assert 0 <= figure.low < figure.value < figure.high <= 1


def test_bins_add_up_to_the_calibration_error(meld: Meld) -> None:
    system, truth = made(meld, skill=1.0, seed=2), meld.truth["emotion"]
    said, sure = system.said["emotion"], system.sure["emotion"]
    about = assess_arrays(
        truth, said, meld.dialogues, CLASSES["emotion"], confidence=sure, intervals=False
    )
    told = [b for b in about.bins if b.rows]
    assert sum(b.rows for b in told) == (said >= 0).sum()
    gaps = sum(b.rows * abs(b.confidence - b.accuracy) for b in told)
    assert gaps / (said >= 0).sum() == pytest.approx(about.ece)
    for b in told:
        inside = (said >= 0) & (sure > b.low) & (sure <= b.high)
        assert b.rows == inside.sum()
        assert b.confidence == pytest.approx(sure[inside].mean())
        assert b.accuracy == pytest.approx((said == truth)[inside].mean())


def test_accuracy_of_the_most_confident_and_the_area_by_hand() -> None:
    truth = np.zeros(10, int)
    said = np.array([0, 0, 1, 0, 0, 1, 0, 1, -1, -1])
    sure = np.array([0.9, 0.8, 0.7, 0.6, 0.6, 0.5, 0.4, 0.3, 0.99, np.nan])
    about = assess_arrays(truth, said, ["v"] * 10, ABC, confidence=sure)
    # An abstention's confidence counts for nothing.
    risks = [0, 0, 1 / 3, None, 1 / 5, 2 / 6, 2 / 7, 3 / 8]
    assert about.curve is not None
    assert about.curve.coverage.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8])
    assert about.curve.risk.tolist() == pytest.approx([r for r in risks if r is not None])
    area = sum(w * r for w, r in zip([1, 1, 1, 2, 1, 1, 1], about.curve.risk, strict=True)) / 8
    assert about.aurc == pytest.approx(area)
    kept = {k.asked: (k.coverage, k.threshold, k.accuracy) for k in about.kept}
    assert list(kept) == [1.0, 0.9, 0.8, 0.7, 0.5]
    assert kept[1.0] == kept[0.9] == (None, None, None)
    assert kept[0.8] == pytest.approx((0.8, 0.3, 5 / 8))
    assert kept[0.7] == pytest.approx((0.7, 0.4, 5 / 7))
    assert kept[0.5] == pytest.approx((0.5, 0.6, 4 / 5))
    assert about.worst == (2, 5, 7)


def test_probabilities_decide_and_a_tie_or_nothing_abstains() -> None:
    probs = np.array([[0.7, 0.2, 0.1], [0.4, 0.4, 0.2], [np.nan] * 3, [0.1, 0.3, 0.6]])
    about = assess_arrays(np.array([0, 0, 1, 1]), probs, [1, 1, 2, 2], ABC)
    assert about.confusion == ((1, 0, 0, 1), (0, 0, 1, 1), (0, 0, 0, 0))
    assert (about.coverage.value, about.accuracy.value, about.unsure) == (0.5, 0.5, 0)
    assert about.ece == pytest.approx((0.3 + 0.6) / 2)


def test_a_class_it_never_decides_on_counts_zero_and_unknown_truth_nowhere() -> None:
    truth, said = np.array([0, 0, 1, 2, -1]), np.array([0, 0, 1, -1, 2])
    about = assess_arrays(truth, said, ["u", "v", "v", "v", "w"], ABC)
    assert (about.n, about.videos, about.accuracy.value) == (4, 2, 1.0)
    assert about.macro_f1.value == pytest.approx(2 / 3)
    assert about.weighted_f1.value == 1.0
    assert (about.by_class[2].support, about.by_class[2].decided) == (1, 0)
    assert (about.by_class[2].precision, about.by_class[2].recall) == (None, None)


def test_nothing_decided_is_no_coverage_and_no_figure() -> None:
    about = assess_arrays(np.array([0, 1]), np.array([-1, -1]), ["v", "w"], ABC)
    assert about.coverage.value == 0
    assert about.accuracy.value is about.macro_f1.value is about.macro_precision is None
    assert (about.ece, about.aurc, about.bins, about.kept, about.worst) == (None, None, (), (), ())
    assert [part.accuracy for part in about.by_video] == [None, None]


def test_videos_worst_first_and_intervals_only_where_there_are_two() -> None:
    truth = np.zeros(7, int)
    said = np.array([0, 0, 1, 0, 1, 1, -1])
    videos = ["good", "good", "half", "half", "bad", "bad", "silent"]
    about = assess_arrays(truth, said, videos, ABC)
    assert [(p.name, p.n, p.coverage, p.accuracy) for p in about.by_video] == [
        ("bad", 2, 1, 0),
        ("half", 2, 1, 0.5),
        ("good", 2, 1, 1),
        ("silent", 1, 0, None),
    ]
    assert about.accuracy.low is not None
    for alone in (
        assess_arrays(truth, said, ["v"] * 7, ABC),
        assess_arrays(truth, said, videos, ABC, intervals=False),
    ):
        assert alone.accuracy.value == 0.5
        assert (alone.accuracy.low, alone.accuracy.high) == (None, None)


def test_quarters_of_the_lengths() -> None:
    lengths = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, np.nan])
    said = np.array([0, 0, 0, 1, 1, 1, -1, 0, 0])
    about = assess_arrays(np.zeros(9, int), said, ["v"] * 9, ABC, lengths=lengths)
    assert [(p.name, p.n, p.coverage, p.accuracy) for p in about.by_length] == [
        ("1 to 2 s", 2, 1, 1),
        ("3 to 4 s", 2, 1, 0.5),
        ("5 to 6 s", 2, 1, 0),
        ("7 to 8 s", 2, 0.5, 1),
        ("length not known", 1, 1, 1),
    ]
    alike = np.full(9, 3.0)
    [one] = assess_arrays(np.zeros(9, int), said, ["v"] * 9, ABC, lengths=alike).by_length
    assert one.n == 9


@pytest.mark.parametrize(
    ("truth", "said", "groups", "complaint"),
    [
        ([0, 1], [0], ["v", "w"], "1 decisions for 2 rows"),
        ([0, 1], [0, 1], ["v"], "1 groups for 2 rows"),
        ([0, 3], [0, 1], ["v", "w"], "a class above 2"),
        ([0, 1], [0, 4], ["v", "w"], "a class above 2"),
        ([-1, -1], [0, 1], ["v", "w"], "no row has a truth"),
        ([], [], [], "no row has a truth"),
        ([0, 1], [[0.5, 0.5], [1, 0]], ["v", "w"], r"shape \(2, 2\) for 3 classes"),
    ],
)
def test_what_does_not_fit_is_refused(
    truth: list[int], said: list[object], groups: list[str], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        assess_arrays(np.array(truth, int), np.array(said), groups, ABC)
