"""`vsa models`: list, fetch, check and find weight files, and take in some of your own."""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsa_core.cli import FAILED, OK, there
from vsa_core.cli.screen import progress_console, write_json, write_table
from vsa_core.errors import BackendError, UsageError

if TYPE_CHECKING:
    from vsa_core.config import Settings
    from vsa_core.weights import Found
    from vsa_core.weights.catalogue import Weights
    from vsa_core.weights.fetch import Progress as Pulled

# Of a commit and of a SHA-256 the table shows so many digits; --json has all.
_DIGITS = 8
# What matters most comes first: a narrow window leaves out the last.
_COLUMNS = ("name", "state", "size", "for", "licence", "from", "revision", "sha256", "source")
_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def run(args: argparse.Namespace) -> int:
    """Carry out the chosen action."""
    if args.action == "fusion":
        from vsa_core.cli import fusion_models

        return fusion_models.run(args)
    if args.action == "list":
        return _list(args)
    if args.action == "pull":
        return _pull(args)
    if args.action == "add":
        return _add(args.name, Path(args.path), args.trust)
    if args.action == "remove":
        return _remove(args.names)
    return _path(args.name)


def _list(args: argparse.Namespace) -> int:
    from vsa_core.config import load_config
    from vsa_core.folders import cache_dir
    from vsa_core.weights import look, needed
    from vsa_core.weights.catalogue import WEIGHTS
    from vsa_core.weights.hashes import Remembered

    asked = args.profile or args.config
    listed = needed(load_config(args.config, args.profile)) if asked else list(WEIGHTS.values())
    hashed = Remembered(cache_dir() / "verified.json", afresh=args.verify)
    found = [(weights, look(weights, hashed)) for weights in listed]
    hashed.save()
    if args.json:
        write_json(sys.stdout, [_described(weights, there) for weights, there in found])
        return OK
    rows = [
        (
            weights.name,
            there.state,
            _size(_size_bytes(weights, there)),
            weights.purpose,
            weights.licence or "not stated",
            weights.package or "vsa models pull",
            (weights.revision or "-")[:_DIGITS],
            (_main_hash(weights, there) or "-")[:_DIGITS],
            weights.source.removeprefix("https://"),
        )
        for weights, there in found
    ]
    shown = len(_COLUMNS)
    if sys.stdout.isatty():
        shown = _fitting(rows, shutil.get_terminal_size().columns)
    write_table(sys.stdout, _COLUMNS[:shown], [row[:shown] for row in rows])
    if shown < len(_COLUMNS):
        more = ", ".join(_COLUMNS[shown:])
        sys.stderr.write(f"a wider window also shows: {more}; --json shows all\n")
    return OK


def _fitting(rows: Sequence[Sequence[str]], width: int) -> int:
    """How many of the columns fit into so many characters, two of them between any two."""
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    ends = itertools.accumulate(w + 2 for w in widths)
    return max(2, sum(end - 2 <= width for end in ends))


def _described(weights: Weights, there: Found) -> dict[str, Any]:
    files = {file.path: (file.size_bytes, file.sha256) for file in weights.files}
    if there.path is not None and weights.repository is not None:
        for name, sha256 in there.files.items():
            path = there.path / name
            files[name or path.name] = (path.stat().st_size, sha256)
    return {
        "name": weights.name,
        "state": there.state,
        "purpose": weights.purpose,
        "licence": weights.licence,
        "size_bytes": _size_bytes(weights, there),
        "revision": weights.revision,
        "sha256": _main_hash(weights, there),
        "files": [
            {"path": path, "size_bytes": size, "sha256": sha256}
            for path, (size, sha256) in sorted(files.items())
        ],
        "source": weights.source,
        "url": weights.url,
        "repository": weights.repository,
        "package": weights.package,
        "pull": None if weights.package else f"vsa models pull {weights.name}",
        "needed_by": list(weights.needed_by),
        "path": None if there.path is None else str(there.path),
        "problem": there.problem or None,
    }


def _size_bytes(weights: Weights, there: Found) -> int | None:
    """What it takes, or will take as far as its sources say."""
    if there.files and there.path is not None and weights.package is None:
        return sum((there.path / name).stat().st_size for name in there.files)
    known = [file.size_bytes for file in weights.files if file.size_bytes]
    return weights.size_bytes or sum(known) or None


def _main_hash(weights: Weights, there: Found) -> str | None:
    """The SHA-256 of the file, or of a checkpoint's largest: that with the weights."""
    if weights.package is not None:
        return weights.sha256
    if there.files and there.path is not None:
        folder = there.path
        return there.files[max(there.files, key=lambda name: (folder / name).stat().st_size)]
    largest = max(weights.files, key=lambda file: file.size_bytes or 0, default=None)
    return weights.sha256 or (largest.sha256 if largest else None)


def _size(size_bytes: int | None) -> str:
    if size_bytes is None:
        return "-"
    for unit, name in _UNITS:
        if size_bytes >= unit:
            return f"{size_bytes / unit:.1f} {name}"
    return f"{size_bytes} B"


def _path(name: str) -> int:
    from vsa_core.weights import known, look

    found = look(known(name))
    if found.path is not None:
        sys.stdout.write(f"{found.path}\n")
    if found.problem:
        sys.stderr.write(f"vsa: {found.problem}\n")
        return FAILED
    return OK


def _pull(args: argparse.Namespace) -> int:
    from vsa_core.config import load_config
    from vsa_core.weights import ALTERED, MISSING, known, look, needed

    if args.names and (args.profile or args.config):
        raise UsageError("give names, or a profile or configuration, to `vsa models pull`")
    if args.names:
        wanted = [known(name) for name in dict.fromkeys(args.names)]
    else:
        settings = load_config(args.config, args.profile)
        wanted = [w for w in needed(settings) if look(w).state in (MISSING, ALTERED)]
        if not wanted:
            what = args.config or f"the profile {settings.profile}"
            sys.stdout.write(f"{what} has all it needs\n")
    return max([OK, *(_pull_one(weights) for weights in wanted)])


def _pull_one(weights: Weights) -> int:
    """Fetch one; what goes wrong with it is said, and leaves the others to be fetched."""
    from vsa_core.weights import PRESENT, state

    if weights.package is not None and state(weights) == PRESENT:
        sys.stdout.write(f"{weights.name}: installed with the package {weights.package}\n")
        return OK
    try:
        path = _pulled(weights)
    except BackendError as error:
        sys.stderr.write(f"vsa: {error}\n")
        return FAILED
    sys.stdout.write(f"{weights.name}: {path}\n")
    return OK


def pull_missing(settings: Settings) -> None:
    """Fetch what a configuration's models lack, with a bar; the first that cannot be is the end.

    Raises:
        BackendError: something is missing and cannot be fetched; it says where to put it by hand.
    """
    from vsa_core.folders import cache_dir
    from vsa_core.weights import ALTERED, MISSING, look, needed
    from vsa_core.weights.hashes import Remembered

    hashed = Remembered(cache_dir() / "verified.json", afresh=False)
    lacking = [
        weights
        for weights in needed(settings)
        if weights.package is None and look(weights, hashed).state in (MISSING, ALTERED)
    ]
    for weights in lacking:
        try:
            _pulled(weights)
        except BackendError as error:
            others = ", ".join(other.name for other in lacking)
            raise BackendError(
                f"{error} (the profile {settings.profile} lacks {others}; --offline goes on "
                "without fetching)"
            ) from error


def _pulled(weights: Weights) -> Path:
    """Fetch one, with a bar on a terminal and a line per file elsewhere; errors as `pull`."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from vsa_core.weights.fetch import pull

    console = progress_console()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(weights.name, total=None)

        def told(progress: Pulled) -> None:
            bar.update(task, completed=progress.held_bytes, total=progress.total_bytes)
            if progress.done and not console.is_terminal:
                share = f"{_size(progress.held_bytes)} of {_size(progress.total_bytes)}"
                sys.stderr.write(f"{weights.name}: {progress.path}, {share}\n")

        return pull(weights, told)


def _add(name: str, source: Path, trust: bool) -> int:
    from vsa_core.weights import known, own_place
    from vsa_core.weights.keep import add

    weights = known(name)
    there(source)
    path = add(weights, source, trust)
    whose = " (your own)" if path == own_place(weights) else ""
    sys.stdout.write(f"{name}: {path}{whose}\n")
    return OK


def _remove(names: list[str]) -> int:
    from vsa_core.weights import known
    from vsa_core.weights.keep import remove

    for weights in [known(name) for name in dict.fromkeys(names)]:
        sys.stdout.write(f"{weights.name}: {_size(remove(weights))} freed\n")
    return OK
