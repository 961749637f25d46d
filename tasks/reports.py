"""What a run leaves on Prefect's pages: the only caller of prefect.artifacts."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.artifacts import create_table_artifact

from tasks.policies import STAGE


@task(name="report", **STAGE)
def report(summary: dict[str, Any]) -> None:
    """A run's counts as a table artifact, and its failures as another."""
    flat = {key: value for key, value in summary.items() if key not in ("failures", "origins")}
    flat |= {f"labelled by {origin}": count for origin, count in summary["origins"].items()}
    create_table_artifact(
        key="vsa-run",
        table=[{"what": key, "value": str(value)} for key, value in flat.items()],
        description=f"Run {summary['run_id']}",
    )
    if summary["failures"]:
        create_table_artifact(
            key="vsa-failures",
            table=summary["failures"],
            description=f"Videos of run {summary['run_id']} that could not be labelled",
        )
