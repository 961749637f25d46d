"""`vsa models`: list, fetch and find weight files."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from vsa_core.cli import FAILED, OK
from vsa_core.cli.screen import write_json, write_table

if TYPE_CHECKING:
    from vsa_core.backends.weights import Weights


def run(args: argparse.Namespace) -> int:
    """Carry out the chosen action."""
    if args.action == "list":
        return _list(args.json)
    if args.action == "path":
        return _path(args.name)
    return _pull(args.names)


def _list(as_json: bool) -> int:
    from vsa_core.backends.weights import WEIGHTS, location, state

    if as_json:
        found = [
            {
                "name": weights.name,
                "state": state(weights),
                "purpose": weights.purpose,
                "licence": weights.licence,
                "size_bytes": weights.size_bytes,
                "sha256": weights.sha256,
                "source": weights.source,
                "package": weights.package,
                "path": None if (path := location(weights)) is None else str(path),
            }
            for weights in WEIGHTS.values()
        ]
        write_json(sys.stdout, found)
        return OK
    rows = [
        (
            weights.name,
            state(weights),
            weights.purpose,
            weights.licence,
            f"{weights.size_bytes / 1e6:.1f} MB" if weights.size_bytes else None,
            weights.sha256[:12] if weights.sha256 else None,
            weights.package or f"vsa models pull {weights.name}",
        )
        for weights in WEIGHTS.values()
    ]
    columns = ("name", "state", "purpose", "licence", "size", "sha256", "comes with")
    write_table(sys.stdout, columns, rows)
    return OK


def _path(name: str) -> int:
    from vsa_core.backends.weights import find, known, location
    from vsa_core.errors import BackendError

    try:
        path = find(name)
    except BackendError as error:
        if (expected := location(known(name))) is not None:
            sys.stdout.write(f"{expected}\n")
        sys.stderr.write(f"vsa: {error}\n")
        return FAILED
    sys.stdout.write(f"{path}\n")
    return OK


def _pull(names: list[str]) -> int:
    from vsa_core.backends.weights import known, needed, state
    from vsa_core.config import load_config

    if names:
        wanted = [known(name) for name in dict.fromkeys(names)]
    else:
        settings = load_config()
        wanted = [weights for weights in needed(settings) if state(weights) != "present"]
        if not wanted:
            sys.stdout.write(f"the profile {settings.profile} has all it needs\n")
    return max([OK, *(_pull_one(weights) for weights in wanted)])


def _pull_one(weights: Weights) -> int:
    from vsa_core.backends.weights import pull, remedy, state

    if weights.package is not None:
        if state(weights) == "present":
            sys.stdout.write(f"{weights.name}: installed with the package {weights.package}\n")
            return OK
        sys.stderr.write(f"vsa: {weights.name} comes with a package: {remedy(weights)}\n")
        return FAILED

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(weights.name, total=weights.size_bytes)
        path = pull(weights, lambda held: bar.update(task, completed=held))
        bar.update(task, completed=weights.size_bytes)
    sys.stdout.write(f"{weights.name}: {path}\n")
    return OK
