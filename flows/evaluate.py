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
    """Score a store's labels against truth, always with its coverage.

    Args:
        store: Folder or s3:// address of the tables.
        truth: CSV or Parquet file of segment_id and sentiment or emotion; null for the store's
            reviews, of which those count that the labels did not learn from.
        run_id: The run whose labels are scored; null for the current ones.

    Returns:
        As `vsa_core.scoring.score`.

    Raises:
        UsageError: no such file or run, or nothing in it that was labelled.
        StoreError: a table does not read.
    """
    tables = opened(store)
    found = evaluated(tables.location, truth, run_id)
    table("vsa-evaluation", found["rows"], found["title"])
    return found
