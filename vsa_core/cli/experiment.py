"""`vsa experiment`: a study run again from its seeds, with tables, figures and a summary."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsa_core.cli import OK, there
from vsa_core.cli.screen import write_json
from vsa_core.progress import LISTENER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsa_core.experiments.study import Outcome

# The others take a folder of data.
_MODULES = {"tf-mvsa": "paper", "digits": "digits", "mosi": "mosi", "crema-d": "crema_d"}
_AT_HAND = ("tf-mvsa", "digits")
_SHOWN_EVERY_S = 10.0


def run(args: argparse.Namespace) -> int:
    """Run the experiment, write what it found, and print the summary."""
    if args.data is not None:
        there(args.data)
    from vsa_core.experiments.study import prepare, write

    out: Path = args.out or Path("experiments") / args.name
    prepare(out)
    with _telling():
        outcome = _outcome(args)
    files = write(outcome, out)
    if args.json:
        write_json(sys.stdout, _summary(args, outcome, files))
    else:
        sys.stdout.write(outcome.summary)
        sys.stderr.write(f"wrote {', '.join(map(str, files))}\n")
    return OK


def _outcome(args: argparse.Namespace) -> Outcome:
    module = importlib.import_module(f"vsa_core.experiments.{_MODULES[args.name]}")
    seeds = range(args.seeds)
    outcome: Outcome = (
        module.run(seeds) if args.name in _AT_HAND else module.run(_data(args), seeds)
    )
    return outcome


def _data(args: argparse.Namespace) -> Path:
    """Folder of the data sets: as given, else where the shared data are."""
    if args.data is not None:
        given: Path = args.data
        return given
    return Path(os.environ.get("VSA_SHARED") or "../shared") / "data"


def _summary(args: argparse.Namespace, outcome: Outcome, files: list[Path]) -> dict[str, Any]:
    return {
        "experiment": args.name,
        "seeds": args.seeds,
        "files": [str(path) for path in files],
        **{name: table.to_pylist() for name, table in outcome.tables.items()},
    }


class _Telling:
    """A line on stderr: over and over on a terminal, elsewhere now and then."""

    def __init__(self) -> None:
        self._since = self._told = time.monotonic()
        self._total, self._done = 0, 0.0

    def begin(self, _stage: str, total: int) -> None:
        self._total += total
        self._show()

    def advance(self, _stage: str, items: float) -> None:
        self._done += items
        now = time.monotonic()
        if sys.stderr.isatty() or now - self._told >= _SHOWN_EVERY_S:
            self._told = now
            self._show()

    def _show(self) -> None:
        seconds = time.monotonic() - self._since
        line = f"{self._done:.0f} of {self._total} done, {seconds:.0f} s"
        if self._done:
            line += f", {seconds * (self._total / self._done - 1):.0f} s to go"
        sys.stderr.write(f"\r\x1b[K{line}" if sys.stderr.isatty() else f"{line}\n")
        sys.stderr.flush()


@contextmanager
def _telling() -> Iterator[None]:
    token = LISTENER.set(_Telling())
    try:
        yield
    finally:
        LISTENER.reset(token)
        if sys.stderr.isatty():
            sys.stderr.write("\n")
