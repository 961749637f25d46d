"""Rows as text for people: a table as wide as the terminal, or plain columns for a pipe."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from vsa_core.progress import LISTENER

if TYPE_CHECKING:
    from rich.console import Console

# Control characters could move the cursor, direction overrides could reorder a line: a title or
# a caption is written by strangers.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_GAP = 2
_HEADING = 10  # columns of a heading, with the gap behind it
# Columns cut narrower than this say nothing: then a row is shown as lines of its own.
_MIN_WIDTH = 12
# Columns are as wide as these first rows need, so that `| head` does not wait for the last one.
_MEASURED_ROWS = 1_000


def cell(value: Any) -> str:
    """One line of printable text for any value; empty for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {cell(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(cell(item) for item in value) + "]"
    return " ".join(_UNPRINTABLE.sub(" ", str(value)).split())


def write_table(out: TextIO, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Rows under their column names; long text is cut to fit where `out` is a terminal."""
    rest = iter(rows)
    first = list(itertools.islice(rest, _MEASURED_ROWS))
    numeric = [
        all(isinstance(row[i], (int, float, type(None))) for row in first)
        for i in range(len(columns))
    ]
    texts = [[cell(value) for value in row] for row in first]
    widths = [
        max([_cells(name), *(_cells(row[i]) for row in texts)]) for i, name in enumerate(columns)
    ]
    if out.isatty():
        texts.extend([cell(value) for value in row] for row in rest)
        _write_screen(out, columns, texts, widths, numeric)
        return
    following = ([cell(value) for value in row] for row in rest)
    for line in itertools.chain([columns], texts, following):
        padded = zip(line, widths, numeric, strict=True)
        out.write((" " * _GAP).join(_padded(*column) for column in padded).rstrip() + "\n")


def write_parts(out: TextIO, parts: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Headings with their lines beside them; a terminal's lines are broken between words."""
    width = shutil.get_terminal_size().columns if out.isatty() else None
    for heading, lines in parts:
        for number, line in enumerate(lines):
            first = f"{'' if number else heading:<{_HEADING}}"
            out.write("\n".join(_broken(first + cell(line), width)) + "\n")


def _broken(line: str, width: int | None) -> list[str]:
    """A line in pieces that fit; no word is cut, however long it is."""
    if width is None:
        return [line.rstrip()]
    return textwrap.wrap(
        line,
        max(width, 2 * _HEADING),
        subsequent_indent=" " * (_HEADING + _GAP),
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )


def command(line: str, store: str) -> str:
    """A `vsa` command over a store, as it can be typed."""
    called = Path(sys.argv[0])
    name = str(called) if called.name == "vsa" and shutil.which("vsa") != str(called) else "vsa"
    return f"{name} {line}" + ("" if store == "store" else f" --store {shlex.quote(store)}")


def progress_console() -> Console:
    """Standard error for progress: bars on a terminal, lines elsewhere.

    In a notebook's `!vsa` there is a terminal that shows each redrawn bar below the last one.
    """
    from rich.console import Console

    in_notebook = "JPY_PARENT_PID" in os.environ  # of what a kernel starts
    return Console(stderr=True, soft_wrap=True, force_terminal=False if in_notebook else None)


def write_json(out: TextIO, value: Any) -> None:
    """One JSON object, readable."""
    out.write(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def _padded(text: str, width: int, right: bool) -> str:
    space = " " * (width - _cells(text))
    return space + text if right else text + space


def _cells(text: str) -> int:
    """How wide text stands on a screen."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _write_screen(
    out: TextIO,
    columns: Sequence[str],
    texts: list[list[str]],
    widths: list[int],
    numeric: list[bool],
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=out, highlight=False)
    cap = _cap(widths, console.width - _GAP * len(widths))
    if cap < _MIN_WIDTH and max(widths) > cap:
        name_width = max(len(name) for name in columns)
        for number, row in enumerate(texts, start=1):
            console.rule(str(number), align="left")
            for name, text in zip(columns, row, strict=True):
                line = Text(f"{name:<{name_width}}  {text}")
                console.print(line, no_wrap=True, overflow="ellipsis")
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    for name, width, right in zip(columns, widths, numeric, strict=True):
        table.add_column(
            Text(name),
            width=min(width, cap),
            no_wrap=True,
            overflow="ellipsis",
            justify="right" if right else "left",
        )
    for row in texts:
        table.add_row(*(Text(text) for text in row))
    console.print(table)


def _cap(widths: list[int], available: int) -> int:
    """The largest width to cut columns to so that together they fit; short ones stay whole."""
    cap = max(widths, default=0)
    while cap > 1 and sum(min(width, cap) for width in widths) > available:
        cap -= 1
    return cap


class _Line:
    """Progress of a stage as one line of a terminal, over and over."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._totals: dict[str, int] = {}
        self._done: dict[str, float] = {}

    def begin(self, stage: str, total: int) -> None:
        """So many items of a stage are to be done."""
        self._totals[stage] = self._totals.get(stage, 0) + total

    def advance(self, stage: str, items: float) -> None:
        """So many more are done; a stage that did not begin is part of another's item."""
        if stage in self._totals:
            done = self._done[stage] = self._done.get(stage, 0.0) + items
            self._out.write(f"\r{f'{stage}: {done:.0f} of {self._totals[stage]}':<60}")
            self._out.flush()


@contextmanager
def progress_line(out: TextIO) -> Iterator[None]:
    """Progress on a terminal; nothing elsewhere."""
    if not out.isatty():
        yield
        return
    token = LISTENER.set(_Line(out))
    try:
        yield
    finally:
        LISTENER.reset(token)
        out.write("\r" + " " * 60 + "\r")
