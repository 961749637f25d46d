"""Embeddings too large to hold: in a scratch file, which a pass reads as they are."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from vsa_core.errors import UsageError

_BLOCK = 4096  # rows, as in `Held`: spooled or held, the same sums come out


@dataclass(frozen=True, slots=True)
class Spooled:
    """Embeddings in a scratch file without a name, which is gone when nobody reads it any more.

    Attributes:
        rows: (e,) which of the n segments have one, ascending.
        slots: (e,) where in the file their vectors are, ascending.
        width: d.
        file: of float32 vectors.
    """

    rows: NDArray[np.intp]
    slots: NDArray[np.intp]
    width: int
    file: IO[bytes]

    def blocks(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """As `Embedding` says.

        Raises:
            UsageError: the scratch file cannot be read.
        """
        for start in range(0, len(self.rows), _BLOCK):
            slots = self.slots[start : start + _BLOCK]
            first, count = int(slots[0]), int(slots[-1] - slots[0]) + 1
            vectors = np.empty((count, self.width), np.float32)
            # Not mapped, for mapped pages count as this process's memory.
            try:
                read = os.preadv(self.file.fileno(), [vectors.data], first * vectors.strides[0])
            except OSError as error:
                raise UsageError(f"{_what()} cannot be read: {error.strerror}") from error
            if read < vectors.nbytes:
                raise UsageError(f"{_what()} cannot be read: it is cut off")
            rows = self.rows[start : start + _BLOCK]
            yield rows, vectors if count == len(slots) else vectors[slots - first]


class Spool:
    """Takes one view's vectors, in any order.

    Args:
        length: how many there may be.
        width: d.

    Raises:
        UsageError: no scratch file can be made.
    """

    def __init__(self, length: int, width: int) -> None:
        self._width = width
        try:
            self._file = tempfile.TemporaryFile(prefix="vsa-")  # noqa: SIM115 - closed with its reader
            os.truncate(self._file.fileno(), 4 * length * width)
        except OSError as error:
            raise UsageError(f"{_what()} cannot be made: {error.strerror}") from error

    def put(self, slots: NDArray[np.intp], vectors: NDArray[np.float32]) -> None:
        """Write vectors (b, d) to their slots (b,).

        Raises:
            UsageError: the disk is full.
        """
        order = np.argsort(slots, kind="stable")
        slots, vectors = slots[order], vectors[order]
        starts = np.flatnonzero(np.diff(slots, prepend=-2) != 1)
        for start, stop in zip(starts, [*starts[1:], len(slots)], strict=True):
            part = vectors[start:stop]
            try:
                written = os.pwrite(
                    self._file.fileno(), part.data, int(slots[start]) * part.strides[0]
                )
            except OSError as error:
                raise UsageError(f"{_what()} cannot be written: {error.strerror}") from error
            if written < part.nbytes:
                raise UsageError(f"{_what()} cannot be written: the disk is full")

    def kept(self, rows: NDArray[np.intp], slots: NDArray[np.intp]) -> Spooled:
        """The embeddings of some segments (e,), whose vectors are in these slots (e,)."""
        return Spooled(rows, slots, self._width, self._file)


def check_room(size: int) -> None:
    """Before hours of work: whether scratch files of that many bytes find room.

    Raises:
        UsageError: they do not.
    """
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < size:
        raise UsageError(
            f"{_what()} needs {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: set TMPDIR to a "
            "folder on a disk with room"
        )


def _what() -> str:
    return f"{tempfile.gettempdir()}: the scratch file of the embeddings"
