"""A file that is put in place whole or not at all, flushed to the disk before"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A temporary file beside `path` that takes its place if all goes well, and is gone if not.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def put_whole(path: Path, content: bytes) -> None:
    """Write a file as `whole_file` does.

    Raises:
        OSError: it cannot be written.
    """
    with whole_file(path) as file:
        file.write(content)


def flush(path: Path) -> None:
    """Bring a file that was closed, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
