"""Pictures of an assessment: confusion, reliability, and risk against coverage."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from vsa_core.assess.target import TargetAssessment

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 120
# Colours that people with any colour vision tell apart (Okabe & Ito 2008).
_COLOURS = ("#0072B2", "#D55E00")
_GREY = "#666666"


def pictures(target: str, abouts: Mapping[str, TargetAssessment]) -> dict[str, bytes]:
    """PNG files by name: `<target>-confusion`, `-reliability`, `-risk-coverage`.

    The last two only where there are confidences. The same figures give the same bytes.

    Args:
        target: sentiment or emotion.
        abouts: by name what is drawn; confusion and reliability are of the first.
    """
    import matplotlib as mpl

    first = next(iter(abouts.values()))
    # A class or a file may be called $x^2$.
    with mpl.rc_context({"text.parse_math": False, "font.size": 10}):
        drawn = {"confusion": _confusion(target, first)}
        if first.bins:
            drawn["reliability"] = _reliability(target, first)
        if first.curve is not None:
            drawn["risk-coverage"] = _risk_coverage(target, abouts)
        return {f"{target}-{name}": _png(figure) for name, figure in drawn.items()}


def _sheet(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    sheet = Figure(figsize=(width, height), layout="constrained")
    ax = sheet.subplots()
    ax.spines[["top", "right"]].set_visible(False)
    return sheet, ax


def _png(figure: Figure) -> bytes:
    held = io.BytesIO()
    # The file would name matplotlib's version.
    figure.savefig(held, format="png", dpi=_DPI, metadata={"Software": None})
    return held.getvalue()


def _confusion(target: str, about: TargetAssessment) -> Figure:
    counts = np.array(about.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    k = len(about.classes)
    sheet, ax = _sheet(2.6 + 0.95 * (k + 1), 1.6 + 0.7 * k)
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        ax.text(
            column,
            row,
            f"{count}\n{shares[row, column]:.0%}" if counts[row].any() else "–",
            ha="center",
            va="center",
            fontsize=9,
            color="white" if shares[row, column] > 0.7 else "black",
        )
    ax.axvline(k - 0.5, color="white", linewidth=4)
    said = [*about.classes, "abstained"]
    ax.set_xticks(range(k + 1), said, rotation=30, ha="right", rotation_mode="anchor")
    names = [f"{c.name} ({c.support})" for c in about.by_class]
    ax.set_yticks(range(k), names)
    ax.set_xlabel(f"{target} decided")
    ax.set_ylabel("truth (rows)")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    bar = sheet.colorbar(image, ax=ax, shrink=0.9)
    bar.set_label("share of the rows of that truth")
    bar.outline.set_visible(False)
    return sheet


def _reliability(target: str, about: TargetAssessment) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    sheet = Figure(figsize=(5.6, 6.6), layout="constrained")
    upper, lower = sheet.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    width = about.bins[0].high - about.bins[0].low
    told = np.array(
        [
            (b.low + width / 2, b.confidence, b.accuracy)
            for b in about.bins
            if b.confidence is not None and b.accuracy is not None
        ]
    )
    middle, confidence, accuracy = told.T
    upper.plot([0, 1], [0, 1], "--", color=_GREY, linewidth=1, label="as right as confident")
    upper.bar(
        middle, accuracy, width * 0.92, color=_COLOURS[0], alpha=0.35, label="accuracy of the bin"
    )
    upper.plot(
        confidence, accuracy, "o", color=_COLOURS[0], label="accuracy, at the mean confidence"
    )
    upper.set_xlim(0, 1)
    upper.set_ylim(0, 1.02)
    upper.set_ylabel("accuracy of the decided rows")
    upper.set_title(f"ECE {about.ece:.3f}", fontsize=11)
    upper.legend(loc="upper left", frameon=False, fontsize=9)
    rows = [b.rows for b in about.bins]
    lower.bar([b.low + width / 2 for b in about.bins], rows, width * 0.92, color=_GREY)
    lower.set_xlabel(f"confidence of the {target}")
    lower.set_ylabel("rows")
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    for ax in (upper, lower):
        ax.spines[["top", "right"]].set_visible(False)
    return sheet


def _risk_coverage(target: str, abouts: Mapping[str, TargetAssessment]) -> Figure:
    sheet, ax = _sheet(6.4, 4.6)
    top = 0.0
    for (name, about), colour in zip(abouts.items(), _COLOURS, strict=False):
        if about.curve is None:
            continue
        coverage, risk = about.curve.coverage, about.curve.risk
        ax.plot(
            coverage,
            risk,
            color=colour,
            marker="." if len(coverage) < 30 else None,
            label=f"{name} (AURC {about.aurc:.3f})",
        )
        for k in about.kept:
            if k.coverage is not None and k.accuracy is not None:
                ax.plot(k.coverage, 1 - k.accuracy, "o", color=colour, markersize=5)
        top = max(top, float(risk.max()))
    ax.set_xlim(0, 1.02)
    ax.set_ylim(0, max(top * 1.1, 0.05))
    ax.set_xlabel("coverage: share of all rows that is kept, the most confident first")
    ax.set_ylabel(f"risk: share of the kept\nthat has a wrong {target}")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize=9)
    return sheet
