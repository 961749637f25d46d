"""Fusion: a network trained where the models agree labels the segments where they do not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# The `model_id` of labels decided without a network, by the mean of the views' probabilities.
LATE_MEAN = "late-mean"
MODEL_FILE = "model.safetensors"
CARD_FILE = "card.json"


@dataclass(frozen=True, slots=True)
class FusionModel:
    """What decides where the models do not agree.

    Attributes:
        model_id: folder in the store's `models/`, or `LATE_MEAN`.
        card: the model card; None where no network decides.
        reason: why no network decides, one line; None where one does.
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
