"""Faults of what surrounds a run: network, disk, clock, another run, old and damaged files"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from scripts.fault_place import standing, tables, waited
from tests import test_migrate
from tests.small_site import Request
from vsa_core import archive
from vsa_core.errors import StoreError, VsaError
from vsa_core.migrate import migrate
from vsa_core.schemas import TABLES
from vsa_core.store import Store
from vsa_core.verify import verify

if TYPE_CHECKING:
    from scripts.faults import Lab

_BLOCK = 4096
_ROOMY = "256m"
# What nothing makes anew: it has to be named, and a copy has to be put back.
_KEPT = ("attempts", "promotions", "reviews")


def download(lab: Lab, rounds: int) -> None:
    """The network is cut in the middle of a download, and a flow is killed in one."""
    for number in range(rounds):
        store = lab.store()
        half_sent = lab.chance.sample(range(len(lab.place.bodies)), 3)
        for n in half_sent:
            body = lab.place.bodies[n]
            cut = lab.chance.randint(1, len(body) - 1)
            slow = number % 2 == 1
            lab.place.site.answer(f"/talk{n}.mp4", _cut_off(body, cut, hangs=slow))
        if number % 2:
            run = lab.place.flows.begin(store, "watch-channels")
            waited(partial(_part, store), "a download is in the middle", 0.01)
            stood = standing(store)
            for process in lab.place.flows.engines(run):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            lab.round(f"flow killed in the middle of a download, {len(stood)} files stood")
            like, config = "watch", lab.place.config
        else:
            like, config = "plain", lab.place.plain
            with suppress(VsaError):
                lab.run("watch", store, config)
            stood = standing(store)
            states = [one.state.value for one in archive.known(Store(store)).values()]
            failed = states.count("failed")
            lab.round(f"3 of 8 downloads cut off: {failed} failed, {len(states) - failed} labelled")
            if failed != 3:
                lab.wrong(f"3 downloads were cut off, {failed} say so")
        lab.place.serve()
        lab.run("watch", store, config)
        lab.gone(stood, store, "after the cut")
        lab.check(store, like, 1)


def _cut_off(body: bytes, cut: int, *, hangs: bool) -> Any:
    def answer(request: Request) -> None:
        request.head(Content_Type="video/mp4", Content_Length=str(len(body)))
        if request.command != "HEAD":
            request.wfile.write(body[:cut])
            request.wfile.flush()
            if hangs:
                time.sleep(4)
            request.connection.close()

    return answer


def _part(store: Path) -> bool | None:
    found = [path for path in (store / "media").glob("*.part/*") if path.stat().st_size]
    return True if found else None


def disk(lab: Lab, rounds: int) -> None:
    """A disk (a small tmpfs) is full just before each kind of write; then there is room again."""
    whole = sorted(
        (path for path in lab.stores["watch"].rglob("*") if path.is_file() and path.stat().st_size),
        key=lambda path: path.stat().st_mtime_ns,
    )
    folders = [path.relative_to(lab.stores["watch"]).parts[0] for path in whole]
    room: dict[str, int] = {}
    taken = 0
    for path, kind in zip(whole, folders, strict=True):
        room.setdefault(kind, taken)
        taken += -(-path.stat().st_size // _BLOCK) * _BLOCK
    wanted = ("media", "videos", "predictions", "attempts", "models", "labels", "runs")
    kinds = [kind for kind in wanted if kind in room]
    for kind in [*kinds, "compaction"][:rounds]:
        with _small_disk(lab, room.get(kind, taken)) as store:
            if store is None:
                return
            if kind == "compaction":
                _no_room_to_compact(lab, store)
                continue
            said = "nothing was in the way"
            try:
                lab.run("watch", store)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                said = " ".join(str(error).split())[:160]
                if not isinstance(error, VsaError):
                    lab.wrong(f"not an error of ours: {type(error).__name__}: {said}")
            stood = standing(store)
            lab.round(f"full at {kind}: {said}; {len(stood)} files stood")
            _mounted(store.parent, _ROOMY, again=True)
            lab.run("watch", store)
            lab.gone(stood, store, f"full at {kind}")
            lab.check(store, "watch", 1)


def _no_room_to_compact(lab: Lab, store: Path) -> None:
    _mounted(store.parent, _ROOMY, again=True)
    lab.run("watch", store)
    stood = standing(store)
    ballast = store.parent / "ballast"
    free = shutil.disk_usage(store).free
    with ballast.open("wb") as file:
        file.write(b"\0" * (free - 2 * _BLOCK))
    said = "there was room"
    try:
        Store(store).compact()
    except StoreError as error:
        said = " ".join(str(error).split())[:160]
    lab.round(f"full at compaction: {said}; {len(stood)} files stood")
    ballast.unlink()
    lab.gone(stood, store, "full at compaction")
    Store(store).compact()
    lab.gone(stood, store, "after compaction")
    lab.check(store, "watch", 1)


@contextmanager
def _small_disk(lab: Lab, bytes_free: int) -> Iterator[Path | None]:
    where = lab.store()
    where.mkdir(parents=True)
    if not _mounted(where, str(max(bytes_free, 2 * _BLOCK))):
        lab.say("no tmpfs may be mounted here: only root may; not tried")
        yield None
        return
    try:
        yield where / "store"
    finally:
        subprocess.run(["umount", "-l", str(where)], check=False)


def _mounted(where: Path, size: str, *, again: bool = False) -> bool:
    options = f"remount,size={size}" if again else f"size={size}"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def clock(lab: Lab, rounds: int) -> None:
    """The clock, and the times of files, are moved back a day between two runs."""
    for number in range(rounds):
        store = lab.store()
        first, then = lab.place.config, lab.place.plain
        if number % 2:
            first, then = then, first
        lab.run("files", store, first)
        with moved_back(timedelta(days=1)):
            for path in [*lab.place.files.iterdir(), *store.rglob("*.parquet")]:
                facts = path.stat()
                os.utime(path, (facts.st_atime - 86_400, facts.st_mtime - 86_400))
            stood = standing(store)
            lab.run("files", store, then)
            lab.gone(stood, store, "after the clock was moved back")
        lab.round("a day back between two runs with different strategies; the later one must count")
        # What the later run says, as it says it on a store of its own.
        alone = lab.store()
        lab.run("files", alone, then)
        lab.compare(store, tables(alone), 1)


@contextmanager
def moved_back(by: timedelta) -> Iterator[None]:
    """Every clock that vsa reads."""

    class Moved(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) - by

    ours = [
        module
        for name, module in list(sys.modules.items())
        if name.split(".")[0] in ("vsa_core", "flows", "tasks")
        and getattr(module, "datetime", None) is datetime
    ]
    for module in ours:
        vars(module)["datetime"] = Moved
    try:
        yield
    finally:
        for module in ours:
            vars(module)["datetime"] = datetime


def overlap(lab: Lab, rounds: int) -> None:
    """Two nights of a channel and a run by hand on one store at once, compacted all the while."""
    for _ in range(rounds):
        store, plain = lab.store(), lab.place.plain
        flows = lab.place.flows
        runs = [flows.begin(store, "watch-channels", plain) for _ in range(2)]
        by_hand = lab.place.vsa(store, str(lab.place.files), config=plain)
        over, compactions = threading.Event(), [0, 0]
        thread = threading.Thread(target=_compacting, args=(store, over, compactions))
        thread.start()
        try:
            said, _ = by_hand.communicate()
            states = [flows.ended(run) for run in runs]
        finally:
            over.set()
            thread.join()
        lab.round(
            f"two nights {states}, `vsa run` {by_hand.returncode}, {compactions[0]} compactions "
            f"({compactions[1]} gave way)"
        )
        if states != ["COMPLETED"] * 2 or by_hand.returncode:
            lab.wrong(f"a run did not end well: {states} {by_hand.returncode} {said[-300:]}")
        both = {
            table: sorted(lab.undisturbed["plain"][table] + rows)
            for table, rows in lab.undisturbed["plain-files"].items()
        }
        lab.compare(store, both, 1)


def _compacting(store: Path, over: threading.Event, counts: list[int]) -> None:
    """Compact until it is over; counts how often that went, and how often it gave way."""
    while not over.wait(0.05):
        try:
            Store(store).compact()
            counts[0] += 1
        except StoreError:
            counts[1] += 1


def schema(lab: Lab, rounds: int) -> None:
    """A store as an older vsa wrote it: refused with the command to run, then migrated."""
    for _ in range(rounds):
        store = Path(shutil.copytree(lab.stores["files"], lab.store()))
        old = test_migrate.age(Store(store))
        said = "it was not refused"
        try:
            lab.run("files", store)
        except StoreError as error:
            said = str(error)
        lab.round(f"files of version 1: {said[:200]}")
        if "vsa store migrate" not in said:
            lab.wrong("an old store is not refused with the command to run")
        migrate(old)
        if said := "; ".join(verify(Store(store))):
            lab.wrong(f"after the migration: {said}")
        lab.run("files", store)
        before = Store(lab.stores["files"])
        for table in test_migrate.VERSION_1:
            if table == "videos":
                continue  # compared below
            if test_migrate.rows(Store(store), table) != test_migrate.rows(before, table):
                lab.tallies[lab.kind].lost += 1
                lab.say(f"LOST rows of {table} differ after migration")
        if not lab.tallies[lab.kind].lost and not lab.tallies[lab.kind].problems:
            lab.tallies[lab.kind].recovered += 1


def corrupt(lab: Lab, rounds: int) -> None:
    """A file of each table is torn or scratched: named, put aside, and made anew."""
    names = [table for table in TABLES if _files(lab.stores["watch"], table)]
    for number, table in enumerate(names[:rounds]):
        store = Path(shutil.copytree(lab.stores["watch"], lab.store(), symlinks=True))
        path = lab.chance.choice(_files(store, table))
        kept = path.read_bytes()
        torn = number % 2 == 0
        path.write_bytes(_torn(kept, lab) if torn else _scratched(kept, lab))
        named = [line for line in verify(Store(store)) if str(path) in line]
        damage = "torn" if torn else "scratched"
        missed = not named and not _reads_as(path, kept)
        said = named or ["NOT NAMED" if missed else "no row of it was hit"]
        lab.round(f"{damage} {path.relative_to(store)}: {said[0][-110:]}")
        if missed:
            lab.wrong(f"verify does not name {path}")
        if table in _KEPT:
            if table == "attempts":
                try:
                    archive.known(Store(store))
                    lab.wrong("attempts that do not read are silently left out")
                except StoreError:
                    pass
            path.write_bytes(kept)
        else:
            verify(Store(store), repair=True)
        # A run by hand over all that the channel has: what it made before is made anew.
        lab.run("files", store, sources=[lab.place.feed])
        lab.check(store, "watch", 1)


def _files(store: Path, table: str) -> list[Path]:
    return sorted((store / table).rglob("*.parquet"))


def _reads_as(path: Path, kept: bytes) -> bool:
    """Whether a file holds the rows it held: a scratch may hit what no reader looks at."""
    try:
        return bool(pq.read_table(path).equals(pq.read_table(io.BytesIO(kept))))
    except (OSError, pa.ArrowException):
        return False


def _torn(data: bytes, lab: Lab) -> bytes:
    return data[: lab.chance.randint(1, len(data) - 1)]


def _scratched(data: bytes, lab: Lab) -> bytes:
    """Some bytes of the first column turned over; Parquet's own header stays."""
    at = lab.chance.randint(8, min(200, len(data) // 3))
    turned = bytes(byte ^ 0xFF for byte in data[at : at + 16])
    return data[:at] + turned + data[at + 16 :]
