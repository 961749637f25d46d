"""Ctrl-C and SIGTERM during a run: acknowledged at once, and what is done is kept."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import TracebackType
from typing import Any, NoReturn, Self

from vsa_core.cli.exits import Exit

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Threads in the middle of a video have nothing to lose; a cluster's workers take a while to end.
_GRACE_S = 30.0


class Stop:
    """Whether a person, or the system, asked a run to stop; the process ends with the block then.

    The first signal is acknowledged and raises KeyboardInterrupt in the main thread, the second
    ends the process. The exit code is that of a shell: 128 and the signal.

    Args:
        store: where the run's work is kept, for the message.
    """

    def __init__(self, store: str) -> None:
        self.asked = 0
        self._store = store
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.asked and kind is not None:
            sys.stdout.flush()
            os._exit(128 + self.asked)

    def listen(self) -> None:
        """Hear the signals, also where a library has taken them for itself meanwhile.

        One that is ignored, as Ctrl-C is in the background, stays so.
        """
        if threading.current_thread() is not threading.main_thread() or self.asked:
            return
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, self._hear):
                self._before.setdefault(number, handler)
                signal.signal(number, self._hear)

    def tell(self, line: str) -> None:
        """What is being done, at once."""
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def fail(self, line: str) -> NoReturn:
        """Say why the run cannot go on, and end the process from whatever thread this is.

        Prefect would talk for minutes to a server that is not there.
        """
        self.tell(f"vsa: {line}")
        sys.stdout.flush()
        os._exit(Exit.FAILED)

    def _hear(self, number: int, _frame: Any) -> None:
        if self.asked:
            os._exit(128 + number)
        self.asked = number
        # Not through sys.stderr, in the middle of whose use this may be.
        os.write(
            2,
            f"\nInterrupted. Stopping … What is done is kept in {self._store}; the same command "
            "goes on from there. Ctrl-C again ends at once.\n".encode(errors="backslashreplace"),
        )
        ending = threading.Timer(_GRACE_S, os._exit, (128 + number,))
        ending.daemon = True
        ending.start()
        raise KeyboardInterrupt
