"""The rule by which a new fusion model takes over, or does not, and its words."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

CONSENSUS, REVIEWS = "consensus", "reviews"
LATE, CURRENT, CANDIDATE = "late fusion", "current model", "candidate"
LEVEL = 0.9
_NAMED = {LATE: "late fusion", CURRENT: "the current model"}

# With less nobody is unseated: which of two models is better cannot be told.
_FEW_VIDEOS, _FEW_VOTES = 5, 100
# What a new model must tell beyond each rival, as a share of what that tells: labels do not change
# hands for less, however sure it is.
_WORTH = 0.02


@dataclass(frozen=True, slots=True)
class Row:
    """How well one contender does before one judge.

    Attributes:
        judge: `consensus` (votes that were hidden from the contender) or `reviews`.
        contender: `late fusion`, `current model` or `candidate`.
        n: labels it was asked for.
        videos: of so many videos.
        told: nats it tells of each, on average (`telling.nats_told`).
        macro_f1: of the classes it would give, against the labels asked for.
        accuracy: share of them that it would give.
        gain: what the candidate tells more, in nats; None for the candidate itself.
        low, high: the gain's interval of 90 % over whole videos; None with fewer than two.
    """

    judge: str
    contender: str
    n: int
    videos: int
    told: float
    macro_f1: float
    accuracy: float
    gain: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate beside those it wants to replace.

    Attributes:
        better: whether it should label from now on.
        reason: why, or why not, in one line.
        rows: by judge and contender; empty where there was nothing to compare.
        videos, segments: what was looked at.
        notes: what was left out, one line each.
    """

    better: bool
    reason: str
    rows: tuple[Row, ...] = ()
    videos: int = 0
    segments: int = 0
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON has it."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return found


def verdict(rows: Sequence[Row]) -> tuple[bool, str]:
    """Whether the candidate of these rows is better, by the rules of `compare`, and why.

    Args:
        rows: of one comparison.
    """
    own = {row.judge: row for row in rows if row.contender == CANDIDATE}
    if CONSENSUS not in own:
        return False, "no two models vote on the same segments: there is nothing to compare by"
    judged = own[CONSENSUS]
    rivals = [row for row in rows if row.contender != CANDIDATE]
    if any(row.contender == CURRENT for row in rivals) and (
        judged.videos < _FEW_VIDEOS or judged.n < _FEW_VOTES
    ):
        return False, (
            f"{judged.n} votes of {judged.videos} videos are too few to unseat the current model: "
            f"it takes {_FEW_VOTES} of {_FEW_VIDEOS}"
        )
    # The current model is what it has to beat; what is said of late fusion goes without saying.
    for row in sorted(rivals, key=lambda row: (row.judge, row.contender)):
        if (why := _why_not(row, own[row.judge])) is not None:
            return False, why
    over = {row.contender: row for row in rivals if row.judge == CONSENSUS}
    row = over.get(CURRENT, over[LATE])
    also = f", and by {own[REVIEWS].n} reviews" if REVIEWS in own else ""
    return True, f"it tells more than {_NAMED[row.contender]}: {_figures(row, judged)}{also}"


def _why_not(row: Row, own: Row) -> str | None:
    """What a rival has against the candidate; None where it is beaten."""
    assert row.gain is not None
    figures = _figures(row, own)
    if row.judge == REVIEWS:
        if row.gain < -1e-9:
            return f"by people's reviews it is not better than {_NAMED[row.contender]}: {figures}"
    elif row.low is None or row.low <= 0:
        return f"it is not surely better than {_NAMED[row.contender]}: {figures}"
    elif row.gain < _WORTH * row.told:
        return f"it is hardly better than {_NAMED[row.contender]}: {figures}"
    if own.macro_f1 < row.macro_f1 - _noise(own):
        return (
            f"it gives fewer right classes than {_NAMED[row.contender]}: macro-F1 "
            f"{own.macro_f1:.3f} against {row.macro_f1:.3f}"
        )
    return None


def _noise(row: Row) -> float:
    """Two standard errors of a share of as many labels."""
    return 2 * math.sqrt(max(row.accuracy * (1 - row.accuracy), 0.01) / row.n)


def _figures(row: Row, own: Row) -> str:
    what = "reviews" if row.judge == REVIEWS else "hidden votes"
    within = f" ({row.low:.3f} to {row.high:.3f})" if row.low is not None else ""
    return (
        f"{own.told:.3f} against {row.told:.3f} nats of {own.n} {what} of {own.videos} videos, "
        f"{row.gain:+.3f}{within}"
    )
