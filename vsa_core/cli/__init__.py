"""The `vsa` command: dispatch, exit codes, and one line for whatever goes wrong."""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from vsa_core.cli.arguments import parser
from vsa_core.cli.exits import Exit
from vsa_core.errors import ConfigError, SourceError, UsageError, VsaError, meant
from vsa_core.surroundings import settle

if TYPE_CHECKING:
    from vsa_core.store import Store

OK, FAILED, SOME_FAILED = Exit.OK, Exit.FAILED, Exit.SOME_FAILED


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: the arguments; None takes those of the process.

    Raises:
        SystemExit: after --help and --version.
    """
    _open_streams()
    settle()
    code: int
    try:
        args = parser().parse_args(argv)
        code = importlib.import_module(f"{__name__}.{args.verb}").run(args)
    except SystemExit:  # --help and --version; rich's, when nobody reads
        if (why := _unwritten()) is None:
            raise
        code = _of_the_output(why)
    except KeyboardInterrupt:
        code = _said("interrupted", Exit.INTERRUPTED)
    except (UsageError, ConfigError, SourceError) as error:
        code = _said(str(error), Exit.BAD_USAGE)
    except VsaError as error:
        code = _said(str(error), FAILED)
    except OSError as error:
        if (why := _unwritten()) is not None:
            return _of_the_output(why)
        code = _said(_of_the_system(error), FAILED)
    except Exception as error:  # noqa: BLE001 - nobody is shown a traceback unasked
        what = " ".join(f"{type(error).__name__}: {error}".split())
        code = _said(f"unexpected {what} (set VSA_DEBUG=1 for the traceback)", FAILED)
    if code in (OK, SOME_FAILED) and (why := _unwritten()) is not None:
        return _of_the_output(why)
    return code


def _of_the_output(why: OSError) -> int:
    if isinstance(why, BrokenPipeError):  # `| head` has read enough
        return Exit.PIPE_CLOSED
    return _said(f"the output cannot be written: {why.strerror}", FAILED)


class _Stream(io.FileIO):
    """Standard output or error, which remembers that it could not be written.

    Standard error then goes nowhere: a message that nobody can hear ends no run.
    """

    failed: OSError | None = None

    def write(self, data: Any) -> int:
        """Write; on standard error, or be silent."""
        try:
            return super().write(data)
        except OSError as error:
            self.failed = error
            if self.fileno() == 2:
                return len(data)
            raise


def _open_streams() -> None:
    """Streams that show any name, and that are there even where the caller closed them.

    A number that is free would become that of the next file opened, and what is printed would go
    into it: a closed stream is one that cannot be written.
    """
    for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        if stream is None:
            _occupy(number)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = _stream(1, sys.stdout), _stream(2, sys.stderr)


def _stream(number: int, stream: Any) -> TextIO:
    """The stream of that number; one that somebody put in its place stays."""
    if stream is None or stream in (sys.__stdout__, sys.__stderr__):
        encoding = stream.encoding if stream is not None else "utf-8"
        raw = io.BufferedWriter(_Stream(number, "w", closefd=False))
        buffered = number == 1 and not raw.isatty()
        stream = io.TextIOWrapper(raw, encoding=encoding, line_buffering=not buffered)
    if isinstance(stream, io.TextIOWrapper):  # a file's name need not be valid text
        stream.reconfigure(errors="backslashreplace")
    return stream


def _occupy(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        opened = os.open(os.devnull, os.O_RDONLY)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)


def _unwritten() -> OSError | None:
    """Why standard output could not be written; it is out of the way afterwards."""
    failed = None
    try:
        sys.stdout.flush()
    except OSError as error:
        failed = error
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, _Stream):
        failed = raw.failed
    if failed is not None:  # what is still buffered must not raise again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return failed


def _of_the_system(error: OSError) -> str:
    """One line about a file or folder that the system refuses, and where to put it instead."""
    from vsa_core.folders import cache_dir

    where = f"{error.filename}: " if error.filename else ""
    line = f"{where}{error.strerror or error}"
    if str(error.filename).startswith(str(cache_dir())):
        return f"{line}: set VSA_CACHE_DIR to a folder with room that can be written"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{line}: free some, or set TMPDIR and VSA_CACHE_DIR to folders with room"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{line}: choose another place, or see to its permissions"
    return f"{line} (set VSA_DEBUG=1 for the traceback)"


def there(*paths: Path | str) -> None:
    """See that what was named is there, before anything is begun.

    Raises:
        UsageError: one of them is not.
    """
    for path in paths:
        if not os.path.lexists(path):
            raise UsageError(f"{str(path)!r} does not exist{_beside(Path(path))}")


def _beside(path: Path) -> str:
    """A hint at what lies in the same folder under a similar name."""
    try:
        return meant(str(path), map(str, path.parent.iterdir()))
    except (OSError, ValueError):  # no such folder, or no name
        return ""


def opened_store(root: str) -> Store:
    """The store in a folder.

    Raises:
        UsageError: there is none yet.
        StoreError: it cannot be opened.
    """
    from vsa_core.store import Store

    store = Store(root)
    if not store.exists:
        raise UsageError(f"no store at {root}: run `vsa run SOURCE --store {root}` first")
    return store


def _said(message: str, code: int) -> int:
    """The exit code, after one line on stderr."""
    if os.environ.get("VSA_DEBUG"):
        import traceback

        traceback.print_exc()
    sys.stderr.write(f"vsa: {message}\n")
    return code
