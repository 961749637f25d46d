"""Every strategy scored on real data with known truth: seeds, and intervals by whole videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vsa_core import config
from vsa_core.errors import UsageError
from vsa_core.evaluate import calibration_error
from vsa_core.experiments.study import SEGMENTS, SUPERVISED
from vsa_core.experiments.supervised import supervised
from vsa_core.fusion.decide import decide
from vsa_core.fusion.strategies import STRATEGIES, Known, fuse
from vsa_core.fusion.views import Views
from vsa_core.labels import Agreement

if TYPE_CHECKING:
    import pyarrow as pa

TARGET = "label"
BASELINE = "late-product"
# The strategies that can learn from reviews.
LEARNING = ("crossview", "crossview-attention")
# Supervised, but reading the probabilities alone.
STACKED = "supervised weights"
REVIEWED = 100
COVERAGES = tuple(round(0.1 * i, 1) for i in range(1, 11))
# Every vote counts in telling agreeing from disagreeing segments, as in the study.
_NO_FLOOR = 0.0
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to see the data, for one seed.

    Attributes:
        name: of the setting.
        views: n segments, target `label`.
        truth: (n,) index of the class; what no strategy is shown.
        min_vote: for strategies that start from votes, one less probable than this abstains.
            Whether segments count as agreeing does not depend on it: every vote counts there.
    """

    name: str
    views: Views
    truth: NDArray[np.intp]
    min_vote: float


@dataclass(frozen=True, slots=True)
class Real:
    """What an experiment on real data found.

    Attributes:
        results: a row per setting, seed, strategy and segments; null where nothing was decided.
        summary: a row per setting, strategy and segments: mean and standard deviation over seeds,
            95 % bootstrap intervals of the mean over seeds, and of the difference to late fusion.
        risk: accuracy of the most confident share of segments, mean over seeds.
        facts: what else is worth saying of each setting, a line each.
    """

    results: pa.Table
    summary: pa.Table
    risk: pa.Table
    facts: tuple[str, ...]


@dataclass(slots=True)
class Scores:
    """Collects decisions, one setting, seed and strategy after the other."""

    rows: list[dict[str, object]] = field(default_factory=list)
    risks: list[dict[str, object]] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    # (setting, strategy, segments) → per seed the counts of the strategy and of late fusion on
    # the same segments, each (videos, K, K + 1)
    counts: dict[tuple[str, str, str], list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = field(
        default_factory=dict
    )

    def add(
        self,
        setting: Setting,
        seed: int,
        strategy: str,
        opinion: NDArray[np.floating],
        baseline: NDArray[np.floating],
        unseen: NDArray[np.bool_] | None = None,
    ) -> None:
        """Score what a strategy says.

        Args:
            setting: what was seen.
            seed: of this repetition.
            strategy: its name.
            opinion: (n, K) what it says; NaN rows where nothing.
            baseline: (n, K) what late fusion says.
            unseen: (n,) the segments that count; None for all.
        """
        views, truth = setting.views, setting.truth
        probs = views.probs[TARGET]
        said = decide(probs, opinion, _NO_FLOOR)
        late = decide(probs, baseline, _NO_FLOOR).label
        counted = np.ones(len(truth), bool) if unseen is None else unseen
        made = said.label >= 0
        right = said.label == truth
        shape = (len(views.videos), probs.shape[2])
        states = (None, Agreement.AGREE, Agreement.DISAGREE)
        for segments, state in zip(SEGMENTS, states, strict=True):
            mask = counted if state is None else counted & (said.agreement == state.value)
            own = tally(truth, said.label, views.video, mask, *shape)
            same = tally(truth, late, views.video, mask, *shape)
            self.counts.setdefault((setting.name, strategy, segments), []).append((own, same))
            kept = mask & made
            known = bool(kept.any())
            self.rows.append(
                {
                    "setting": setting.name,
                    "seed": seed,
                    "strategy": strategy,
                    "segments": segments,
                    "rows": int(mask.sum()),
                    "coverage": float(made[mask].mean()) if mask.any() else None,
                    "accuracy": float(right[kept].mean()) if known else None,
                    "macro_f1": float(macro_f1(own.sum(axis=0))) if known else None,
                    "ece": calibration_error(said.confidence[kept], right[kept]) if known else None,
                }
            )
        kept = np.flatnonzero(counted & made)
        order = kept[np.argsort(-said.confidence[kept], kind="stable")]
        for coverage in COVERAGES:
            most = order[: max(1, round(coverage * counted.sum()))]
            if coverage <= made[counted].mean() + 1e-9:
                self.risks.append(
                    {
                        "setting": setting.name,
                        "seed": seed,
                        "strategy": strategy,
                        "coverage": coverage,
                        "accuracy": float(right[most].mean()),
                    }
                )

    def real(self) -> Real:
        """Everything collected, as tables."""
        import pyarrow as pa

        return Real(
            pa.Table.from_pylist(self.rows),
            pa.Table.from_pylist([self._summary(*key) for key in self.counts]),
            pa.Table.from_pylist(self.risks)
            .group_by(["setting", "strategy", "coverage"], use_threads=False)
            .aggregate([("accuracy", "mean")])
            .rename_columns({"accuracy_mean": "accuracy"}),
            tuple(dict.fromkeys(self.facts)),
        )

    def _summary(self, setting: str, strategy: str, segments: str) -> dict[str, object]:
        where = {"setting": setting, "strategy": strategy, "segments": segments}
        same = [row for row in self.rows if where.items() <= row.items()]
        scores = _column(same, "macro_f1")
        pairs = self.counts[setting, strategy, segments]
        weights = _resamples(len(pairs[0][0]))
        own, late = (
            np.mean([macro_f1(np.tensordot(weights, pair[side], 1)) for pair in pairs], axis=0)
            for side in (0, 1)
        )
        gain = np.mean([macro_f1(a.sum(axis=0)) - macro_f1(b.sum(axis=0)) for a, b in pairs])
        there = len(scores) == len(pairs) and bool(np.isfinite(own - late).all())
        low, high = np.quantile(own, (0.025, 0.975)) if there else (None, None)
        least, most = np.quantile(own - late, (0.025, 0.975)) if there else (None, None)
        return where | {
            "seeds": len(pairs),
            "rows": float(np.mean(_column(same, "rows"))),
            "coverage": _mean(same, "coverage"),
            "accuracy": _mean(same, "accuracy"),
            "ece": _mean(same, "ece"),
            "macro_f1": _mean(same, "macro_f1"),
            "sd": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
            "low": low,
            "high": high,
            "gain": float(gain) if there else None,
            "gain_low": least,
            "gain_high": most,
        }


def tally(
    truth: NDArray[np.intp],
    said: NDArray[np.intp],
    video: NDArray[np.integer],
    mask: NDArray[np.bool_],
    videos: int,
    classes: int,
) -> NDArray[np.int64]:
    """Counts (videos, K, K + 1) by video, truth and decision, the last for no decision (-1)."""
    column = np.where(said < 0, classes, said)
    cell = (video.astype(np.int64) * classes + truth) * (classes + 1) + column
    size = videos * classes * (classes + 1)
    counts: NDArray[np.int64] = np.bincount(cell[mask], minlength=size)
    return counts.reshape(videos, classes, classes + 1)


def macro_f1(counts: NDArray[np.number]) -> NDArray[np.float64]:
    """Macro-F1 (...) of counts (..., K, K + 1) as `tally` makes them; NaN without a segment.

    As `evaluate.split_scores`: over the segments decided, and the classes that occur in the truth.
    """
    decided = counts[..., :-1].astype(np.float64)
    hits = np.diagonal(decided, axis1=-2, axis2=-1)
    f1 = 2 * hits / np.maximum(decided.sum(axis=-1) + decided.sum(axis=-2), 1e-12)
    occurs = counts.sum(axis=-1) > 0
    classes = occurs.sum(axis=-1)
    mean = (f1 * occurs).sum(axis=-1) / np.maximum(classes, 1)
    scores: NDArray[np.float64] = np.where(classes > 0, mean, np.nan)
    return scores


def score_setting(scores: Scores, setting: Setting, seed: int) -> None:
    """Every strategy, every view alone, and what true labels of the same segments would give."""
    views, truth = setting.views, setting.truth
    settings = config.Fusion(seed=seed)

    def opinion(strategy: str, known: Known | None = None) -> NDArray[np.floating]:
        fused = fuse(
            views, strategy, settings=settings, min_confidence=setting.min_vote, known=known
        )
        return fused.opinion.probs[TARGET]

    late = opinion(BASELINE)
    said = views.probs[TARGET]
    for v, name in enumerate(views.names):
        if np.isfinite(said[:, v]).any():
            scores.add(setting, seed, f"{name} alone", said[:, v], late)
    for strategy in STRATEGIES:
        scores.add(setting, seed, strategy, opinion(strategy), late)
    rows = np.sort(np.random.default_rng([seed, 7]).permutation(len(truth))[:REVIEWED])
    unseen = np.ones(len(truth), bool)
    unseen[rows] = False
    for strategy in LEARNING:
        reviewed = opinion(strategy, Known(TARGET, rows, truth[rows]))
        scores.add(setting, seed, f"{strategy} + {REVIEWED} reviewed", reviewed, late, unseen)
    if any(e.width for e in views.embeddings):
        scores.add(setting, seed, SUPERVISED, supervised(views, truth), late)
    scores.add(setting, seed, STACKED, supervised(views, truth, vectors=False), late)


def data_file(folder: Path, name: str, origin: str) -> Path:
    """A file of third-party data.

    Args:
        folder: what `--data` names.
        name: of the file inside it.
        origin: where it can be had, for the message.

    Raises:
        UsageError: it is not there.
    """
    if not (folder / name).is_file():
        raise UsageError(
            f"{folder / name} is missing: give --data DIR with {name} in it ({origin})"
        )
    return folder / name


def _resamples(videos: int) -> NDArray[np.float64]:
    """How often each video is drawn (resamples, videos); the same draws for every strategy."""
    rng = np.random.default_rng([videos, 40])
    drawn = rng.multinomial(videos, np.full(videos, 1 / videos), size=_RESAMPLES)
    return drawn.astype(np.float64)


def _column(rows: Sequence[Mapping[str, object]], name: str) -> list[float]:
    return [float(str(row[name])) for row in rows if row[name] is not None]


def _mean(rows: Sequence[Mapping[str, object]], name: str) -> float | None:
    values = _column(rows, name)
    return float(np.mean(values)) if values else None
