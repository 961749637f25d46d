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
    from scripts.faults import Lab

_AWAY_S = 60.0
# A cycle of so many kills, then the store is held against an undisturbed one.
_KILLS_A_CYCLE = 5
_FLOWS = {"watch-channels": "watch", "label-sources": "files"}


def flow(lab: Lab, rounds: int) -> None:
    """The process of the flow run is killed; the next run goes on."""

    def kill(store: Path, run: str, name: str) -> list[str]:
        lab.place.ask("health")
        for process in lab.place.engines(run):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return [lab.place.begin(store, name)]

    _cycles(lab, rounds, kill)


def worker(lab: Lab, rounds: int) -> None:
    """The worker is killed; its flow run goes on as an orphan while another one begins."""

    def kill(store: Path, run: str, name: str) -> list[str]:
        lab.place.kill(lab.place.worker)
        orphan = bool(lab.place.engines(run))
        lab.say(f"     its flow run {'goes on as an orphan' if orphan else 'had no process yet'}")
        lab.place.start_worker()
        return [run, lab.place.begin(store, name)] if orphan else [lab.place.begin(store, name)]

    _cycles(lab, rounds, kill)


def server(lab: Lab, rounds: int) -> None:
    """The server is killed and started again at once; the flow run goes on."""

    def kill(_store: Path, run: str, _name: str) -> list[str]:
        lab.place.kill(lab.place.server)
        lab.place.start_server()
        return [run]

    _cycles(lab, rounds, kill)


def away(lab: Lab, rounds: int) -> None:
    """The server is away for a minute in the middle of a run, which waits for it and ends well."""

    def kill(_store: Path, run: str, _name: str) -> list[str]:
        lab.place.kill(lab.place.server)
        time.sleep(_AWAY_S)
        lab.place.start_server()
        state = lab.place.ended(run)
        lab.say(f"     after {_AWAY_S:.0f} s without a server the run ended {state}")
        if state != "COMPLETED":
            lab.wrong(f"a run did not outlive a server that was away: {state}")
        return [run]

    _cycles(lab, rounds, kill)


def _cycles(lab: Lab, rounds: int, kill: Callable[[Path, str, str], list[str]]) -> None:
    """Rounds of kills, some on each of several stores.

    Args:
        lab: the lab.
        rounds: kills in all.
        kill: kills, restarts what has to be, and returns the runs that are at work then; the last
            is the one to watch.
    """
    done, cycle = 0, 0
    while done < rounds:
        name = list(_FLOWS)[cycle % 2]
        cycle += 1
        store = lab.store()
        done += _cycle(lab, min(_KILLS_A_CYCLE, rounds - done), kill, store, name)


def _cycle(
    lab: Lab,
    most: int,
    kill: Callable[[Path, str, str], list[str]],
    store: Path,
    name: str,
) -> int:
    place = lab.place
    total = len(stamps(lab.stores[_FLOWS[name]]))
    runs = {place.begin(store, name)}
    run = next(iter(runs))
    kills = 0
    while kills < most:
        # So many more files; then somewhere within the next write or the work before it.
        wanted = len(stamps(store)) + lab.chance.randint(0, total // 4)
        if not _reached(lab, store, run, wanted):
            break  # it ended before
        time.sleep(lab.chance.uniform(0, 0.2))
        stood, files = standing(store), stamps(store)
        started = bool(place.engines(run))
        left = kill(store, run, name)
        runs.update(left)
        kills += 1
        lab.gone(stood, store, "at the kill")
        rewritten = _again(files, store)
        what = "at work" if started else "starting"
        lab.round(
            f"killed, its run {what}; {len(stood)} of {total} files stood: {_said(stood)}; "
            f"{rewritten} written again so far"
        )
        run = left[-1]
    before, files = standing(store), stamps(store)
    for each in runs:  # orphans too
        state = place.ended(each) if place.engines(each) else place.state(each)
        lab.say(f"     run {each[:8]} ended {state}")
    for _ in range(3):
        if place.ended(place.begin(store, name)) == "COMPLETED":
            break
    else:
        lab.wrong(f"three runs after the kills did not complete: {store}")
    lab.gone(before, store, "after the last run")
    again = _again(files, store)
    lab.say(f"     complete; {again} of {len(files)} files that stood were written again")
    lab.check(store, _FLOWS[name], kills)
    return kills


def _reached(lab: Lab, store: Path, run: str, files: int) -> bool:
    """Whether a run made so many files before it ended."""
    deadline = time.monotonic() + LIMIT_S
    looked = 0.0
    while time.monotonic() < deadline:
        if len(stamps(store)) >= files:
            break
        if time.monotonic() - looked > 1:
            looked = time.monotonic()
            if lab.place.state(run) in ENDED:
                return False
        time.sleep(0.01)
    return lab.place.state(run) not in ENDED


def _again(before: dict[str, int], store: Path) -> int:
    now = stamps(store)
    return sum(name in now and now[name] != inode for name, inode in before.items())


def _said(stood: dict[tuple[str, str, str], tuple[str, int]]) -> str:
    counts: dict[str, int] = {}
    for table, _, _ in stood:
        counts[table] = counts.get(table, 0) + 1
    return ", ".join(f"{table} {n}" for table, n in counts.items()) or "nothing"
