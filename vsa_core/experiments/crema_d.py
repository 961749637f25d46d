"""CREMA-D: what raters heard in a voice and saw in a face, against what they found in both."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vsa_core import progress
from vsa_core.agree import agreement, has_unique_top
from vsa_core.errors import UsageError
from vsa_core.evaluate import calibration_error
from vsa_core.experiments.real import TARGET, Scores, Setting, data_file, score_setting
from vsa_core.experiments.real_page import outcome
from vsa_core.experiments.study import Outcome
from vsa_core.fusion.views import views_from_arrays
from vsa_core.labels import Agreement

ORIGIN = "tabulatedVotes.csv of CheyneyComputerScience/CREMA-D on GitHub; see docs/real-data.md"
EMOTIONS = {
    "A": "anger", "D": "disgust", "F": "fear", "H": "joy", "N": "neutral", "S": "sadness",
}  # fmt: skip
VIEWS = ("voice", "face")
# Laplace: one vote for each emotion beside those cast.
SMOOTHING = 1.0
FEW = 3


@dataclass(frozen=True, slots=True)
class Crema:
    """The clips on which the raters of voice and face together have one favourite.

    Attributes:
        actor: (n,) who plays.
        votes: (n, 2, 6) int, how many raters chose each emotion from the voice, from the face.
        truth: (n,) the emotion most raters chose from both.
        tied: how many clips were left out for having no single favourite.
    """

    actor: NDArray[np.str_]
    votes: NDArray[np.int64]
    truth: NDArray[np.intp]
    tied: int


def run(data: Path, seeds: Sequence[int]) -> Outcome:
    """Score every strategy on CREMA-D's votes.

    Args:
        data: the folder with `crema_d/votes_dev.csv`.
        seeds: each draws other raters, and trains anew.

    Raises:
        UsageError: the file is missing, or is not what it should be.
    """
    crema = read(data)
    scores = Scores()
    settings = [(seed, setting) for seed in seeds for setting in settings_of(crema, seed)]
    progress.begin("experiment", len(settings))
    for seed, setting in settings:
        score_setting(scores, setting, seed)
        progress.advance("experiment", 1)
    scores.facts.extend(facts(crema))
    return outcome("crema-d", scores)


def read(data: Path) -> Crema:
    """The votes.

    Raises:
        UsageError: the file is missing, or is not what it should be.
    """
    path = data_file(data, "crema_d/votes_dev.csv", ORIGIN)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        votes, both = (
            np.array([[[int(row[f"{v}_{e}"]) for e in EMOTIONS] for v in views] for row in rows])
            for views in (VIEWS, ("av",))
        )
        actor = np.array([row["actor"] for row in rows])
    except (KeyError, ValueError) as error:
        raise UsageError(f"{path} is not the table of votes it should be: {error}") from error
    clear = has_unique_top(both[:, 0].astype(np.float64))
    return Crema(actor[clear], votes[clear], both[clear, 0].argmax(axis=1), int((~clear).sum()))


def settings_of(crema: Crema, seed: int) -> list[Setting]:
    """The whole crowd with and without its shares as vectors, and three raters a view."""
    few = few_raters(crema.votes, np.random.default_rng(seed))
    return [
        _setting("whole crowd", crema, crema.votes, with_vectors=False),
        _setting("whole crowd, log-shares as vectors", crema, crema.votes, with_vectors=True),
        _setting(f"{FEW} raters a view", crema, few, with_vectors=False),
        _setting(f"{FEW} raters a view, log-shares as vectors", crema, few, with_vectors=True),
    ]


def few_raters(votes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """The votes (n, V, K) of `FEW` raters of each view, drawn without putting back."""
    flat = votes.reshape(-1, votes.shape[2])
    drawn = [rng.multivariate_hypergeometric(row, FEW) for row in flat]
    return np.array(drawn).reshape(votes.shape)


def shares(votes: NDArray[np.int64], smoothing: float = SMOOTHING) -> NDArray[np.float64]:
    """Probabilities (..., K) of counts (..., K), with `smoothing` more votes for each class."""
    more = votes + smoothing
    probs: NDArray[np.float64] = more / more.sum(axis=-1, keepdims=True)
    return probs


def facts(crema: Crema) -> list[str]:
    """How the two views relate, and how far a crowd's share is from a probability."""
    probs = shares(crema.votes)
    votes = agreement(probs, 0.0)
    lines = [
        f"{len(crema.truth)} clips of {len(np.unique(crema.actor))} actors; {crema.tied} more were "
        "left out, as the raters of voice and face together had no single favourite."
    ]
    for state in Agreement:
        rows = votes.states == state.value
        if rows.any():
            right = (probs[rows].argmax(axis=2) == crema.truth[rows, None]).mean(axis=0)
            lines.append(
                f"Voice and face {state.value}: {rows.mean():.1%} of the clips; there the voice's "
                f"favourite is right in {right[0]:.3f}, the face's in {right[1]:.3f}."
            )
    for v, name in enumerate(VIEWS):
        said = crema.votes[:, v]
        one = has_unique_top(said.astype(np.float64))
        right = said[one].argmax(axis=1) == crema.truth[one]
        errors = [
            calibration_error(shares(said[one], s).max(axis=1), right) for s in (0.0, SMOOTHING)
        ]
        lines.append(
            f"Calibration error (ECE) of the {name}'s crowd: {errors[0]:.3f} as the share of the "
            f"votes, {errors[1]:.3f} with one vote added to each emotion; no favourite in "
            f"{(~one).mean():.1%} of the clips."
        )
    return lines


def _setting(name: str, crema: Crema, votes: NDArray[np.int64], *, with_vectors: bool) -> Setting:
    probs = shares(votes)
    vectors = [np.log(probs[:, v]) if with_vectors else None for v in range(len(VIEWS))]
    views = views_from_arrays(
        crema.actor,
        probs,
        vectors,
        names=VIEWS,
        classes=tuple(EMOTIONS.values()),
        target=TARGET,
    )
    # Every favourite votes, however narrow (three raters never reach a half); a tie abstains.
    return Setting(name, views, crema.truth, 0.0)
