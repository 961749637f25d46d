"""From votes and an opinion to labels: who decides, how sure, and when nobody does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsa_core.agree import Votes, agreement, has_unique_top
from vsa_core.labels import Agreement, Origin


@dataclass(frozen=True, slots=True)
class Decided:
    """The labels of n segments.

    Attributes:
        label: (n,) index of the class; -1 for none.
        probs: (n, K) behind the label; NaN where there is none.
        confidence: (n,) probability of the label; NaN where there is none.
        agreement: (n,) values of `Agreement`.
        origin: (n,) values of `Origin`: `consensus` where confident votes agree and the label is
            what they agree on, `single` where one view votes and the label is its vote, `none`
            without a label, else `fusion`.
        votes: (n, V) index of each view's vote; -1 where it is absent or abstains.
    """

    label: NDArray[np.intp]
    probs: NDArray[np.floating]
    confidence: NDArray[np.floating]
    agreement: NDArray[np.str_]
    origin: NDArray[np.str_]
    votes: NDArray[np.intp]


def decide(
    probs: NDArray[np.floating],
    opinion: NDArray[np.floating],
    min_vote: float,
    min_confidence: float = 0.0,
) -> Decided:
    """Who decides on each segment.

    Args:
        probs: (n, V, K) what the views say; NaN where one does not vote.
        opinion: (n, K) what fusion says; NaN where it says nothing.
        min_vote: a view's vote whose highest probability is below this abstains.
        min_confidence: a label less probable than this is not given.
    """
    votes: Votes = agreement(probs, min_vote)
    voted = votes.states != Agreement.ABSENT.value
    decided = voted & has_unique_top(opinion)
    label = np.where(decided, np.where(decided[:, None], opinion, 0).argmax(axis=1), -1)
    confidence = np.where(decided, np.nan_to_num(opinion).max(axis=1), np.nan)
    unsure = decided & (confidence < min_confidence)
    decided &= ~unsure
    label = np.where(decided, label, -1)
    confidence = np.where(decided, confidence, np.nan)
    cast = votes.ballots.sum(axis=2) > 0
    ballots = np.where(cast, votes.ballots.argmax(axis=2), -1)
    backed = (ballots == label[:, None]).any(axis=1) & decided
    origin = np.select(
        [
            ~decided,
            backed & (votes.states == Agreement.AGREE.value),
            backed & (votes.states == Agreement.SINGLE.value),
        ],
        [Origin.NONE.value, Origin.CONSENSUS.value, Origin.SINGLE.value],
        Origin.FUSION.value,
    )
    return Decided(
        label,
        np.where(decided[:, None], opinion, np.nan),
        confidence,
        votes.states,
        origin,
        ballots,
    )
