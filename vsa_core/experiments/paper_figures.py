"""The figures of the TF-MVSA experiment: box plots, the parabola, the regimes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vsa_core.experiments.paper_summary import ERRORS, HYBRID, LATE, STUDY, TRUST, Scores
from vsa_core.experiments.study import BEST_SINGLE, RANDOM, SUPERVISED

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that people with any colour vision tell apart (Okabe & Ito 2008), and a shape each.
_LOOKS = {
    RANDOM: ("random guess", "#999999", "x"),
    "text": ("text alone", "#56B4E9", "v"),
    "face": ("face alone", "#E69F00", "^"),
    BEST_SINGLE: ("best single view", "#E69F00", "^"),
    LATE: ("late fusion (product)", "#0072B2", "s"),
    HYBRID: ("TF-MVSA hybrid", "#D55E00", "D"),
    "crossview": ("cross-view", "#009E73", "o"),
    "crossview-attention": ("cross-view + attention", "#CC79A7", "P"),
    SUPERVISED: ("supervised (true labels)", "#000000", "_"),
}
_KINDS = {
    "inside": "errors inside the embedding\n(the paper)",
    "random": "errors independent\nof the embedding",
    "flat": "the same, and confidence\ntells nothing of them",
}
_PART_NAMES = {"all": "all segments", "disagreeing": "segments whose views disagree"}
_SHIFT = 0.14  # between the strategies of one regime, in rows


def figures(table: pa.Table) -> dict[str, Figure]:
    """`models` (Fig 2a), `trust` (Fig 2b) and `regimes`."""
    return {
        "models": _models(Scores(table, ERRORS)),
        "trust": _trust(Scores(table, TRUST)),
        "regimes": _regimes(Scores(table, STUDY)),
    }


def _shown(scores: Scores, left_out: tuple[str, ...]) -> list[str]:
    return [name for name in _LOOKS if name in scores.strategies and name not in left_out]


def _sheet(columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    sheet = Figure(figsize=(width, height), layout="constrained")
    axes = sheet.subplots(1, columns, sharey=True, squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return sheet, list(axes)


def _models(scores: Scores) -> Figure:
    names = _shown(scores, (BEST_SINGLE,))
    sheet, axes = _sheet(len(_KINDS), 12, 4.8)
    for ax, (kind, title) in zip(axes, _KINDS.items(), strict=True):
        settings = [name for name, at in scores.settings.items() if at["errors"] == kind]
        values = [np.concatenate([scores.of(s, name) for s in settings]) for name in names]
        boxes = ax.boxplot(
            values,
            patch_artist=True,
            widths=0.6,
            medianprops={"color": "black", "linewidth": 1.6},
            flierprops={"marker": ".", "markersize": 4},
        )
        for box, name in zip(boxes["boxes"], names, strict=True):
            box.set_facecolor(_LOOKS[name][1] if name != SUPERVISED else "white")
        ax.set_xticks(
            range(1, len(names) + 1),
            [_LOOKS[name][0] for name in names],
            rotation=35,
            ha="right",
            rotation_mode="anchor",
        )
        ax.set_title(title, fontsize=11)
        ax.set_ylim(0, 1)
        ax.grid(axis="y", alpha=0.3)
    axes[0].set_ylabel("macro-F1, all segments")
    return sheet


def _trust(scores: Scores) -> Figure:
    names = _shown(scores, (BEST_SINGLE,))
    sheet, [ax] = _sheet(1, 8.5, 4.8)
    p = np.array([at["p"] for at in scores.settings.values()])
    for name in names:
        per_seed = [scores.of(setting, name) for setting in scores.settings]
        mean = np.array([values.mean() for values in per_seed])
        spread = np.array([_sd(values) for values in per_seed])
        label, colour, marker = _LOOKS[name]
        dashed = "--" if name in (SUPERVISED, RANDOM) else "-"
        ax.plot(p, mean, dashed, color=colour, marker=marker, markersize=6, label=label)
        ax.fill_between(p, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
    ax.set_xlabel("p: how often the face model is right (the text model: 1 − p)")
    ax.set_ylabel("macro-F1, all segments (mean ± sd over seeds)")
    ax.set_ylim(0, 1)
    ax.set_xticks(p)
    ax.grid(alpha=0.3)
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return sheet


def _regimes(scores: Scores) -> Figure:
    names = _shown(scores, (RANDOM, "text", "face"))
    settings = list(scores.settings)
    sheet, axes = _sheet(2, 11, 1.2 + 0.55 * len(settings))
    rows = np.arange(len(settings))
    for ax, (segments, title) in zip(axes, _PART_NAMES.items(), strict=True):
        for row in rows[::2]:
            ax.axhspan(row - 0.5, row + 0.5, color="black", alpha=0.04, linewidth=0)
        for position, name in enumerate(names):
            per_seed = [scores.of(setting, name, segments) for setting in settings]
            label, colour, marker = _LOOKS[name]
            ax.errorbar(
                [values.mean() for values in per_seed],
                rows + _SHIFT * (position - (len(names) - 1) / 2),
                xerr=[_sd(values) for values in per_seed],
                **_point(colour, marker if name != SUPERVISED else "|"),
                label=label,
            )
        ax.set_title(title, fontsize=11)
        ax.set_xlabel("macro-F1 (mean ± sd over seeds)")
        ax.grid(axis="x", alpha=0.3)
        ax.set_xlim(0.3, 1)
    axes[0].set_yticks(rows, settings)
    axes[0].set_ylim(len(settings) - 0.5, -0.5)
    handles, labels = axes[0].get_legend_handles_labels()
    sheet.legend(
        handles, labels, loc="outside lower center", ncols=(len(names) + 1) // 2, frameon=False
    )
    return sheet


def _point(colour: str, marker: str) -> dict[str, Any]:
    return {
        "fmt": marker,
        "color": colour,
        "markersize": 6 if marker != "|" else 9,
        "markeredgewidth": 2 if marker == "|" else 1,
        "elinewidth": 1,
    }


def _sd(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
