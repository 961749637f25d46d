"""What is measured of a process, and where it may work."""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

VSA = Path(sys.executable).with_name("vsa")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds by the clock, and of this process's processor time."""

    wall: float
    cpu: float


def timed(work: Callable[[], _T]) -> tuple[_T, Spent]:
    """What it gives, and what it takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, Spent(time.perf_counter() - wall, time.process_time() - cpu)


def watched(pid: int) -> Callable[[], int]:
    """Follow a process's resident memory from /proc; the result asks for its peak, MB."""
    peak = 0

    def follow() -> None:
        nonlocal peak
        try:
            while True:
                status = Path(f"/proc/{pid}/status").read_text()
                peak = int(status.split("VmHWM:")[1].split()[0]) // 1000
                time.sleep(0.1)
        except (OSError, IndexError):
            return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()

    def ask() -> int:
        thread.join(5)
        return peak

    return ask


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="vsa-bench-") as name:
        yield Path(name)
