"""Who decides on a segment: every state of the votes against what fusion says."""

from __future__ import annotations

import numpy as np
import pytest

from vsa_core.fusion.decide import Decided, decide

NAN = np.nan
A, B, C = [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]
SHY = [0.4, 0.3, 0.3]
GONE = [NAN, NAN, NAN]


def _one(votes: list[list[float]], opinion: list[float], least: float = 0.0) -> Decided:
    return decide(np.array([votes]), np.array([opinion]), 0.5, least)


@pytest.mark.parametrize(
    ("votes", "opinion", "label", "agreement", "origin"),
    [
        ([A, A], A, 0, "agree", "consensus"),
        ([A, A], B, 1, "agree", "fusion"),  # a consensus overridden
        ([A, B], A, 0, "disagree", "fusion"),
        ([A, B], C, 2, "disagree", "fusion"),
        ([A, GONE], A, 0, "single", "single"),
        ([A, GONE], B, 1, "single", "fusion"),
        ([SHY, GONE], A, 0, "uncertain", "fusion"),
        ([SHY, A], A, 0, "uncertain", "fusion"),
        ([SHY, SHY], A, 0, "uncertain", "fusion"),
        ([GONE, GONE], A, -1, "absent", "none"),  # nobody voted: no label, whatever fusion says
        ([GONE, GONE], GONE, -1, "absent", "none"),
        ([A, A], GONE, -1, "agree", "none"),
        ([A, B], [0.5, 0.5, 0.0], -1, "disagree", "none"),  # a tie is no label
    ],
)
def test_who_decides(
    votes: list[list[float]], opinion: list[float], label: int, agreement: str, origin: str
) -> None:
    found = _one(votes, opinion)
    assert found.label[0] == label
    assert found.agreement[0] == agreement
    assert found.origin[0] == origin
    if label < 0:
        assert np.isnan(found.confidence[0])
        assert np.isnan(found.probs[0]).all()
    else:
        assert found.confidence[0] == max(opinion)
        assert found.probs[0].tolist() == opinion


def test_a_label_less_probable_than_asked_is_not_given() -> None:
    assert _one([A, A], [0.6, 0.2, 0.2], 0.6).label[0] == 0
    unsure = _one([A, A], [0.6, 0.2, 0.2], 0.61)
    assert unsure.label[0] == -1
    assert unsure.origin[0] == "none"
    assert unsure.agreement[0] == "agree"
    assert np.isnan(unsure.confidence[0])


def test_votes_are_the_classes_or_none() -> None:
    found = decide(np.array([[A, B, SHY, GONE, [0.5, 0.5, 0]]]), np.array([A]), 0.5)
    assert found.votes.tolist() == [[0, 1, -1, -1, -1]]


def test_three_views_agree_although_one_abstains() -> None:
    found = _one([A, A, SHY], A)
    assert (found.agreement[0], found.origin[0]) == ("agree", "consensus")


def test_no_segments() -> None:
    found = decide(np.zeros((0, 2, 3)), np.zeros((0, 3)), 0.5)
    assert found.label.shape == (0,)
    assert found.votes.shape == (0, 2)
