"""Faults that a run has to survive, tried on real processes; counts what was lost or doubled

A site, a Prefect server and a worker on loopback, the deployments of prefect.yaml, fake models.
`python scripts/faults.py [--rounds N] [--seed S] [--only KIND …]` prints a line per round and a
table at the end; exit code 1 when anything was lost, doubled or wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from scripts import fault_kills, fault_kinds
from scripts.fault_place import (
    Place,
    Standing,
    doubled,
    half_written,
    problems,
    standing,
    tables,
)
from tests.small_site import small_site

# Rounds of a full execution: 54 kills of flow, worker and server among them.
KINDS = {
    "flow": (fault_kills.flow, 30),
    "deployed": (fault_kills.deployed, 3),
    "worker": (fault_kills.worker, 6),
    "server": (fault_kills.server, 15),
    "away": (fault_kills.away, 1),
    "download": (fault_kinds.download, 4),
    "disk": (fault_kinds.disk, 8),
    "clock": (fault_kinds.clock, 2),
    "overlap": (fault_kinds.overlap, 2),
    "schema": (fault_kinds.schema, 1),
    "corrupt": (fault_kinds.corrupt, 11),
}
_DEPLOYED = {"deployed", "worker"}


@dataclass
class Tally:
    """What became of a kind's rounds."""

    rounds: int = 0
    recovered: int = 0
    lost: int = 0
    doubled: int = 0
    problems: int = 0
    seconds: float = 0.0


@dataclass
class Lab:
    """What the kinds share.

    Attributes:
        place: site, server, worker.
        chance: of the seed.
        tallies: by kind.
        undisturbed: by name of a run (watch, files, plain) the rows it ends with.
        stores: by the same names the stores themselves, for kinds that begin with a whole one.
    """

    place: Place
    chance: random.Random
    tallies: dict[str, Tally] = field(default_factory=dict)
    undisturbed: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    stores: dict[str, Path] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    kind: str = ""
    _number: int = 0

    def store(self) -> Path:
        """Where a new store may be."""
        self._number += 1
        return self.place.folder / "stores" / f"{self.kind}{self._number}"

    def say(self, what: str) -> None:
        """One line, with the time since the start."""
        print(f"{time.monotonic() - self.began:7.1f} s  {self.kind:9}{what}", flush=True)

    def round(self, what: str) -> None:
        """A fault happened."""
        self.tallies[self.kind].rounds += 1
        self.say(f"{self.tallies[self.kind].rounds:3}  {what}")

    def run(self, flow: str, root: Path, config: Path | None = None, **more: Any) -> Any:
        """A flow in this process: the deployed ones are for what is killed."""
        from flows.label import label_sources
        from flows.watch import watch_channels

        given = {"store": str(root), "config": str(config or self.place.config), **more}
        if flow == "watch":
            return watch_channels(channels=str(self.place.folder / "channels.yaml"), **given)
        return label_sources(**{"sources": [str(self.place.files)], **given})

    def gone(self, before: Standing, root: Path, when: str) -> None:
        """Count what was committed before a fault and is not there now."""
        now = standing(root)
        lost = sorted(before.keys() - now.keys())
        if lost:
            self.tallies[self.kind].lost += len(lost)
            self.say(f"LOST {when}: {lost[:3]}")

    def check(self, root: Path, like: str, rounds: int) -> None:
        """Compare a store with an undisturbed run's, and verify it; counts for some rounds."""
        self.compare(root, self.undisturbed[like], rounds)

    def compare(self, root: Path, wanted: dict[str, list[str]], rounds: int) -> None:
        """The same with given rows."""
        tally = self.tallies[self.kind]
        bad = 0
        for table, rows in tables(root).items():
            missing = Counter(wanted[table]) - Counter(rows)
            surplus = Counter(rows) - Counter(wanted[table])
            for name, found in (("LOST", missing), ("SURPLUS", surplus)):
                if found:
                    bad += 1
                    some = next(iter(found))[:300]
                    self.say(f"{name} {found.total()} rows of {table} in {root}: {some}")
            tally.lost += missing.total()
            tally.doubled += surplus.total() if surplus.total() > missing.total() else 0
        twice, torn = doubled(root), half_written(root, self.place.bodies)
        said = problems(root)
        for line in said:
            self.say(f"VERIFY {line}")
        if twice or torn:
            self.say(f"{twice} doubled, {torn} half-written downloads taken for whole")
        tally.doubled += twice
        tally.lost += torn
        tally.problems += len(said)
        if not (bad or twice or torn or said):
            tally.recovered += rounds

    def wrong(self, what: str) -> None:
        """Something else than rows is not as it should be."""
        self.tallies[self.kind].problems += 1
        self.say(f"WRONG {what}")


def prepare(lab: Lab, *, deployed: bool) -> None:
    """Server, worker, deployments, and what undisturbed runs end with."""
    place = lab.place
    # Flows here, and what is forked, are of this environment.
    told = ("PREFECT_", "PYTHONPATH", "OMP_")
    os.environ.update({k: v for k, v in place.environment.items() if k.startswith(told)})
    os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"
    place.start_server()
    if deployed:
        place.deploy()
        place.start_worker()
    for name, flow, config in (
        ("watch", "watch", place.config),
        ("files", "files", place.config),
        ("plain", "watch", place.plain),
        ("plain-files", "files", place.plain),
    ):
        root = place.folder / "stores" / name
        lab.run(flow, root, config)
        lab.stores[name] = root
        lab.undisturbed[name] = tables(root)
        if said := problems(root):
            raise SystemExit(f"an undisturbed run leaves problems: {said}")


def main() -> int:
    """Try the faults; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, help="of every kind (default: as many as it needs)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", choices=KINDS, help="may be repeated")
    parser.add_argument("--keep", type=Path, help="a new folder to work in, which is kept")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended
    if args.keep:
        args.keep.mkdir(parents=True)
    with (
        small_site() as site,
        tempfile.TemporaryDirectory(prefix="vsa-faults-", ignore_cleanup_errors=True) as folder,
    ):
        lab = Lab(Place(args.keep or Path(folder), site), random.Random(args.seed))
        try:
            lab.kind = "prepare"
            kinds = args.only or list(KINDS)
            prepare(lab, deployed=not _DEPLOYED.isdisjoint(kinds))
            lab.say(f"seed {args.seed}; undisturbed runs stand")
            for kind in kinds:
                attempt, rounds = KINDS[kind]
                lab.kind, lab.tallies[kind] = kind, Tally()
                began = time.monotonic()
                # By kind, so that `--only` repeats what a full execution did.
                lab.chance.seed(f"{args.seed} {kind}")
                try:
                    attempt(lab, min(rounds, args.rounds) if args.rounds else rounds)
                except Exception as error:  # noqa: BLE001 - the other kinds are tried still
                    lab.wrong(f"it ended with {type(error).__name__}: {error}")
                lab.tallies[kind].seconds = time.monotonic() - began
        finally:
            lab.place.close()
    return summed_up(lab)


def summed_up(lab: Lab) -> int:
    """Print the table; the exit code."""
    print("\n| kind | rounds | recovered | lost | doubled | verify problems | s |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    bad = 0
    for kind, t in lab.tallies.items():
        print(
            f"| {kind} | {t.rounds} | {t.recovered} | {t.lost} | {t.doubled} | {t.problems} "
            f"| {t.seconds:.0f} |"
        )
        bad += t.lost + t.doubled + t.problems + (t.rounds - t.recovered)
    print(f"\n{time.monotonic() - lab.began:.0f} s in all")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
