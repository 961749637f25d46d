"""Votes of independent models, and how they relate; generic in V views and K classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsa_core.labels import Agreement

# Probabilities are float32 sums: classes closer than this are tied, and a tied view abstains
# (a face that shows nothing but surprise says .5 / 0 / .5, which is no vote for negative).
_TIE = 1e-5


@dataclass(frozen=True, slots=True)
class Votes:
    """What n segments' views vote, and how the votes relate.

    Attributes:
        ballots: (n, V, K) bool, one-hot; a row without True abstains or is absent.
        states: (n,) str, the values of `Agreement`.
        agreed: (n, K) bool, one-hot where the state is `agree`, without True elsewhere.
    """

    ballots: NDArray[np.bool_]
    states: NDArray[np.str_]
    agreed: NDArray[np.bool_]


def cast_ballots(probs: NDArray[np.floating], min_confidence: float) -> NDArray[np.bool_]:
    """One-hot votes (..., K) for probabilities (..., K).

    A row abstains (no True) when it is NaN, when its highest probability is below
    `min_confidence`, or when two classes share that highest probability.
    """
    confident = has_unique_top(probs) & (probs.max(axis=-1) >= min_confidence)
    ballots: NDArray[np.bool_] = (probs == probs.max(axis=-1, keepdims=True)) & confident[..., None]
    return ballots


def has_unique_top(probs: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which rows (...) of probabilities (..., K) have one highest class; a tie and NaN do not."""
    leading = probs >= probs.max(axis=-1, keepdims=True) - _TIE
    unique: NDArray[np.bool_] = has_vote(probs) & (leading.sum(axis=-1) == 1)
    return unique


def has_vote(probs: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which rows (...) of probabilities (..., K) come from a view that votes; NaN does not."""
    finite: NDArray[np.bool_] = np.isfinite(probs).all(axis=-1)
    return finite


def agreement(probs: NDArray[np.floating], min_confidence: float) -> Votes:
    """How the views of each segment vote and whether they agree.

    The states, where a voter is a view with probabilities and a confident vote one that does not
    abstain (`cast_ballots`): no voter is `absent`; one voter is `single`, or `uncertain` if it
    abstains; of two or more voters with at least two confident votes, all the same is `agree`,
    else `disagree`; with fewer than two confident votes `uncertain`. A view that is missing is no
    voter, so it never agrees.

    Args:
        probs: (n, V, K), each row summing to 1; a row of NaN where a view does not vote.
        min_confidence: a vote whose highest probability is below this abstains.
    """
    ballots = cast_ballots(probs, min_confidence)
    voters = has_vote(probs).sum(axis=1)
    tally = ballots.sum(axis=1)  # (n, K)
    confident = tally.sum(axis=1)
    unanimous = tally.max(axis=1) == confident
    states = np.select(
        [
            voters == 0,
            (voters == 1) & (confident == 1),
            (confident >= 2) & unanimous,
            confident >= 2,
        ],
        [
            Agreement.ABSENT.value,
            Agreement.SINGLE.value,
            Agreement.AGREE.value,
            Agreement.DISAGREE.value,
        ],
        Agreement.UNCERTAIN.value,
    )
    agreed = (tally > 0) & (states == Agreement.AGREE.value)[:, None]
    return Votes(ballots, states, agreed)
