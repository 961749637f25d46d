"""Score labels against what people said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task

from tasks.policies import STAGE
from vsa_core.scoring import score
from vsa_core.store import Store


@task(name="evaluate", **STAGE)
def evaluated(root: str, truth: str | None, run_id: str | None) -> dict[str, Any]:
    """The scores of a store's labels."""
    return score(Store(root), Path(truth) if truth else None, run_id)
