"""The `vsa` command: dispatch, exit codes, and one line for whatever goes wrong."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vsa_core.cli.arguments import parser
from vsa_core.errors import ConfigError, StoreError, UsageError, VsaError

if TYPE_CHECKING:
    from vsa_core.store import Store

OK, FAILED, BAD_USAGE, SOME_FAILED = 0, 1, 2, 3
_INTERRUPTED, _PIPE_CLOSED = 130, 141  # 128 + SIGINT and 128 + SIGPIPE, as a shell has it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: the arguments; None takes those of the process.

    Raises:
        SystemExit: after --help and --version.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name need not be valid text
            stream.reconfigure(errors="backslashreplace")
    try:
        args = parser().parse_args(argv)
        code: int = importlib.import_module(f"{__name__}.{args.verb}").run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # `| head` has read enough; what is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except KeyboardInterrupt:
        return _said("interrupted", _INTERRUPTED)
    except (UsageError, ConfigError) as error:
        return _said(str(error), BAD_USAGE)
    except VsaError as error:
        return _said(str(error), FAILED)
    except Exception as error:  # noqa: BLE001 - nobody is shown a traceback unasked
        what = " ".join(f"{type(error).__name__}: {error}".split())
        return _said(f"unexpected {what} (set VSA_DEBUG=1 for the traceback)", FAILED)
    return code


def opened_store(root: str) -> Store:
    """The store in a folder.

    Raises:
        StoreError: there is none yet.
    """
    from vsa_core.store import Store

    store = Store(root)
    if not store.exists:
        raise StoreError(f"no store at {root}: run `vsa run SOURCE --store {root}` first")
    return store


def _said(message: str, code: int) -> int:
    """The exit code, after one line on stderr."""
    if os.environ.get("VSA_DEBUG"):
        import traceback

        traceback.print_exc()
    sys.stderr.write(f"vsa: {message}\n")
    return code
