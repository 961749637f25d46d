"""`vsa store`: check a store, and join its small files."""

from __future__ import annotations

import argparse
import sys

from vsa_core.cli import FAILED, OK, opened_store
from vsa_core.cli.screen import write_json
from vsa_core.schemas import TABLES
from vsa_core.store import Store
from vsa_core.verify import verify


def run(args: argparse.Namespace) -> int:
    """Carry out the chosen action."""
    store = opened_store(args.store)
    if args.action == "compact":
        for table, (before, after) in store.compact().items():
            sys.stdout.write(f"{table}: {before} files → {after}\n")
        return OK
    if args.action == "migrate":
        return _migrate(store, args.json)
    problems = verify(store, repair=args.repair)
    for problem in problems:
        sys.stdout.write(f"{problem}\n")
    if problems:
        sys.stderr.write(f"vsa: {len(problems)} problems in {args.store}\n")
        return FAILED
    sys.stdout.write(f"{args.store}: no problems\n")
    return OK


def _migrate(store: Store, as_json: bool) -> int:
    from vsa_core.migrate import made_anew, migrate

    migrated = migrate(store)
    again = made_anew(migrated)
    if as_json:
        write_json(sys.stdout, {"store": store.location, "migrated": migrated, "made_anew": again})
        return OK
    for table, tags in migrated.items():
        sys.stdout.write(f"{', '.join(tags)} → {TABLES[table].tag}\n")
        if table in again:
            sys.stdout.write(f"  {again[table]}\n")
    if not migrated:
        sys.stdout.write(f"{store.location}: nothing to migrate\n")
    return OK
