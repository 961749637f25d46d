"""The exit codes of every verb, and what each means"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """How a command ended, as a shell hears it."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Exit:
        """A code with its meaning."""
        made = int.__new__(cls, code)
        made._value_ = code
        made.meaning = meaning
        return made

    OK = 0, "all was done"
    FAILED = 1, "it failed, or a check found something wrong"
    BAD_USAGE = 2, "what was typed, or a file it names, is wrong or not there; nothing was begun"
    SOME_FAILED = 3, "done, but for some of it"
    INTERRUPTED = 130, "stopped by Ctrl-C"
    PIPE_CLOSED = 141, "whoever read the output left"
    TERMINATED = 143, "stopped by SIGTERM"
