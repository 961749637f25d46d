"""Score labels against what people said."""

from __future__ import annotations

from typing import Any

from prefect import task

from tasks.policies import STAGE
from vsa_core.assess import assess_files
from vsa_core.assess.contents import headline


@task(name="evaluate", **STAGE)
def evaluated(
    root: str, truth: str | None, run_id: str | None
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The assessment of a store's labels, and its headline as rows."""
    found = assess_files(root, truth or root, run_id=run_id)
    shown = headline(found)
    rows = [dict(zip(shown.columns[:-1], row[:-1], strict=True)) for row in shown.rows]
    return found.as_dict(), rows
