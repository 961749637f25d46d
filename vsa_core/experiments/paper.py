"""The synthetic experiment of TF-MVSA, and where its claims hold: docs/tf-mvsa.md says it all."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vsa_core import progress
from vsa_core.experiments.paper_figures import figures
from vsa_core.experiments.paper_summary import ERRORS, KINDS, STUDY, TRUST, summary
from vsa_core.experiments.regimes import REGIMES, Regime, draw
from vsa_core.experiments.study import Outcome, compare
from vsa_core.fusion.strategies import STRATEGIES

if TYPE_CHECKING:
    import pyarrow as pa

NOISES = (0.5, 1.0, 2.0)
ERROR_RATES = (0.1, 0.2, 0.3, 0.4)
_FACE_ERRS_MORE = 0.1
_CONCENTRATIONS = {"inside": 4.0, "random": 4.0, "flat": 1000.0}
TRUSTS = tuple(round(0.1 * i, 1) for i in range(1, 10))
_SEGMENTS, _VIDEOS = 1000, 20
_MOST_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Case:
    """One set of segments to draw and label.

    Attributes:
        part: `errors` (Fig 2a), `trust` (Fig 2b) or `regimes`.
        setting: its name within the part.
        regime: how it is drawn.
        seed: of the drawing and the training.
        errors: one of `KINDS` in Fig 2a; else None.
        noise, error_rate: of Fig 2a, the latter of the text model; else None.
        p: how often the face model is right, in Fig 2b; else None.
    """

    part: str
    setting: str
    regime: Regime
    seed: int
    errors: str | None = None
    noise: float | None = None
    error_rate: float | None = None
    p: float | None = None


def cases(seeds: Sequence[int]) -> list[Case]:
    """Everything the experiment draws, in the order of its table."""
    return [
        Case(
            ERRORS,
            f"{kind} errors, noise {noise:g}, error rate {rate:g}",
            _pair(1 - rate, 1 - rate - _FACE_ERRS_MORE, kind, noise),
            seed,
            errors=kind,
            noise=noise,
            error_rate=rate,
        )
        for kind in KINDS
        for noise in NOISES
        for rate in ERROR_RATES
        for seed in seeds
    ] + [
        *(
            Case(TRUST, f"p {p:g}", _pair(1 - p, p, "inside", 1.0), seed, p=p)
            for p in TRUSTS
            for seed in seeds
        ),
        *(Case(STUDY, name, regime, seed) for name, regime in REGIMES.items() for seed in seeds),
    ]


def run(seeds: Sequence[int], strategies: Sequence[str] = STRATEGIES) -> Outcome:
    """Draw every case, label it with every strategy and score that.

    Cases run side by side in processes of one thread each; the outcome does not depend on how
    many there are. Tells its progress as stage `experiment`.

    Args:
        seeds: each gives one drawing of every setting.
        strategies: which to compare.
    """
    table = _table(cases(seeds), strategies)
    return Outcome({"results": table}, summary(table), figures(table))


def _pair(text: float, face: float, kind: str, noise: float) -> Regime:
    return Regime(
        (text, face),
        "inside" if kind == "inside" else "random",
        _CONCENTRATIONS[kind],
        sigma=(noise, noise),
        segments=_SEGMENTS,
        videos=_VIDEOS,
    )


def _table(todo: Sequence[Case], strategies: Sequence[str]) -> pa.Table:
    """A row per case, strategy and segments."""
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    schema = pa.schema(
        {
            "part": text,
            "setting": text,
            "errors": text,
            "noise": number,
            "error_rate": number,
            "p": number,
            "seed": pa.int64(),
            "strategy": text,
            "segments": text,
            "rows": pa.int64(),
            "coverage": number,
            "accuracy": number,
            "macro_f1": number,
            "ece": number,
        }
    )
    progress.begin("experiment", len(todo))
    found: dict[int, list[dict[str, Any]]] = {}
    with closing(_side_by_side(todo, strategies)) as scored:  # else workers outlive Ctrl-C
        for index, rows in scored:
            found[index] = rows
            progress.advance("experiment", 1)
    drawn = ("part", "setting", "errors", "noise", "error_rate", "p", "seed")
    rows = [
        {name: getattr(case, name) for name in drawn} | row
        for index, case in enumerate(todo)
        for row in found[index]
    ]
    return pa.Table.from_pylist(rows, schema)


def _side_by_side(
    todo: Sequence[Case], strategies: Sequence[str]
) -> Generator[tuple[int, list[dict[str, Any]]], None, None]:
    """Index and rows of each case, as they are done."""
    workers = min(os.cpu_count() or 1, len(todo), _MOST_WORKERS)
    others = multiprocessing.active_children()
    spawning = multiprocessing.get_context("spawn")  # a fork would copy torch's threads' locks
    pool = ProcessPoolExecutor(workers, spawning, _one_thread)
    try:
        # The workers start here and inherit what is blocked: Ctrl-C is this process's matter.
        allowed = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            asked: dict[Future[list[dict[str, Any]]], int] = {
                pool.submit(_scores, case, tuple(strategies)): index
                for index, case in enumerate(todo)
            }
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, allowed)
        for done in as_completed(asked):
            yield asked[done], done.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        workers_left = set(multiprocessing.active_children()).difference(others)
        for process in workers_left:
            process.kill()  # they only compute, and one that starts up may not hear less
        for process in workers_left:
            process.join()
        raise
    pool.shutdown()


def _scores(case: Case, strategies: Sequence[str]) -> list[dict[str, Any]]:
    drawn = draw(case.regime, case.seed)
    return compare(drawn.views, drawn.truth, case.seed, strategies)


def _one_thread() -> None:
    """In a worker: so that sums do not depend on the number of cores."""
    import threadpoolctl
    import torch

    threadpoolctl.threadpool_limits(1)
    torch.set_num_threads(1)
