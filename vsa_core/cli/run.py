"""`vsa run`: label sources, with a bar per stage and a summary at the end."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
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

from vsa_core.cli import FAILED, OK, SOME_FAILED, there
from vsa_core.cli.models import pull_missing
from vsa_core.cli.screen import cell, command, progress_console, write_parts
from vsa_core.cli.stopping import Stop
from vsa_core.config import Settings, load_config
from vsa_core.errors import VsaError
from vsa_core.progress import LISTENER, Interrupted
from vsa_core.surroundings import is_loopback, without_odd_proxies

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
_REACH_S = 10.0
_DRAIN_S = 2.0
# Prefect's own machinery has nothing to say on a person's screen.
_QUIET = {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_CLI_COLORS": "false",
}


class _Bars:
    """A progress bar per stage on a terminal; a line per finished stage elsewhere."""

    def __init__(self, console: Console, stop: Stop) -> None:
        self._stop = stop
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
        self._stop.listen()  # again: Prefect takes SIGTERM for itself when a flow begins
        with self._lock:
            self._totals[stage] = self._totals.get(stage, 0) + total
            self._done.setdefault(stage, 0.0)
            self._since.setdefault(stage, time.monotonic())
            if stage not in self._bars:
                self._bars[stage] = self.progress.add_task(_STAGES.get(stage, stage), total=total)
            self.progress.update(self._bars[stage], total=self._totals[stage])

    def advance(self, stage: str, items: float) -> None:
        if self._stop.asked:
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
    # What is wrong with the command is told before anything starts.
    settings = load_config(args.config, args.profile)
    there(*(source for source in args.sources if "://" not in source))
    with Stop(args.store) as stop:
        stop.tell("Starting …")
        from flows.opening import opened

        opened(args.store)
        if not args.offline:
            pull_missing(settings)
        return carry_out(args, settings, _label, stop, idle=_is_idle(args, settings))


def _is_idle(args: Namespace, settings: Settings) -> bool:
    """Whether nothing is to do; a server of the user's is told of the run all the same."""
    if os.environ.get("PREFECT_API_URL"):
        return False
    from vsa_core.standing import is_idle
    from vsa_core.store import Store

    return is_idle(args.sources, settings, Store(args.store), args.limit)


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
    args: Namespace,
    settings: Settings,
    start: Callable[[Namespace], dict[str, Any]],
    stop: Stop,
    *,
    idle: bool = False,
) -> int:
    """Run a flow that labels, with a bar per stage and a summary at the end.

    Args:
        args: of the command; `store` and `json` count here.
        settings: whose models are needed.
        start: runs the flow in this process and returns its summary.
        stop: hears Ctrl-C, which must reach the stages, which run in other threads.
        idle: nothing is to do, so that no Prefect server is needed.

    Returns:
        The exit code.
    """
    from vsa_core.runs import RunFailedError

    console = progress_console()
    bars = _Bars(console, stop)
    token = LISTENER.set(bars)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        with _plainly() if idle else _prefect(settings, stop), bars.progress:
            summary = start(args)
        code = SOME_FAILED if any(kind["asked"] for kind in summary["left_out"]) else OK
    except RunFailedError as error:
        summary, code = error.summary, FAILED
    except (Exception, Interrupted):
        if not stop.asked:
            raise
        raise KeyboardInterrupt from None  # of which some library made another error
    finally:
        LISTENER.reset(token)
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
    if code == FAILED:
        console.print(f"vsa: {RunFailedError(summary)}", style="red", markup=False, highlight=False)
    return code


def _plainly() -> AbstractContextManager[None]:
    from flows.idle import plainly

    return plainly()


@contextmanager
def _prefect(settings: Settings, stop: Stop) -> Iterator[None]:
    """A server of our own for flows of this process, or the one the user set.

    Raises:
        VsaError: it does not start, cannot be reached, or goes away.
    """
    from flows.server import starting_server

    with ExitStack() as held:
        server = held.enter_context(starting_server())
        users = os.environ.get("PREFECT_API_URL", "")
        if server is not None or is_loopback(users):
            held.enter_context(without_odd_proxies())
        if server is None:
            _reach(users)
        what = "Loading the models"
        stop.tell(f"{what} …" if server is None else f"{what} and starting Prefect …")
        # While the server starts: both take a second or two.
        from prefect.settings import PREFECT_API_URL, temporary_settings

        from vsa_core.runs import backend_ids

        backend_ids(settings)
        if server is not None:
            os.environ["PREFECT_API_URL"] = server.wait(lost=stop.fail)  # for workers, too
            held.callback(os.environ.pop, "PREFECT_API_URL")
            held.callback(_drained, stop)
        held.enter_context(temporary_settings({PREFECT_API_URL: os.environ["PREFECT_API_URL"]}))
        try:
            yield
        except Exception as error:
            if stop.asked or not _is_unreachable(error):
                raise
            stop.fail(
                f"{_away(users)}: what is done is kept, and the same command goes on from there"
            )


def _drained(stop: Stop) -> None:
    """Let Prefect tell its server what is left, which at exit it would try for minutes in vain."""
    from prefect.events.worker import EventsWorker

    if not stop.asked:
        EventsWorker.drain_all(timeout=_DRAIN_S)


def _reach(url: str) -> None:
    """Find out whether a server answers.

    Raises:
        VsaError: none does.
    """
    try:
        from prefect import get_client

        with get_client(sync_client=True, httpx_settings={"timeout": _REACH_S}) as client:
            error = client.api_healthcheck()
    except (ImportError, ValueError) as wrong:  # what httpx says of a proxy it cannot use
        raise VsaError(
            f"Prefect cannot be reached through the proxy of the environment: {wrong}"
        ) from wrong
    if error is not None and _is_unreachable(error):
        raise VsaError(_away(url)) from error


def _is_unreachable(error: BaseException | None) -> bool:
    import httpx

    while error is not None:
        if isinstance(error, httpx.TransportError) or "Failed to reach API" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _away(url: str) -> str:
    return (
        f"the Prefect server at {url} (PREFECT_API_URL) does not answer: start it (`prefect server "
        "start`), or unset PREFECT_API_URL for a server of the run's own"
    )


def _show(summary: dict[str, Any], args: Namespace, out: TextIO) -> None:
    """What a person needs first, then how it came about."""
    from vsa_core.story import next_steps, of_run

    out.write(f"Run {summary['run_id']}: {summary['status']}\n")
    write_parts(out, of_run(summary))
    out.write("\nWhere to look next:\n")
    for line in [*next_steps(summary), "status"]:
        out.write(f"  {command(line, args.store)}\n")
