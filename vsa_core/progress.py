"""How a stage tells how far it is, and hears that it should stop.

A context variable carries the listener, so that a stage need not know whether a progress bar, a
Prefect artifact or nobody listens; threads started with a copied context inherit it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol


class Interrupted(BaseException):
    """Raised inside a stage after the person who started the run asked it to stop."""


class Listener(Protocol):
    """Who wants to know."""

    def begin(self, stage: str, total: int) -> None:
        """A stage has `total` more items to do."""

    def advance(self, stage: str, items: float) -> None:
        """So many items more (or a part of one) are done; raises Interrupted to stop the stage."""


# None: nobody listens.
LISTENER: ContextVar[Listener | None] = ContextVar("vsa_progress", default=None)


def begin(stage: str, total: int) -> None:
    """Announce `total` more items of a stage."""
    listener = LISTENER.get()
    if listener is not None:
        listener.begin(stage, total)


def advance(stage: str, items: float) -> None:
    """Report items, or a part of one, as done; a place where a run can be interrupted."""
    listener = LISTENER.get()
    if listener is not None:
        listener.advance(stage, items)


class Steps:
    """The share done of one item of a stage, told in steps that add up to exactly one item.

    Args:
        stage: whose item it is.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._done = 0.0

    def reach(self, share: float) -> None:
        """So much of the item (0 to 1) is done now."""
        share = min(1.0, max(self._done, share))
        advance(self._stage, share - self._done)
        self._done = share

    def undo(self) -> None:
        """Nothing of the item is done after all: it is done again."""
        advance(self._stage, -self._done)
        self._done = 0.0
