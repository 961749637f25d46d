"""`vsa run`: label sources, with a bar per stage and a summary at the end."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from vsa_core.cli.models import pull_missing
from vsa_core.cli.screen import cell, command, write_parts
from vsa_core.config import Settings, load_config
from vsa_core.errors import SourceError, UsageError
from vsa_core.progress import LISTENER, Interrupted
from vsa_core.runs import RunFailedError, backend_ids
from vsa_core.story import next_steps, of_run

_STAGES = {
    "find": "Finding videos",
    "fetch": "Fetching videos",
    "ingest": "Opening videos",
    "transcribe": "Captions and speech",
    "segment": "Utterances",
    "face": "Faces",
    "text": "Text",
    "audio": "Audio",
    "train": "Learning to fuse",
    "label": "Labelling",
}
_SHOWN = 20  # addresses that are left alone; --json has all
INTERRUPTED = 130
SOME_FAILED = 3


class _Bars:
    """A progress bar per stage on a terminal; a line per finished stage elsewhere."""

    def __init__(self, console: Console) -> None:
        self.stop = threading.Event()
        self._lock = threading.Lock()
        self._console = console
        self._totals: dict[str, int] = {}
        self._done: dict[str, float] = {}
        self._since: dict[str, float] = {}
        self._bars: dict[str, TaskID] = {}
        self.progress = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def begin(self, stage: str, total: int) -> None:
        with self._lock:
            self._totals[stage] = self._totals.get(stage, 0) + total
            self._done.setdefault(stage, 0.0)
            self._since.setdefault(stage, time.monotonic())
            if stage not in self._bars:
                self._bars[stage] = self.progress.add_task(_STAGES.get(stage, stage), total=total)
            self.progress.update(self._bars[stage], total=self._totals[stage])

    def advance(self, stage: str, items: float) -> None:
        if self.stop.is_set():
            raise Interrupted
        with self._lock:
            if stage not in self._totals:
                return
            before, total = self._done[stage], self._totals[stage]
            self._done[stage] = before + items
            self.progress.update(self._bars[stage], completed=round(before + items, 3))
            if before < total - 1e-6 <= before + items and not self._console.is_terminal:
                seconds = time.monotonic() - self._since[stage]
                self._console.print(
                    f"{_STAGES.get(stage, stage)}: {total} done in {seconds:.1f} s", highlight=False
                )


def run(args: Namespace) -> int:
    """Carry out `vsa run`; returns the exit code."""
    # A wrong setting is told before anything starts.
    settings = load_config(args.config, args.profile)
    if not args.offline:
        pull_missing(settings)
    return carry_out(args, settings, _label)


def _label(args: Namespace) -> dict[str, Any]:
    from flows.label import label_sources

    summary: dict[str, Any] = label_sources(
        sources=args.sources,
        store=args.store,
        profile=args.profile,
        config=str(args.config) if args.config else None,
        limit=args.limit,
    )
    return summary


def carry_out(
    args: Namespace, settings: Settings, start: Callable[[Namespace], dict[str, Any]]
) -> int:
    """Run a flow that labels, with a bar per stage and a summary at the end.

    Args:
        args: of the command; `store` and `json` count here.
        settings: whose models are needed.
        start: runs the flow in this process and returns its summary.

    Returns:
        The exit code.
    """
    console = Console(stderr=True, soft_wrap=True)
    bars = _Bars(console)
    # Ctrl-C must reach the stages, which run in other threads, before Prefect sees it.
    previous = signal.getsignal(signal.SIGINT)

    def interrupt(_number: int, _frame: Any) -> None:
        bars.stop.set()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    token = LISTENER.set(bars)
    try:
        with _prefect(settings), bars.progress:
            summary = start(args)
        code = SOME_FAILED if any(kind["asked"] for kind in summary["left_out"]) else 0
    except RunFailedError as error:
        summary, code = error.summary, 1
    except SourceError as error:  # what was asked for is not there
        raise UsageError(str(error)) from error
    except KeyboardInterrupt:
        _interrupted(console, args)
    except Exception:
        if not bars.stop.is_set():
            raise
        _interrupted(console, args)  # Ctrl-C, of which some library made another error
    finally:
        LISTENER.reset(token)
        signal.signal(signal.SIGINT, previous)
    if not args.json:
        _show(summary, args, sys.stdout)
    else:
        sys.stdout.write(json.dumps(summary, ensure_ascii=False) + "\n")
        for what, style, left in (
            ("left alone", "", summary["passed_over"][:_SHOWN]),
            ("failed", "red", summary["failures"]),
        ):
            for one in left:
                where = "" if one["path"] in one["reason"] else f"{one['path']}: "
                line = cell(f"{what}: {where}{one['reason']}")
                console.print(line, style=style, markup=False, highlight=False)
    if code == 1:
        console.print(f"vsa: {RunFailedError(summary)}", style="red", markup=False, highlight=False)
    return code


@contextmanager
def _prefect(settings: Settings) -> Iterator[None]:
    """A server of our own for flows of this process, or the one the user set."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_TO_API_ENABLED", "false")
    os.environ.setdefault("PREFECT_CLI_COLORS", "false")
    from flows.server import starting_server

    with starting_server() as server:
        from prefect.settings import PREFECT_API_URL, temporary_settings

        logging.getLogger("prefect").setLevel(logging.CRITICAL)
        backend_ids(settings)  # loads the models while the server starts
        if server is None:
            yield
            return
        address = server.wait()
        os.environ["PREFECT_API_URL"] = address  # for worker processes
        try:
            with temporary_settings({PREFECT_API_URL: address}):
                yield
        finally:
            del os.environ["PREFECT_API_URL"]


def _interrupted(console: Console, args: Namespace) -> None:
    """Say how to go on, and end at once: threads in the middle of a video have nothing to lose."""
    console.print(
        f"\nInterrupted. What is done is kept in {args.store}; the same command goes on from there."
    )
    sys.stdout.flush()
    os._exit(INTERRUPTED)


def _show(summary: dict[str, Any], args: Namespace, out: TextIO) -> None:
    """What a person needs first, then how it came about."""
    out.write(f"Run {summary['run_id']}: {summary['status']}\n")
    write_parts(out, of_run(summary))
    out.write("\nWhere to look next:\n")
    for line in [*next_steps(summary), "status"]:
        out.write(f"  {command(line, args.store)}\n")
