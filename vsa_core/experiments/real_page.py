"""What an experiment on real data leaves: its tables, a page of Markdown and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vsa_core.experiments.real import BASELINE, COVERAGES, Real, Scores
from vsa_core.experiments.study import SEGMENTS, Outcome
from vsa_core.fusion.strategies import DEFAULT, STRATEGIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEADER = (
    "strategy", "macro-F1, all", "agreeing", "disagreeing", "accuracy", "coverage", "ECE",
    f"macro-F1 over {BASELINE}",
)  # fmt: skip
_PANELS = 3  # beside each other at most
_RISK_SHOWN = (0.2, 0.4, 0.6, 0.8, 1.0)


def outcome(experiment: str, scores: Scores) -> Outcome:
    """Tables `results`, `summary` and `risk`, the page, and the risk–coverage curves.

    Args:
        experiment: its name, as typed after `vsa experiment`.
        scores: everything it scored.
    """
    real = scores.real()
    tables = {"results": real.results, "summary": real.summary, "risk": real.risk}
    return Outcome(tables, page(experiment, real), {"risk": curves(real)})


def page(experiment: str, real: Real) -> str:
    """The summary as Markdown: for each setting the scores, then accuracy by coverage."""
    summary: list[dict[str, Any]] = real.summary.to_pylist()
    risk: list[dict[str, Any]] = real.risk.to_pylist()
    seeds = max(row["seeds"] for row in summary)
    lines = [
        f"<!-- made by `vsa experiment {experiment} --seeds {seeds}`; do not edit -->",
        "",
        f"Seeds: {seeds}; mean ± standard deviation over them. In brackets: 95 % bootstrap "
        "interval of the mean over seeds, resampling whole videos (actors); the last column "
        "resamples the difference on the same segments. Each figure is over the segments decided: "
        "compare those of unlike coverage with care. Accuracy, coverage and ECE are of all "
        "segments. Agreeing and disagreeing: by the votes of all views that vote; a segment with "
        "one vote is neither.",
        "",
    ]
    if real.facts:
        lines += [*(f"- {fact}" for fact in real.facts), ""]
    for setting in dict.fromkeys(row["setting"] for row in summary):
        rows = [row for row in summary if row["setting"] == setting]
        by = {(row["strategy"], row["segments"]): row for row in rows}
        counts = [f"{by[BASELINE, part]['rows']:.0f} {part}" for part in SEGMENTS]
        lines += [
            f"## {setting[0].upper()}{setting[1:]}",
            "",
            f"Segments: {', '.join(counts)}.",
            "",
        ]
        names = list(dict.fromkeys(row["strategy"] for row in rows))
        lines += _table(_HEADER, [_row(name, by) for name in names])
        lines += ["", "Accuracy of the most confident share of all segments:", ""]
        lines += _table(
            ("strategy", *(f"{c:.0%}" for c in _RISK_SHOWN)),
            [(name, *_risks(name, setting, risk)) for name in names if name in STRATEGIES],
        )
        lines.append("")
    lines += ["## Accuracy against coverage", "", "![accuracy against coverage](risk.png)", ""]
    return "\n".join(lines)


def curves(real: Real) -> Figure:
    """Accuracy against coverage, one panel a setting and one line a strategy."""
    from matplotlib.figure import Figure

    rows: list[dict[str, Any]] = real.risk.to_pylist()
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    across = min(_PANELS, len(settings))
    lines = -(-len(settings) // across)
    figure = Figure(figsize=(4.2 * across, 3.4 * lines), layout="constrained")
    panels = figure.subplots(lines, across, sharey=True, squeeze=False).ravel()
    for panel in panels[len(settings) :]:
        panel.set_axis_off()
    for panel, setting in zip(panels, settings, strict=False):
        for strategy in STRATEGIES:
            points = {
                row["coverage"]: row["accuracy"]
                for row in rows
                if row["setting"] == setting and row["strategy"] == strategy
            }
            shown = [c for c in COVERAGES if c in points]
            width = 2.5 if strategy == DEFAULT else 1.2
            panel.plot(shown, [points[c] for c in shown], label=strategy, linewidth=width)
        panel.set(title=setting, xlabel="share labelled, most confident first")
        panel.title.set_fontsize(9)
    for panel in panels[::across]:
        panel.set_ylabel("accuracy")
    panels[0].legend(fontsize=7)
    return figure


def _row(name: str, by: Mapping[tuple[str, str], Mapping[str, Any]]) -> tuple[str, ...]:
    parts = [by[name, segments] for segments in SEGMENTS]
    whole = parts[0]
    gain = "" if name == BASELINE else _interval(whole, "gain", "gain_low", "gain_high", "+.3f")
    scores = [_interval(whole, "macro_f1", "low", "high", ".3f", "sd")]
    scores += [_interval(part, "macro_f1", "", "", ".3f", "sd") for part in parts[1:]]
    return (name, *scores, *(_figure(whole[key]) for key in ("accuracy", "coverage", "ece")), gain)


def _risks(strategy: str, setting: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    points = {
        row["coverage"]: row["accuracy"]
        for row in rows
        if row["setting"] == setting and row["strategy"] == strategy
    }
    return [_figure(points.get(coverage)) for coverage in _RISK_SHOWN]


def _interval(
    row: Mapping[str, Any], mean: str, low: str, high: str, form: str, spread: str = ""
) -> str:
    """`mean ± sd [low, high]`, each part only where it is known; a dash without a mean."""
    if row[mean] is None:
        return "–"
    text = format(row[mean], form)
    if spread and row[spread] is not None:
        text += f" ± {row[spread]:.3f}"
    if low and row[low] is not None:
        text += f" [{row[low]:{form}}, {row[high]:{form}}]"
    return text


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    aligned = ["---", *("---:" for _ in header[1:])]
    return [f"| {' | '.join(row)} |" for row in (header, aligned, *rows)]
