"""The paper's experiment in small: the same again, and the order of its models on one cell."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vsa_core.experiments import paper
from vsa_core.experiments.study import compare, write
from vsa_core.progress import LISTENER

LATE = ("late-mean", "late-product")


class Count:
    """Counts what is told; may stop at the first."""

    def __init__(self, stop: bool = False) -> None:
        self.total, self.done, self._stop = 0, 0.0, stop

    def begin(self, _stage: str, total: int) -> None:
        self.total += total

    def advance(self, _stage: str, items: float) -> None:
        self.done += items
        if self._stop:
            raise KeyboardInterrupt


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part, in few and small cases."""
    cases = [
        replace(case, regime=replace(case.regime, segments=120, videos=6))
        for case in paper.cases([0, 1])
    ]
    kept = [*cases[:2], *cases[24:26], *cases[48:50], *cases[72:90], *cases[90:94]]
    monkeypatch.setattr(paper, "cases", lambda seeds: [c for c in kept if c.seed in seeds])


def test_every_part_is_drawn_for_every_seed() -> None:
    cases = paper.cases([0, 1, 2])
    parts = [case.part for case in cases]
    assert {part: parts.count(part) // 3 for part in parts} == {
        "errors": 36,
        "trust": 9,
        "regimes": len(paper.REGIMES),
    }
    assert len({(case.setting, case.seed) for case in cases}) == len(cases)


def here(
    todo: Sequence[paper.Case], strategies: Sequence[str]
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The cases in this process, the last one first."""
    for index in reversed(range(len(todo))):
        yield index, paper._scores(todo[index], strategies)


@pytest.mark.usefixtures("small")
def test_the_same_seeds_give_the_same_bytes_however_they_are_shared_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Count()
    token = LISTENER.set(counted)
    try:
        first = write(paper.run([0], LATE), tmp_path)
    finally:
        LISTENER.reset(token)
    assert counted.done == counted.total == 14
    before = {path.name: path.read_bytes() for path in first}
    images = {"models.png", "trust.png", "regimes.png"}
    assert set(before) == images | {"results.parquet", "summary.md"}
    monkeypatch.setattr(paper, "_side_by_side", here)
    again = write(paper.run([0], LATE), tmp_path)
    assert {path.name: path.read_bytes() for path in again} == before


@pytest.mark.usefixtures("small")
def test_the_table_has_a_row_for_everything_and_the_summary_says_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paper, "_side_by_side", here)
    outcome = paper.run([0], LATE)
    table = outcome.tables["results"]
    rows = {(r["setting"], r["seed"], r["strategy"], r["segments"]): r for r in table.to_pylist()}
    settings, strategies = 14, 7  # random, text, face, best-single, two late ones, supervised
    assert len(rows) == table.num_rows == settings * strategies * 3
    one = rows["p 0.9", 0, "face", "all"]
    assert (one["part"], one["p"], one["errors"], one["rows"]) == ("trust", 0.9, None, 120)
    assert one["accuracy"] == pytest.approx(0.9, abs=0.08)
    shown = f"{one['macro_f1']:.2f}".replace("0.", ".")
    [line] = [x for x in outcome.summary.splitlines() if x.startswith("| 0.9 |")]
    assert f" {shown} |" in line


@pytest.mark.usefixtures("small")
def test_an_interrupt_ends_without_a_table_and_without_processes() -> None:
    before = set(multiprocessing.active_children())
    token = LISTENER.set(Count(stop=True))
    try:
        with pytest.raises(KeyboardInterrupt):
            paper.run([0, 1], LATE)
    finally:
        LISTENER.reset(token)
    # The pool's own thread reaps them too, so that what is gone may be listed a moment longer.
    until = time.monotonic() + 10
    while (left := set(multiprocessing.active_children()) - before) and time.monotonic() < until:
        time.sleep(0.05)
    assert not left


def test_the_order_of_the_models_where_errors_are_independent() -> None:
    """One cell of Fig 2a: random < single models < late fusion < hybrid."""
    [case] = [
        c for c in paper.cases([0]) if c.setting == "random errors, noise 0.5, error rate 0.3"
    ]
    drawn = paper.draw(case.regime, 0)
    rows = compare(drawn.views, drawn.truth, 0, ("late-mean", "tf-mvsa", "crossview"))
    f1 = {row["strategy"]: row["macro_f1"] for row in rows if row["segments"] == "all"}
    assert f1["random"] < f1["face"] < f1["text"] < f1["late-mean"] < f1["tf-mvsa"]
    assert f1["tf-mvsa"] < f1["crossview"]
