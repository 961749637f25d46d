"""`vsa meld`: check a downloaded MELD, and put it into a store beside what the pipeline labels"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from vsa_core.cli import OK
from vsa_core.cli.screen import cell, progress_line, write_json, write_table
from vsa_core.errors import UsageError

if TYPE_CHECKING:
    from vsa_core.supervised.meld import Problem

_SHOWN = 20


def run(args: argparse.Namespace) -> int:
    """Check MELD, store it, and say what is there and what is wrong."""
    from vsa_core.config import load_config
    from vsa_core.store import Store
    from vsa_core.supervised.meld import read_meld
    from vsa_core.supervised.stored import store_meld, write_truth

    if args.truth:
        _make_place(args.truth)  # before the clips are read, which takes a while
    settings = load_config(args.config, args.profile)
    store = Store(args.store)
    with progress_line(sys.stderr):
        meld = read_meld(args.folder, args.split)
        problems = [*meld.problems, *store_meld(meld, settings, store)]
    truth = None
    if args.truth:
        labelled = write_truth(store, args.truth, tuple(meld.utterances))
        truth = {"file": str(args.truth), "segments": labelled}
    if args.json:
        said = [{"split": p.split, "name": p.name, "what": p.what} for p in problems]
        found = {"folder": str(args.folder), "store": store.location, "splits": meld.counts}
        write_json(sys.stdout, {**found, "problems": said, "truth": truth})
        return OK
    _show(meld.counts, problems, truth, store.location, sys.stdout)
    return OK


def _make_place(truth: Path) -> None:
    """Make the folder that the truth's file goes into, if it is not there.

    Raises:
        UsageError: it cannot be made, or the file's ending says no format.
    """
    from vsa_core.table_files import check_table_file

    try:
        truth.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"{truth} cannot be written: {reason}: choose another") from error
    check_table_file(truth, "--truth")


def _show(
    counts: Mapping[str, Mapping[str, int]],
    problems: Sequence[Problem],
    truth: Mapping[str, Any] | None,
    location: str,
    out: TextIO,
) -> None:
    rows = [(s, c["utterances"], c["known"], c["with_clip"]) for s, c in counts.items()]
    write_table(out, ("split", "utterances", "published", "with a clip"), rows)
    if problems:
        out.write("\n")
    for problem in problems[:_SHOWN]:
        out.write(f"{cell(str(problem))}\n")
    if len(problems) > _SHOWN:
        out.write(f"and {len(problems) - _SHOWN} more: --json lists all\n")
    if truth:
        out.write(f"\nTruth of {truth['segments']} segments: {truth['file']}\n")
    out.write(f"\nStore: {location}\n")
