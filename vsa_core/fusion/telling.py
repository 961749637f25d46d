"""How much fusion tells of labels that it was not given: votes that were hidden, and reviews.

Late fusion agrees with the votes it averages by construction, so no contender may see the vote it
is judged by: one view at a time is taken away, its vote and its embedding, and what is said of the
rest is held against that vote. This needs no truth: of two contenders the one whose probabilities
are nearer to the truth tells more of a vote that errs for reasons of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vsa_core.agree import cast_ballots, has_vote
from vsa_core.fusion.views import Held, Views

# Whoever is too sure, or too modest, is heard at the sharpness at which it tells most.
_SHARPNESS = np.geomspace(0.2, 2.0, 9)
_STEPS = 60
_LEAST = 1e-12


@dataclass(frozen=True, slots=True)
class Asked:
    """The labels that a contender is asked for, and where.

    Attributes:
        view: which view is hidden from it; None hides none.
        rows: (r,) segments.
        labels: (r,) index of the class that the hidden view votes for, or people gave.
    """

    view: int | None
    rows: NDArray[np.intp]
    labels: NDArray[np.intp]


def hidden_votes(
    views: Views, target: str, min_confidence: float, among: NDArray[np.bool_]
) -> list[Asked]:
    """For each view that votes, its confident votes on segments where another view votes too.

    Segments are not chosen by agreement: where votes agree, those that are left say what the
    hidden one does, and late fusion would never be wrong.

    Args:
        views: n segments.
        target: of what.
        min_confidence: a vote whose highest probability is below this is not asked for.
        among: (n,) segments that may be asked of.
    """
    ballots = cast_ballots(views.probs[target], min_confidence)
    voting = has_vote(views.probs[target])
    found = []
    for view in range(len(views.names)):
        others = np.delete(voting, view, axis=1).any(axis=1)
        rows = np.flatnonzero(ballots[:, view].any(axis=1) & others & among)
        if len(rows):
            found.append(Asked(view, rows, ballots[rows, view].argmax(axis=1)))
    return found


def without(views: Views, view: int | None) -> Views:
    """The same segments with one view absent from all of them; None hides none."""
    if view is None:
        return views
    present, embedded = views.present.copy(), views.embedded.copy()
    present[:, view] = embedded[:, view] = False
    embeddings = list(views.embeddings)
    width = embeddings[view].width
    embeddings[view] = Held(np.zeros(0, np.intp), np.zeros((0, width), np.float32))
    probs = {target: said.copy() for target, said in views.probs.items()}
    for said in probs.values():
        said[:, view] = np.nan
    return replace(
        views, present=present, embedded=embedded, embeddings=tuple(embeddings), probs=probs
    )


def answers(
    asked: list[Asked], opinion: Callable[[int | None], NDArray[np.floating]]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """What a contender says where it is asked, question by question.

    Args:
        asked: the questions.
        opinion: its probabilities (n, K) with a view hidden; NaN rows where it says nothing.

    Returns:
        Nats told (Σr,) and the class it would give (Σr,), -1 where it says nothing.
    """
    nats, given = [np.zeros(0)], [np.zeros(0, np.intp)]
    for question in asked:
        probs = opinion(question.view)[question.rows].astype(np.float64)
        said = np.isfinite(probs).all(axis=1)
        probs[~said] = 1 / probs.shape[1]
        nats.append(nats_told(probs, question.labels))
        given.append(np.where(said, probs.argmax(axis=1), -1))
    return np.concatenate(nats), np.concatenate(given)


def nats_told(probs: NDArray[np.floating], labels: NDArray[np.intp]) -> NDArray[np.float64]:
    """Nats (r,) that probabilities tell of each label, beyond how frequent its class is.

    A label is taken to be what the probabilities speak of with some chance, else one of the
    classes whoever is asked: `P(v) = w_0 p(v)^s / Σ_k p(k)^s + w_v`. The weights and the sharpness
    s are those under which all labels are likeliest, the same freedom for every contender, so that
    neither a label's own errors nor false confidence decide. Classes that are mixed up tell
    nothing.

    Args:
        probs: (r, K), rows summing to 1.
        labels: (r,) index of the class.
    """
    if not len(labels):
        return np.zeros(0)
    rows = np.arange(len(labels))
    logs = np.log(np.maximum(probs, _LEAST))
    share = np.bincount(labels, minlength=probs.shape[1]) / len(labels)
    best, best_sum = np.zeros(len(labels)), -np.inf
    for sharpness in _SHARPNESS:
        p = np.exp(sharpness * (logs - logs.max(axis=1, keepdims=True)))
        likelihood = _likelihood(p[rows, labels] / p.sum(axis=1), labels, share)
        nats = np.log(np.maximum(likelihood, _LEAST)) - np.log(share[labels])
        if nats.sum() > best_sum:
            best, best_sum = nats, nats.sum()
    return best


def _likelihood(
    p: NDArray[np.float64], labels: NDArray[np.intp], share: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Of each label (r,), given the probability p (r,) it is told with; weights by EM."""
    heard, guessed = 0.5, 0.5 * share
    for _ in range(_STEPS):
        by_guess = guessed[labels]
        total = np.maximum(heard * p + by_guess, _LEAST)
        heard = float((heard * p / total).mean())
        guessed = np.bincount(labels, by_guess / total, len(share)) / len(labels)
    return np.asarray(heard * p + guessed[labels])
