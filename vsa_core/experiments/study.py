"""What experiments share: every strategy scored on one set of segments, and results on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vsa_core import config
from vsa_core.agree import cast_ballots
from vsa_core.errors import UsageError
from vsa_core.evaluate import calibration_error, split_scores
from vsa_core.experiments.supervised import supervised
from vsa_core.fusion.decide import Decided, decide
from vsa_core.fusion.strategies import STRATEGIES, fuse
from vsa_core.fusion.views import Views
from vsa_core.labels import Agreement

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

SEGMENTS = ("all", "agreeing", "disagreeing")
RANDOM, BEST_SINGLE, SUPERVISED = "random", "best-single", "supervised"
# The supervised bound's ridge on synthetic tables, as in the study behind the regimes.
_RIDGE = 0.03
_DPI = 150


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an experiment found.

    Attributes:
        tables: by name; `results` has a row per setting, seed, strategy and segments.
        summary: the tables people read, in Markdown; figures are linked as NAME.png.
        figures: by name.
    """

    tables: Mapping[str, pa.Table]
    summary: str
    figures: Mapping[str, Figure] = field(default_factory=dict)


def scored(
    views: Views, opinion: NDArray[np.floating], truth: NDArray[np.intp]
) -> list[dict[str, Any]]:
    """Scores of what somebody says of n segments: a row for each of `SEGMENTS`.

    Two or more views agree or disagree by their likeliest classes, however sure they are; a segment
    that one view saw is in neither part. The figures are over the segments decided, beside their
    share (coverage); None where none was.

    Args:
        views: the segments, with one target.
        opinion: (n, K) probabilities; NaN rows where nothing is said.
        truth: (n,) index of the class.
    """
    [probs] = views.probs.values()
    decided = decide(probs, opinion, 0.0)
    agreeing = decided.agreement == Agreement.AGREE.value
    disagreeing = decided.agreement == Agreement.DISAGREE.value
    split = split_scores(truth, decided.label, agreeing, disagreeing)
    masks = (np.ones_like(agreeing), agreeing, disagreeing)
    return [
        {
            "segments": name,
            "rows": part.rows,
            "coverage": part.coverage,
            "accuracy": part.accuracy,
            "macro_f1": part.macro_f1,
            "ece": _ece(decided, truth, mask),
        }
        for name, part, mask in zip(
            SEGMENTS, (split.all, split.agreeing, split.disagreeing), masks, strict=True
        )
    ]


def compare(
    views: Views, truth: NDArray[np.intp], seed: int, strategies: Sequence[str] = STRATEGIES
) -> list[dict[str, Any]]:
    """Scores of every strategy, and of what they are measured against.

    These are a random guess, each view alone, the view that is right on most segments (which
    nobody knows without labels), and a logistic regression on true labels.

    Args:
        views: n segments with one target.
        truth: (n,) index of the class.
        seed: of the guesses and of the strategies' training.
        strategies: which.
    """
    [(target, said)] = views.probs.items()
    guesses = np.random.default_rng([seed, 11]).random((len(views), said.shape[2]))
    opinions = {RANDOM: guesses / guesses.sum(axis=1, keepdims=True)}
    opinions |= {name: said[:, v] for v, name in enumerate(views.names)}
    votes = cast_ballots(said, 0.0)  # (n, V, K)
    right = votes[np.arange(len(truth)), :, truth].sum(axis=0)
    opinions[BEST_SINGLE] = said[:, int(right.argmax())]
    for strategy in strategies:
        fused = fuse(views, strategy, settings=config.Fusion(seed=seed))
        opinions[strategy] = fused.opinion.probs[target]
    opinions[SUPERVISED] = supervised(views, truth, (_RIDGE,))
    return [
        {"strategy": name} | row
        for name, opinion in opinions.items()
        for row in scored(views, opinion, truth)
    ]


def write(outcome: Outcome, out: Path) -> list[Path]:
    """Put an outcome into a folder: NAME.parquet, NAME.png and summary.md; returns the files.

    The same outcome gives the same bytes. Each file appears whole or not at all.
    """
    import pyarrow.parquet as pq

    written = []
    for name, table in outcome.tables.items():
        with _whole(out / f"{name}.parquet") as path:
            pq.write_table(table, path)
        written.append(out / f"{name}.parquet")
    for name, figure in outcome.figures.items():
        with _whole(out / f"{name}.png") as path:
            # The file would name matplotlib's version.
            figure.savefig(path, format="png", dpi=_DPI, metadata={"Software": None})
        written.append(out / f"{name}.png")
    with _whole(out / "summary.md") as path:
        path.write_text(outcome.summary, encoding="utf-8")
    return [*written, out / "summary.md"]


def prepare(out: Path) -> None:
    """Make the folder of an outcome, before hours go into what cannot be kept.

    Raises:
        UsageError: it cannot be made or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".writable").touch()
        (out / ".writable").unlink()
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}: take another folder") from error


def _ece(decided: Decided, truth: NDArray[np.intp], mask: NDArray[np.bool_]) -> float | None:
    made = mask & (decided.label >= 0)
    if not made.any():
        return None
    return calibration_error(decided.confidence[made], (decided.label == truth)[made])


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A path beside a file, which takes the file's place when nothing went wrong."""
    making = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield making
        making.replace(path)
    finally:
        making.unlink(missing_ok=True)
