"""How right labels are, for people: what keeping only the sure ones comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from vsa_core.cli.screen import write_table


def write_levels(out: TextIO, levels: Sequence[Mapping[str, Any]]) -> None:
    """Rows of `by_confidence`; columns nothing is known of are left out."""
    columns = ["confidence", "coverage"]
    columns += ["expected"] if any(row["expected"] is not None for row in levels) else []
    columns += ["reviewed", "reviews"] if any(row["reviews"] for row in levels) else []
    heads = {"confidence": "confidence from", "expected": "expected right",
             "reviewed": "reviewed right"}  # fmt: skip
    write_table(
        out,
        [heads.get(name, name) for name in columns],
        [[_figure(row, name) for name in columns] for row in levels],
    )


def _figure(row: Mapping[str, Any], name: str) -> Any:
    value = row[name]
    if value is None:
        return "-"
    return (
        f"{value:.1f}"
        if name == "confidence"
        else (value if isinstance(value, int) else f"{value:.3f}")
    )
