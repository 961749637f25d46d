"""Votes and agreement states, exactly as docs/tables.md defines them."""

from __future__ import annotations

import numpy as np
import pytest

from vsa_core.agree import agreement, cast_ballots

NEG, NEU, POS = [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]
UNSURE = [0.3, 0.4, 0.3]
TORN = [0.5, 0.0, 0.5]
MISSING = [np.nan] * 3


def one(*views: list[float], floor: float = 0.5) -> tuple[str, int | None, list[int | None]]:
    """State, agreed class and votes of one segment."""
    votes = agreement(np.array([views], np.float32), floor)

    def index(row: np.ndarray) -> int | None:
        assert row.sum() <= 1
        return int(row.argmax()) if row.any() else None

    return str(votes.states[0]), index(votes.agreed[0]), [index(b) for b in votes.ballots[0]]


@pytest.mark.parametrize(
    ("views", "state", "agreed", "ballots"),
    [
        ([MISSING, MISSING], "absent", None, [None, None]),
        ([POS, MISSING], "single", None, [2, None]),
        ([MISSING, NEG], "single", None, [None, 0]),
        ([UNSURE, MISSING], "uncertain", None, [None, None]),
        ([TORN, MISSING], "uncertain", None, [None, None]),
        ([POS, POS], "agree", 2, [2, 2]),
        ([NEG, NEG], "agree", 0, [0, 0]),
        ([POS, NEG], "disagree", None, [2, 0]),
        ([POS, UNSURE], "uncertain", None, [2, None]),
        ([UNSURE, UNSURE], "uncertain", None, [None, None]),
        ([POS, TORN], "uncertain", None, [2, None]),
        ([NEG, TORN], "uncertain", None, [0, None]),
        ([POS, POS, MISSING], "agree", 2, [2, 2, None]),
        ([POS, POS, UNSURE], "agree", 2, [2, 2, None]),
        ([POS, POS, NEG], "disagree", None, [2, 2, 0]),
        ([POS, MISSING, MISSING], "single", None, [2, None, None]),
        ([POS, UNSURE, MISSING], "uncertain", None, [2, None, None]),
        ([NEU, NEU, NEU], "agree", 1, [1, 1, 1]),
    ],
)
def test_states(
    views: list[list[float]], state: str, agreed: int | None, ballots: list[int | None]
) -> None:
    assert one(*views) == (state, agreed, ballots)


def test_a_vote_exactly_on_the_floor_counts() -> None:
    assert one([0.5, 0.25, 0.25], POS)[0] == "disagree"
    assert one([0.5, 0.25, 0.25], POS, floor=0.51)[0] == "uncertain"


def test_a_tie_abstains_though_float32_breaks_it() -> None:
    nearly = np.array([[[0.50000003, 0.0, 0.5]]], np.float32)
    assert not cast_ballots(nearly, 0.0).any()


def test_no_view_agrees_alone_however_many_are_missing() -> None:
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(3) * 0.3, size=(2000, 5)).astype(np.float32)
    probs[rng.random((2000, 5)) < 0.8] = np.nan
    votes = agreement(probs, 0.5)
    voters = (~np.isnan(probs[..., 0])).sum(axis=1)
    assert (votes.states[voters == 0] == "absent").all()
    assert set(votes.states[voters == 1]) == {"single", "uncertain"}
    agreeing = votes.states == "agree"
    assert agreeing.any()
    assert (votes.ballots[agreeing].any(axis=2).sum(axis=1) >= 2).all()
    assert (votes.agreed.sum(axis=1) == agreeing).all()
    assert not votes.ballots[np.isnan(probs[..., 0])].any()


def test_the_order_of_views_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    probs = rng.dirichlet(np.ones(4), size=(500, 3))
    probs[rng.random((500, 3)) < 0.3] = np.nan
    votes, turned = agreement(probs, 0.4), agreement(probs[:, [2, 0, 1]], 0.4)
    assert (votes.states == turned.states).all()
    assert (votes.agreed == turned.agreed).all()


@pytest.mark.parametrize("views", [0, 1, 3])
def test_nothing_to_look_at(views: int) -> None:
    assert agreement(np.zeros((0, views, 3), np.float32), 0.5).states.shape == (0,)


def test_without_views_all_is_absent() -> None:
    assert agreement(np.zeros((2, 0, 3), np.float32), 0.5).states.tolist() == ["absent"] * 2
