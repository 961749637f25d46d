"""Videos in files and folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from vsa_core.errors import SourceError


def videos_in(source: Path, extensions: Sequence[str]) -> Iterator[tuple[Path, str | None]]:
    """(absolute path, problem or None) of a file, or of every video below a folder, in order.

    A file named outright is taken whatever it is called; in a folder the extension decides, and
    hidden files and unfinished downloads (`.part`) are passed over. Links to folders are followed.
    A folder that cannot be listed is one problem.

    Raises:
        SourceError: nothing is there, or the folder holds no video.
    """
    source = Path(os.path.abspath(source))  # noqa: PTH100 - keeps symbolic links as named
    if not source.is_dir():
        if not source.exists() and not source.is_symlink():
            raise SourceError(f"{str(source)!r} does not exist: give a video, a folder or a URL")
        yield source, None
        return
    problems: list[OSError] = []
    wanted = {extension.lower() for extension in extensions}
    count = 0
    for folder, files in _folders(source, problems):
        for name in sorted(files):
            if Path(name).suffix.lower() in wanted and not name.startswith("."):
                count += 1
                yield Path(folder, name), None
    for problem in problems:
        yield (
            Path(problem.filename or source),
            f"folder {problem.filename} cannot be read: {problem.strerror}: check its permissions",
        )
    if not count and not problems:
        raise SourceError(
            f"folder {str(source)!r} holds no video (looked for {' '.join(sorted(wanted))})"
        )


def _folders(source: Path, problems: list[OSError]) -> Iterator[tuple[str, list[str]]]:
    """Every folder below one and its files' names, in order; those behind links come last.

    Each real folder once, so that a file has the same path whatever else leads to it, and loops
    end. A link to what holds the source itself is not followed.
    """
    above = set(source.resolve().parents)
    seen: set[Path] = set()
    waiting = [source]
    while waiting:
        for folder, folders, files in os.walk(waiting.pop(0), onerror=problems.append):
            real = Path(os.path.realpath(folder))
            if real in seen or real in above:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            waiting += [path for name in folders if (path := Path(folder, name)).is_symlink()]
            yield folder, files
