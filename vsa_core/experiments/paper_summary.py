"""The tables behind the figures of the TF-MVSA experiment, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vsa_core.experiments.study import BEST_SINGLE, RANDOM, SUPERVISED

if TYPE_CHECKING:
    import pyarrow as pa

ERRORS, TRUST, STUDY = "errors", "trust", "regimes"
# Fig 2a: errors as in the paper; independent of the embedding; the same, and confidence tells
# nothing of them.
KINDS = ("inside", "random", "flat")
LATE, HYBRID = "late-product", "tf-mvsa"
_NEAR = 0.01  # a strategy this close to the best one is as good
_ALL = 0.005  # so small a share of segments without a label is not worth a word


class Scores:
    """The rows of one part, looked up by setting, strategy and segments.

    Args:
        table: as `paper.run` makes it.
        part: `errors`, `trust` or `regimes`.

    Attributes:
        settings: by name, in their order, with `errors`, `noise`, `error_rate` and `p`.
        strategies: names in their order.
    """

    def __init__(self, table: pa.Table, part: str) -> None:
        rows = [row for row in table.to_pylist() if row["part"] == part]
        self.settings = {row["setting"]: row for row in rows}
        self.strategies = tuple(dict.fromkeys(row["strategy"] for row in rows))
        self._rows: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        for row in rows:
            key = row["setting"], row["strategy"], row["segments"]
            self._rows.setdefault(key, []).append(row)

    def of(
        self, setting: str, strategy: str, segments: str = "all", figure: str = "macro_f1"
    ) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """A figure of each seed (s,); NaN where there is none, empty for an unknown strategy."""
        rows = self._rows.get((setting, strategy, segments), [])
        return np.array([row[figure] for row in rows], np.float64)

    def mean(self, setting: str, strategy: str, segments: str = "all") -> float:
        """Mean macro-F1 over seeds."""
        return float(self.of(setting, strategy, segments).mean())

    def coverage(self, setting: str, strategy: str, segments: str = "all") -> float:
        """Mean share of segments labelled."""
        return float(self.of(setting, strategy, segments, "coverage").mean())

    def fused(self) -> tuple[str, ...]:
        """Strategies that need no label, single views left out."""
        names = self.strategies
        return names[names.index(BEST_SINGLE) + 1 : names.index(SUPERVISED)]

    def best(self, setting: str, segments: str, near: float = 1e-9) -> list[str]:
        """The strategies as good as the best one of those that label as many as any."""
        share = {name: self.coverage(setting, name, segments) for name in self.fused()}
        means = {
            name: self.mean(setting, name, segments)
            for name in self.fused()
            if share[name] >= max(share.values()) - _ALL
        }
        return [name for name, mean in means.items() if mean >= max(means.values()) - near]


def summary(table: pa.Table) -> str:
    """All tables, as one document."""
    seeds = len(set(table.column("seed").to_pylist()))
    errors, trust, study = (Scores(table, part) for part in (ERRORS, TRUST, STUDY))
    parts = [
        "# Results of the TF-MVSA experiment",
        f"Written by `vsa experiment tf-mvsa --seeds {seeds}`; [tf-mvsa.md](../tf-mvsa.md) says "
        "what the rows are. Macro-F1 unless said otherwise, mean ± standard deviation over "
        f"{seeds} seeds. `random`, `best-single` and `supervised` are no strategies: the first "
        "guesses, the others know the truth.",
        "## Five models and ours (Fig 2a)",
        "![Box plots of macro-F1 of each model](models.png)",
        "Errors are *inside* the embedding (the paper), *random*, or random with *flat* "
        "confidences. Over all noise levels, error rates and seeds (`vote` has no label where two "
        "views differ, which is the easier part to score on):",
        *(_spread(errors, kind) for kind in KINDS),
        "The order of the paper, step by step: in how many of the cells (means over seeds) the "
        "second is above the first, and by how much on average.",
        _order(errors),
        "Every cell:",
        *(_cells(errors, kind) for kind in KINDS),
        "## Which model to trust (Fig 2b)",
        "![Macro-F1 against the probability that the face model is right](trust.png)",
        _by_trust(trust),
        "A parabola `a (p − b)² + c` through the means of each model:",
        _parabolas(trust),
        "## The regimes",
        "![Macro-F1 of each strategy in each regime](regimes.png)",
        "All segments. Behind a figure: the share of segments labelled, where it is not all of "
        "them. Bold: the best strategy of those that label most.",
        _by_regime(study, "all"),
        "The segments whose views disagree:",
        _by_regime(study, "disagreeing"),
        f"Where each wins: the strategies within {_NEAR} of the best one, and differences of "
        "macro-F1 on the same drawings.",
        _winners(study),
        "Expected calibration error of the confidences on all segments:",
        _calibration(study),
    ]
    return "\n\n".join(parts) + "\n"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _pm(values: np.ndarray[Any, np.dtype[np.float64]]) -> str:
    values = values[np.isfinite(values)]
    if not len(values):
        return "–"
    spread = f" ± {_short(values.std(ddof=1))}" if len(values) > 1 else ""
    return f"{_short(values.mean())}{spread}"


def _short(value: float) -> str:
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.2f}"


def _signed(values: np.ndarray[Any, np.dtype[np.float64]]) -> str:
    return ("+" if values.mean() >= 0.005 else "") + _pm(values).replace("-.00", ".00")


def _spread(scores: Scores, kind: str) -> str:
    settings = [name for name, row in scores.settings.items() if row["errors"] == kind]
    rows = []
    for strategy in scores.strategies:
        all_ = np.concatenate([scores.of(setting, strategy) for setting in settings])
        shown = [*np.quantile(all_, (0, 0.25, 0.5, 0.75, 1)), all_.mean()]
        share = np.mean([scores.coverage(setting, strategy) for setting in settings])
        rows.append([strategy, *map(_short, shown), f"{share:.0%}"])
    quantiles = ["least", "quarter", "median", "three quarters", "most"]
    return markdown([f"errors {kind}", *quantiles, "mean", "labelled"], rows)


def _steps() -> list[tuple[str, str]]:
    return [
        (RANDOM, "face"),
        (RANDOM, "text"),
        (BEST_SINGLE, LATE),
        (LATE, HYBRID),
        (LATE, "crossview"),
        (LATE, "crossview-attention"),
    ]


def _order(scores: Scores) -> str:
    rows = []
    for low, high in _steps():
        if not {low, high} <= set(scores.strategies):
            continue
        row = [f"{low} < {high}"]
        for kind in KINDS:
            gains = np.array(
                [
                    scores.mean(setting, high) - scores.mean(setting, low)
                    for setting, at in scores.settings.items()
                    if at["errors"] == kind
                ]
            )
            row.append(f"{(gains > 0).sum()} of {len(gains)} ({_signed(gains)})")
        rows.append(row)
    return markdown(["step", *(f"errors {kind}" for kind in KINDS)], rows)


def _cells(scores: Scores, kind: str) -> str:
    rows = [
        [f"{at['noise']:g}", f"{at['error_rate']:g}"]
        + [_pm(scores.of(setting, strategy)) for strategy in scores.strategies]
        for setting, at in scores.settings.items()
        if at["errors"] == kind
    ]
    return markdown([f"noise ({kind})", "error rate", *scores.strategies], rows)


def _by_trust(scores: Scores) -> str:
    rows = [
        [f"{at['p']:g}", *(_pm(scores.of(setting, name)) for name in scores.strategies)]
        for setting, at in scores.settings.items()
    ]
    return markdown(["p", *scores.strategies], rows)


def _parabolas(scores: Scores) -> str:
    p = np.array([at["p"] for at in scores.settings.values()])
    rows = []
    for strategy in scores.strategies:
        f1 = np.array([scores.mean(setting, strategy) for setting in scores.settings])
        fit = np.polyfit(p, f1, 2)
        left = ((f1 - np.polyval(fit, p)) ** 2).sum()
        explained = 1 - left / max(((f1 - f1.mean()) ** 2).sum(), 1e-12)
        lowest = -fit[1] / (2 * fit[0])
        at = _short(lowest) if 0 <= lowest <= 1 else "outside"
        middle = f1[np.abs(p - 0.5).argmin()]
        figures = [fit[0], explained, f1[0], middle, f1[-1]]
        rows.append([strategy, _short(figures[0]), at, *map(_short, figures[1:])])
    first, last = f"F1 at p {p[0]:g}", f"at {p[-1]:g}"
    return markdown(["model", "a", "b", "R²", first, "at 0.5", last], rows)


def _by_regime(scores: Scores, segments: str) -> str:
    shown = [RANDOM, BEST_SINGLE, *scores.fused(), SUPERVISED]
    rows = []
    for setting in scores.settings:
        values = {name: scores.of(setting, name, segments) for name in shown}
        best = scores.best(setting, segments)
        row = [setting]
        for name in shown:
            text = _pm(values[name])
            coverage = scores.coverage(setting, name, segments)
            if coverage < 1 - _ALL:
                text += f" ({coverage:.0%})"
            row.append(f"**{text}**" if name in best else text)
        rows.append(row)
    return markdown([f"regime ({segments})", *shown], rows)


def _winners(scores: Scores) -> str:
    pairs = [
        (high, low)
        for high, low in (
            (HYBRID, LATE),
            ("crossview-attention", LATE),
            ("crossview-attention", BEST_SINGLE),
            (SUPERVISED, "crossview-attention"),
        )
        if {high, low} <= set(scores.strategies)
    ]
    rows = []
    for setting in scores.settings:
        near = scores.best(setting, "all", _NEAR)
        differences = [
            _signed(scores.of(setting, high) - scores.of(setting, low)) for high, low in pairs
        ]
        rows.append([setting, ", ".join(near), *differences])
    return markdown(["regime", "best", *(f"{high} − {low}" for high, low in pairs)], rows)


def _calibration(scores: Scores) -> str:
    shown = [BEST_SINGLE, *scores.fused(), SUPERVISED]
    rows = [
        [setting, *(_pm(scores.of(setting, name, "all", "ece")) for name in shown)]
        for setting in scores.settings
    ]
    means = [
        np.mean([scores.of(setting, name, "all", "ece").mean() for setting in scores.settings])
        for name in shown
    ]
    return markdown(["regime", *shown], [*rows, ["mean", *(_short(float(m)) for m in means)]])
