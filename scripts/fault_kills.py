"""Flows, workers and servers killed with SIGKILL at random moments, and a server that stays away"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.fault_place import ENDED, LIMIT_S, stamps, standing

if TYPE_CHECKING:
    from scripts.fault_place import Place
    from scripts.fault_processes import Flows
    from scripts.faults import Lab

    Runs = Place | Flows
    Kill = Callable[[Path, str, str], list[str]]

_AWAY_S = 60.0
# A cycle of so many kills, then the store is held against an undisturbed one.
_KILLS_A_CYCLE = 5
_FLOWS = {"watch-channels": "watch", "label-sources": "files"}
# What a model learns while two runs overlap depends on what stands by then: nothing is learned.
_OVERLAP = {"watch-channels": "plain", "label-sources": "plain-files"}


def flow(lab: Lab, rounds: int) -> None:
    """The process of a flow run is killed; the next run goes on."""
    _cycles(lab, rounds, _killing(lab, lab.place.flows), lab.place.flows)


def deployed(lab: Lab, rounds: int) -> None:
    """The same with the process that a worker started for a run of a deployment."""
    _cycles(lab, rounds, _killing(lab, lab.place), lab.place)


def worker(lab: Lab, rounds: int) -> None:
    """The worker is killed; its flow run goes on as an orphan while another one begins."""

    def kill(store: Path, run: str, name: str) -> list[str]:
        lab.place.kill_worker()
        orphan = bool(lab.place.engines(run))
        lab.say(f"     its flow run {'goes on as an orphan' if orphan else 'has no process'}")
        lab.place.start_worker()
        new = lab.place.begin(store, name, lab.place.plain)
        return [run, new] if orphan else [new]

    _cycles(lab, rounds, kill, lab.place, overlap=True)


def server(lab: Lab, rounds: int) -> None:
    """The server is killed and started again at once; the flow run goes on."""

    def kill(_store: Path, run: str, _name: str) -> list[str]:
        lab.place.kill_server()
        lab.place.start_server()
        return [run]

    _cycles(lab, rounds, kill, lab.place.flows)


def away(lab: Lab, rounds: int) -> None:
    """The server is away for a minute in the middle of a run, which waits for it and ends well."""

    def kill(_store: Path, run: str, _name: str) -> list[str]:
        lab.place.kill_server()
        time.sleep(_AWAY_S)
        lab.place.start_server()
        state = lab.place.flows.ended(run)
        lab.say(f"     after {_AWAY_S:.0f} s without a server the run ended {state}")
        if state != "COMPLETED":
            lab.wrong(f"a run did not outlive a server that was away: {state}")
        return [run]

    # One that only begins does not wait: Prefect asks for the server's version once.
    _cycles(lab, rounds, kill, lab.place.flows, least=1)


def _killing(lab: Lab, runs: Runs) -> Kill:
    def kill(store: Path, run: str, name: str) -> list[str]:
        for process in runs.engines(run):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return [runs.begin(store, name, lab.place.config)]

    return kill


def _cycles(
    lab: Lab,
    rounds: int,
    kill: Kill,
    runs: Runs,
    *,
    overlap: bool = False,
    least: int = 0,
) -> None:
    """Rounds of kills, some on each of several stores.

    Args:
        lab: the lab.
        rounds: kills in all.
        kill: kills, restarts what has to be, and returns the runs that are at work then; the last
            is the one to watch.
        runs: starts them.
        overlap: whether runs are at work at the same time.
        least: files that a run made before it is hit.
    """
    done, cycle = 0, 0
    while done < rounds:
        name = list(_FLOWS)[cycle % 2]
        cycle += 1
        store = lab.store()
        most = min(_KILLS_A_CYCLE, rounds - done)
        done += _cycle(lab, most, kill, runs, store, name, overlap=overlap, least=least)


def _cycle(
    lab: Lab,
    most: int,
    kill: Kill,
    runs: Runs,
    store: Path,
    name: str,
    *,
    overlap: bool,
    least: int,
) -> int:
    place = lab.place
    like, config = (_OVERLAP if overlap else _FLOWS)[name], place.plain if overlap else place.config
    total = len(stamps(lab.stores[like]))
    run = runs.begin(store, name, config)
    every = [run]
    kills = 0
    while kills < most:
        # So many more files; then somewhere within the next write or the work before it.
        wanted = len(stamps(store)) + lab.chance.randint(least, total // 4)
        if not _reached(runs, store, run, wanted):
            break  # it ended before
        time.sleep(lab.chance.uniform(0, 0.2))
        if not runs.engines(run):
            continue
        stood, files = standing(store), stamps(store)
        left = kill(store, run, name)
        every += [one for one in left if one not in every]
        kills += 1
        lab.gone(stood, store, "at the kill")
        rewritten = _again(files, store)
        lab.round(
            f"killed; {len(stood)} of {total} files stood: {_said(stood)}; {rewritten} written "
            "again meanwhile"
        )
        run = left[-1]
    before, files = standing(store), stamps(store)
    for each in every:  # orphans too
        at_work = each == run or runs.engines(each)
        state = runs.ended(each) if at_work else runs.state(each)
        lab.say(f"     run {each[:8]}: {state}")
    for _ in range(3):
        if runs.ended(runs.begin(store, name, config)) == "COMPLETED":
            break
    else:
        lab.wrong(f"three runs after the kills did not complete: {store}")
    lab.gone(before, store, "after the last run")
    again = _again(files, store)
    lab.say(f"     complete; {again} of {len(files)} files that stood were written again")
    lab.check(store, like, kills)
    return kills


def _reached(runs: Runs, store: Path, run: str, files: int) -> bool:
    """Whether a run made so many files before it ended."""
    deadline = time.monotonic() + LIMIT_S
    looked = 0.0
    while time.monotonic() < deadline:
        if len(stamps(store)) >= files and runs.engines(run):
            break
        if time.monotonic() - looked > 1:
            looked = time.monotonic()
            if runs.state(run) in ENDED:
                return False
        time.sleep(0.05)
    return runs.state(run) not in ENDED


def _again(before: dict[str, int], store: Path) -> int:
    now = stamps(store)
    return sum(name in now and now[name] != inode for name, inode in before.items())


def _said(stood: dict[tuple[str, str, str], tuple[str, int]]) -> str:
    counts: dict[str, int] = {}
    for table, _, _ in stood:
        counts[table] = counts.get(table, 0) + 1
    return ", ".join(f"{table} {n}" for table, n in counts.items()) or "nothing"
