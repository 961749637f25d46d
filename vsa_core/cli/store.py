"""`vsa store`: check a store, and join its small files."""

from __future__ import annotations

import argparse
import sys

from vsa_core.cli import FAILED, OK, opened_store
from vsa_core.verify import verify


def run(args: argparse.Namespace) -> int:
    """Carry out the chosen action."""
    store = opened_store(args.store)
    if args.action == "compact":
        for table, (before, after) in store.compact().items():
            sys.stdout.write(f"{table}: {before} files → {after}\n")
        return OK
    problems = verify(store)
    for problem in problems:
        sys.stdout.write(f"{problem}\n")
    if problems:
        sys.stderr.write(f"vsa: {len(problems)} problems in {args.store}\n")
        return FAILED
    sys.stdout.write(f"{args.store}: no problems\n")
    return OK
