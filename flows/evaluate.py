"""Score labels against what people said."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.opening import opened
from tasks.evaluate import evaluated
from tasks.reports import table


@flow(name="evaluate")
def evaluate(
    store: str = "store", truth: str | None = None, run_id: str | None = None
) -> dict[str, Any]:
    """Score a store's labels against truth, as `vsa evaluate` does.

    Args:
        store: Folder or s3:// address of the tables.
        truth: A table (CSV, JSON or Parquet) of segment_id and sentiment or emotion; null for the
            store's reviews, of which those count that the labels did not learn from.
        run_id: The run whose labels are scored; null for the current ones.

    Returns:
        As `vsa evaluate --json`.

    Raises:
        UsageError: no such file or run, or nothing in it that was labelled.
        StoreError: a table does not read.
    """
    found, rows = evaluated(opened(store).location, truth, run_id)
    whose = f"labels of run {run_id}" if run_id else "current labels"
    table("vsa-evaluation", rows, f"{whose} against {found['truth']}")
    return found
