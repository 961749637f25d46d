"""Keep a store quick to read after a run."""

from __future__ import annotations

from prefect import task

from tasks.policies import STAGE
from vsa_core.store import Store

# So many one-video files of a table before they are worth joining.
_MIN_FILES = 64


@task(name="compact", **STAGE)
def tidy(root: str) -> None:
    """Sweep, and join small files where there are many; readers and other runs go on meanwhile."""
    store = Store(root)
    store.sweep()
    store.compact(min_files=_MIN_FILES)
