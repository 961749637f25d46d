"""Fusion: what several models say of a segment becomes one label, without a labelled example."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# Who decides where there is nothing to learn from, and whom a learned model has to beat.
LATE_FUSION = "late-product"


@dataclass(frozen=True, slots=True)
class FusionModel:
    """What decides the labels of a run.

    Attributes:
        model_id: folder in the store's `models/`, or the name of a strategy that learns nothing.
        card: the model card; None for such a strategy.
        reason: why late fusion decides though the strategy was to learn, one line; None where
            the strategy of the settings decides.
    """

    model_id: str
    card: dict[str, Any] | None
    reason: str | None


_torch_threads = threading.Lock()


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread, one caller at a time, and put its setting back afterwards.

    Sums then have one order whatever the machine, so the same inputs give the same labels; the
    matrices are too small to gain from more. The setting is the process's, hence the lock.
    """
    import torch

    with _torch_threads:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)
