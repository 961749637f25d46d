"""Experts are taught by the other views, and heard on videos they never saw."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fusion.segments import Segments, segments
from vsa_core.fusion.crossview import vote_evidence
from vsa_core.fusion.information import softmax
from vsa_core.fusion.strategies import assign_folds
from vsa_core.fusion.teaching import Teacher, all_sums, believed_of_others

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")
EVEN = np.log(np.full(3, 1 / 3))


def _teacher(made: Segments, known: tuple[np.ndarray, np.ndarray] | None = None) -> Teacher:
    views = made.views
    folds = assign_folds(views, 5, 0)[views.video]
    return Teacher(views, folds, all_sums(views, folds, int(folds.max()) + 1), 3, known)


def test_a_view_is_taught_by_the_others_and_a_share_of_its_own() -> None:
    evidence = np.zeros((3, 1, 3))
    evidence[0, 0], evidence[1, 0], evidence[2, 0] = [1, 0, 0], [0, 2, 0], [0, 0, 3]
    assert np.allclose(believed_of_others(evidence, EVEN, 0, 0.0), softmax(np.array([[0.0, 2, 3]])))
    assert np.allclose(believed_of_others(evidence, EVEN, 0, 0.5), softmax(np.array([[0.5, 2, 3]])))
    assert np.allclose(believed_of_others(evidence, EVEN, 2, 1.0), softmax(np.array([[1.0, 2, 3]])))


def test_who_can_have_an_expert() -> None:
    made = segments(n=200, views=3)
    made.embeddings[1] = None
    views = made.views
    folds = assign_folds(views, 5, 0)[views.video]
    assert [s is not None for s in all_sums(views, folds, 5)] == [True, False, True]
    assert not any(all_sums(views, np.zeros(200, np.intp), 1))
    alone = segments(n=200, views=1).views
    assert not any(all_sums(alone, folds, 5))


def test_experts_learn_from_votes_that_are_often_wrong() -> None:
    made = segments(n=1500, accuracy=0.4)
    evidence = vote_evidence(made.probs)
    _, heard = _teacher(made).teach(evidence, EVEN, 0.5)
    for v in range(2):
        said = (made.probs[:, v].argmax(axis=1) == made.truth).mean()
        assert (heard[v].argmax(axis=1) == made.truth).mean() > said + 0.15


def test_a_view_alone_is_not_taught_from() -> None:
    made = segments(n=400)
    made.probs[:200, 1] = np.nan
    assert made.embeddings[1] is not None
    made.embeddings[1][:200] = np.nan
    views = made.views
    folds = assign_folds(views, 5, 0)[views.video]
    first = all_sums(views, folds, 5)[0]
    assert first is not None
    assert first.trained.tolist() == list(range(200, 400))
    teacher = Teacher(views, folds, all_sums(views, folds, 5), 3, None)
    _, heard = teacher.teach(vote_evidence(views.probs["label"]), EVEN, 0.5)
    assert (heard[1, :200] == 0).all()
    assert (heard[0, :200] != 0).any()


def test_what_is_known_is_taught() -> None:
    made = segments(n=900, accuracy=0.0, noise=0.5)
    evidence = vote_evidence(made.probs)
    rows = np.arange(0, 900, 2)
    _, without = _teacher(made).teach(evidence, EVEN, 0.5)
    _, heard = _teacher(made, (rows, made.truth[rows])).teach(evidence, EVEN, 0.5)
    right = (heard[0].argmax(axis=1) == made.truth)[1::2].mean()
    assert right > 0.9
    assert right > (without[0].argmax(axis=1) == made.truth)[1::2].mean() + 0.3


def test_an_expert_of_noise_is_hardly_heard() -> None:
    made = segments(n=2000, accuracy=0.8)
    made.embeddings[1] = np.random.default_rng(0).normal(size=(2000, 8))
    teacher, evidence = _teacher(made), vote_evidence(made.probs)
    _, heard = teacher.teach(evidence, EVEN, 0.5)
    slopes = teacher.slopes(evidence, EVEN, heard, 0.5)
    assert slopes[0] > 0.5
    assert slopes[1] < slopes[0]
    loud = slopes * np.ptp(heard, axis=2).mean(axis=1)
    assert loud[1] < 0.1 * loud[0]
