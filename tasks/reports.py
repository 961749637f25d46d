"""What a run leaves on Prefect's pages: the only caller of prefect.artifacts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from prefect import task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from tasks.policies import STAGE
from vsa_core.query import ask
from vsa_core.store import Store
from vsa_core.story import of_run

_BAR = 24
_UPDATE_S = 5.0
_SHARES = """
SELECT
  coalesce(v.channel, h.channel_id, '(none)') AS channel,
  count(*) FILTER (h.sentiment = 'negative') AS negative,
  count(*) FILTER (h.sentiment = 'neutral') AS neutral,
  count(*) FILTER (h.sentiment = 'positive') AS positive
FROM label_history AS h JOIN videos AS v USING (video_id)
WHERE h.run_id = $run AND h.sentiment IS NOT NULL
GROUP BY ALL ORDER BY count(*) DESC, channel LIMIT 100
"""
# Prefect keeps an artifact whole in one column: the rest stands in the store.
_ROWS = 1000


class Progress:
    """How far a run is, as a progress artifact that is updated every few seconds.

    Args:
        total: units of work; none makes no artifact.
        what: is done.
    """

    def __init__(self, total: int, what: str = "Videos looked at") -> None:
        self._total = total
        self._what = what
        self._done = 0
        self._told = time.monotonic()
        self._artifact: UUID | None = None

    def advance(self, units: int) -> None:
        """So many units more are done."""
        self._done += units
        if time.monotonic() - self._told >= _UPDATE_S:
            self._tell(100 * self._done / self._total)

    def close(self) -> None:
        """All is done that could be."""
        if self._artifact is not None:
            self._tell(100.0)

    def _tell(self, percent: float) -> None:
        percent = min(100.0, percent)
        self._told = time.monotonic()
        if self._artifact is None:
            made: Any = create_progress_artifact(
                progress=percent, key="vsa-progress", description=self._what
            )
            self._artifact = made
        else:
            update_progress_artifact(artifact_id=self._artifact, progress=percent)


@task(name="report", **STAGE)
def report(summary: Mapping[str, Any], root: str) -> None:
    """A run's story as a table, its sentiments as a chart, and what it could not label.

    Args:
        summary: as `runs.record` returns it.
        root: of the store.
    """
    shares = list(ask(Store(root), _SHARES, {"run": summary["run_id"]}).rows())
    create_table_artifact(
        key="vsa-run",
        table=[
            {"what": heading, "value": line} for heading, lines in of_run(summary) for line in lines
        ],
        description=f"Run {summary['run_id']}: {summary['status']}",
    )
    if shares:
        create_markdown_artifact(
            key="vsa-sentiments",
            markdown=chart(shares),
            description=f"Sentiments by channel, run {summary['run_id']}",
        )
    for key, what in (
        ("failures", "could not be labelled"),
        ("passed_over", "were left alone: private, removed, live, filtered …"),
    ):
        if summary.get(key):
            create_table_artifact(
                key=f"vsa-{key.replace('_', '-')}",
                table=[dict(row) for row in summary[key][:_ROWS]],
                description=f"{len(summary[key])} videos of run {summary['run_id']} {what}",
            )


@task(name="report-table", **STAGE)
def table(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Rows as a table artifact."""
    texts = [{name: str(value) for name, value in row.items()} for row in rows[:_ROWS]]
    create_table_artifact(key=key, table=texts, description=description)


def chart(shares: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table with a bar per channel: ▓ negative, ░ neutral, █ positive."""
    lines = [
        "| channel | segments | negative | neutral | positive | |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for row in shares:
        counts = [row["negative"], row["neutral"], row["positive"]]
        total = sum(counts)
        cells = [f"{n / total:.0%}" if total else "-" for n in counts]
        ends = [round(_BAR * sum(counts[: k + 1]) / total) if total else 0 for k in range(3)]
        widths = [ends[0], ends[1] - ends[0], ends[2] - ends[1]]
        bar = "".join(
            mark * width for mark, width in zip("▓░█", widths, strict=True)
        )  # of one width, so that channels compare
        name = " ".join(str(row["channel"]).replace("|", "¦").split())[:60]
        lines.append(f"| {name} | {total} | {' | '.join(cells)} | `{bar}` |")
    return "\n".join(lines) + "\n\n▓ negative · ░ neutral · █ positive\n"
