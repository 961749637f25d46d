"""Processes that decode media, so that a file that breaks FFmpeg costs itself and not the run"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsa_core.errors import MediaError

# What decoding one file may take: some twenty pictures of the largest size that is allowed, which
# is what refers to one another at most. More is a bomb.
MEMORY_BYTES = 2_000_000_000
# Processor time for one question, and more for each second of media: software decodes 8K a tenth as
# fast as it plays.
CPU_S = 120.0
_CPU_PER_S = 20.0
_UNKNOWN_LENGTH_S = 600.0

# A process that idles ends itself after a minute; one that might be about to is not asked any more.
_IDLE_S = 30.0
_PIPE_BYTES = 1 << 20  # holds a frame or a block of sound, so that the next is decoded meanwhile
_HEADER_BYTES, _DATA_BYTES = 1 << 20, 1 << 30
_STOP_S = 2.0

# Nothing is reserved for threads; and what one picture took is kept for the next.
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "50000000",
    "MALLOC_TRIM_THRESHOLD_": "100000000",
}
_START = (
    "import sys; sys.path[:] = sys.argv[3:]; "
    "from vsa_core.decoding import serve; serve(int(sys.argv[1]), int(sys.argv[2]))"
)

Message = tuple[dict[str, Any], NDArray[np.uint8]]
Answer = Generator[Message, None, dict[str, Any]]


def ask(path: Path, length_ms: int | None, operation: str, **arguments: Any) -> Answer:
    """Ask a process of its own about a file.

    Args:
        path: the file.
        length_ms: of the media, for how long decoding may take; None where it is not known.
        operation: of `decoding`.
        arguments: of that operation, the path left out.

    Yields:
        A header and the bytes it speaks of.

    Returns:
        How the answer ended.

    Raises:
        MediaError: the file cannot be opened or decoded; or decoding it ended the process, or took
            more memory or time than is allowed.
    """
    length_s = _UNKNOWN_LENGTH_S if length_ms is None else length_ms / 1000
    # An absolute path, so that a colon in a name is not taken for a protocol.
    absolute = os.path.abspath(path)  # noqa: PTH100 - links as named
    cpu_s = CPU_S + _CPU_PER_S * length_s
    decoder = _POOL.take()
    try:
        return (yield from decoder.answer(operation, absolute, cpu_s, arguments))
    finally:
        _POOL.give_back(decoder)


class _Decoder:
    """One process, which answers one question at a time."""

    def __init__(self) -> None:
        self.memory_bytes = MEMORY_BYTES
        # A fresh interpreter, since what forks while threads run may never move again; it finds
        # packages where this one does.
        paths = [str(Path(__file__).parent.parent), *map(os.path.abspath, sys.path)]
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", _START, str(os.getpid()), str(MEMORY_BYTES), *paths],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,  # what it says when it does not start; silent from then on
            env=os.environ | _ENVIRONMENT,
            process_group=0,  # Ctrl-C is for the run, which then lets go of this
        )
        assert self._process.stdin
        assert self._process.stdout
        self._ask, self._hear = self._process.stdin, self._process.stdout
        self._answering = False
        self._idle_since = time.monotonic()
        with contextlib.suppress(ImportError, AttributeError, OSError):
            import fcntl

            fcntl.fcntl(self._hear, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def answer(self, operation: str, path: str, cpu_s: float, arguments: dict[str, Any]) -> Answer:
        """See `ask`."""
        self._answering = True
        try:
            self._send({"op": operation, "path": path, "cpu_s": cpu_s, **arguments})
            while True:
                header, data = self._message()
                if header.get("end"):
                    break
                yield header, data
        except (EOFError, BrokenPipeError):
            raise MediaError(f"{shown(path)}: {self._last_words(cpu_s)}") from None
        self._answering = False
        if "error" in header:
            raise MediaError(header["error"])
        if header.get("out_of_memory"):
            self._answering = True  # it ends itself
            raise MediaError(f"{shown(path)}: {self._too_large()}")
        if "failed" in header:
            raise MediaError(f"{shown(path)} cannot be decoded: {header['failed']}")
        return header

    def usable(self) -> bool:
        """Whether it can be asked something."""
        return (
            not self._answering
            and self._process.poll() is None
            and self.memory_bytes == MEMORY_BYTES
            and time.monotonic() - self._idle_since < _IDLE_S
        )

    def settle(self) -> None:
        """End an answer of which nobody wants the rest."""
        if self._answering and self._process.poll() is None:
            deadline = time.monotonic() + _STOP_S
            with contextlib.suppress(EOFError, BrokenPipeError, TimeoutError):
                self._send({"op": "stop"})
                while self._answering:
                    self._answering = not self._message(deadline)[0].get("end")
        self._idle_since = time.monotonic()

    def end(self) -> None:
        """End the process and wait for that."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._ask, self._hear, self._process.stderr):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()

    def forget(self) -> None:
        """Let go of it in a process that was forked, whose it is not."""
        self._process.returncode = 0  # so that nobody waits for it
        for pipe in (self._ask, self._hear, self._process.stderr):
            if pipe:
                pipe.close()

    def _send(self, request: dict[str, Any]) -> None:
        line = memoryview(json.dumps(request).encode() + b"\n")
        while line:
            line = line[self._ask.write(line) :]

    def _message(self, deadline: float | None = None) -> Message:
        (length,) = struct.unpack("<I", self._read(4, 4, deadline).tobytes())
        header = json.loads(self._read(length, _HEADER_BYTES, deadline).tobytes())
        return header, self._read(header["bytes"], _DATA_BYTES, deadline)

    def _read(self, size: int, most: int, deadline: float | None) -> NDArray[np.uint8]:
        """Raises EOFError where the process ended, or says what it never would."""
        if not 0 <= size <= most:
            raise EOFError
        data = np.empty(size, np.uint8)
        rest = data.data
        while rest:
            if deadline is not None:
                left = max(0.0, deadline - time.monotonic())
                if not select.select([self._hear], [], [], left)[0]:
                    raise TimeoutError
            read = self._hear.readinto(rest)  # type: ignore[attr-defined]
            if not read:
                raise EOFError
            rest = rest[read:]
        return data

    def _last_words(self, cpu_s: float) -> str:
        """Why the process ended."""
        try:
            status = self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:  # it talks nonsense
            return "decoding was ended, since it went wrong: fetch or export it again"
        if status < 0:
            with contextlib.suppress(ValueError):
                name = signal.Signals(-status).name
                if name == "SIGXCPU":
                    return f"decoding took more than {cpu_s:.0f} s: export it again"
                return f"decoding was ended by {name}: fetch or export it again"
        assert self._process.stderr
        said = self._process.stderr.read().decode(errors="replace").strip().splitlines()
        return (
            f"decoding ended with exit status {status}: {said[-1] if said else 'it said nothing'}"
        )

    def _too_large(self) -> str:
        return (
            f"decoding ran out of its memory limit ({self.memory_bytes / 1e9:g} GB): "
            "fetch it again, or export it smaller"
        )


class _Pool:
    """Processes that idle, for whoever asks next; each costs some 0.2 s to start."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._idle: list[_Decoder] = []

    def take(self) -> _Decoder:
        with self._turn:
            unusable = [decoder for decoder in self._idle if not decoder.usable()]
            self._idle = [decoder for decoder in self._idle if decoder not in unusable]
            found = self._idle.pop() if self._idle else None
        for decoder in unusable:
            decoder.end()
        return found or _Decoder()

    def give_back(self, decoder: _Decoder) -> None:
        decoder.settle()
        with self._turn:
            if decoder.usable() and len(self._idle) < (os.cpu_count() or 1):
                self._idle.append(decoder)
                return
        decoder.end()

    def close(self) -> None:
        """End those that idle."""
        with self._turn:
            idle, self._idle = self._idle, []
        for decoder in idle:
            decoder.end()

    def forget(self) -> None:
        """In a process that was forked: those that idle are its parent's."""
        self._turn = threading.Lock()
        for decoder in self._idle:
            decoder.forget()
        self._idle = []


# One for the process: whoever decodes, in whichever thread, shares those that idle.
_POOL = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_POOL.forget)


@atexit.register
def close() -> None:
    """End the processes that idle; those that are asked something end with their answer."""
    _POOL.close()


def shown(path: str | Path) -> str:
    """A path on one line, whatever is in its name."""
    return repr(str(path)) if not str(path).isprintable() else str(path)
