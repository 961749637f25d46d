"""A run in which no video has anything to do: the flow without a Prefect server."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch  # puts a method in place for a while, and back whatever happens

from flows.server import at_home


@contextmanager
def plainly() -> Iterator[None]:
    """Flows and tasks are called as the functions they are; there are no pages to report on."""
    with tempfile.TemporaryDirectory(prefix="vsa-prefect-") as home, at_home(Path(home)):
        from prefect import Flow, Task

        from tasks import reports

        def call(it: Flow[..., Any] | Task[..., Any], *args: Any, **kwargs: Any) -> Any:
            if it.fn.__module__ == reports.__name__:
                return None
            return it.fn(*args, **kwargs)

        with patch.object(Flow, "__call__", call), patch.object(Task, "__call__", call):
            yield
