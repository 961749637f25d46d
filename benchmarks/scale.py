"""What size costs: a store of 10,000 videos and 2 million segments, made and asked."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.big_store import write_files
from benchmarks.big_videos import BACKENDS, Size, video_ids
from benchmarks.measure import VSA, scratch, timed, watched
from vsa_core.config import Fusion, NamedModel, Settings

_SHARD = 500
_TABLES = ("videos", "transcripts", "segments", "predictions", "embeddings", "labels")


def scale(videos: int = 10_000, agreement: int = 2_000_000) -> None:
    """The read side, compaction and the end of a run, on files as runs leave them and joined."""
    size = Size(videos=videos)
    with _made(size) as store:
        print(f"scale: {videos:,} videos, {_files(store):,} files, {_bytes(store) / 1e9:.2f} GB")
        _say("status, before files are joined", _command("status", "--store", store))
        _say("is anything new, before files are joined", _fresh(_anything_new, store, size))
        _say("vsa store compact", _command("store", "compact", "--store", store))
        print(f"  {_files(store):,} files, {_bytes(store) / 1e9:.2f} GB: {_sizes(store)}")
        _say("is anything new", _fresh(_anything_new, store, size))
        _say("status", _command("status", "--store", store))
        _say("status, in its process", _fresh(_status, store))
        for name in _shipped():
            _say(f"query @{name}", _command("query", f"@{name}", "--store", store))
            _say(f"query @{name}, in its process", _fresh(_ask, store, name))
        _say("identify and summarise", _fresh(_close, store, size))
        _say("label a shard of 500", _fresh(_label, store, size))
        _say(f"label all {videos:,}", _fresh(_label, store, size, True))
    _say(f"agreement of {agreement:,} segments, three views", _fresh(_agreement, agreement))


def training(videos: Sequence[int] = (1_000, 3_000, 10_000)) -> None:
    """Learning to fuse at 0.2, 0.6 and 2 million segments: peak memory must not grow."""
    size = Size(videos=max(videos))
    with _made(size) as store:
        _command("store", "compact", "--store", store)
        for number in videos:
            _say(f"train on {number:,} videos", _fresh(_train, store, size, number))


@contextmanager
def _made(size: Size) -> Iterator[Path]:
    """The store in a scratch folder; $VSA_BIG_STORE names one that was made before, to copy."""
    with scratch() as folder:
        store = folder / "store"
        if given := os.environ.get("VSA_BIG_STORE"):
            shutil.copytree(given, store)
        else:
            _, spent = timed(lambda: write_files(store, size))
            print(f"  made in {spent.wall:.0f} s")
        yield store


def _say(what: str, spent: Mapping[str, float]) -> None:
    print(
        f"  {what}: {spent['wall']:.2f} s, {spent['cpu']:.2f} s of processor time, "
        f"peak {spent['peak_mb']:.0f} MB",
        flush=True,
    )


def _command(*arguments: Any) -> dict[str, float]:
    """A whole `vsa` command, start and imports included."""
    begun = time.perf_counter()
    process = subprocess.Popen([VSA, *arguments], stdout=subprocess.DEVNULL)
    peak = watched(process.pid)
    _, code, used = os.wait4(process.pid, 0)
    if code:
        raise SystemExit(f"vsa {arguments[0]} ended with {code}")
    wall, cpu = time.perf_counter() - begun, used.ru_utime + used.ru_stime
    return {"wall": wall, "cpu": cpu, "peak_mb": peak()}


def _fresh(work: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """What some work measures in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(work, *arguments).result()


def _spent(work: Callable[[], Any]) -> dict[str, float]:
    _, spent = timed(work)
    # Not getrusage's, which begins with the peak of the process that started this one.
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    return {"wall": spent.wall, "cpu": spent.cpu, "peak_mb": peak / 1000}


def _files(store: Path) -> int:
    return sum(1 for path in store.rglob("*.parquet"))


def _bytes(store: Path) -> int:
    return sum(path.stat().st_size for path in store.rglob("*.parquet"))


def _sizes(store: Path) -> str:
    return ", ".join(f"{table} {_bytes(store / table) / 1e6:.0f} MB" for table in _TABLES)


def _shipped() -> list[str]:
    from vsa_core.query import shipped

    return [query.name for query in shipped()]


def _settings(strategy: Any = "late-mean") -> Settings:
    models = {modality: NamedModel(name=name) for modality, name in BACKENDS.items()}
    return Settings(backends=models, fusion=Fusion(strategy=strategy))


def _anything_new(root: Path, size: Size) -> dict[str, float]:
    from vsa_core.predict import made_from_segments
    from vsa_core.store import Store

    def look() -> int:
        store = Store(root)
        videos, segments = store.refs("videos"), store.refs("segments")
        seen = {b: store.refs("predictions", store.part_of(b)) for b in BACKENDS.values()}
        stands = 0
        for video in video_ids(size):
            if video in videos and (cut := segments.get(video)) is not None:
                stands += all(
                    video in refs
                    and refs[video].fingerprint == made_from_segments(cut.fingerprint, backend)
                    for backend, refs in seen.items()
                )
        return stands

    return _spent(look)


def _status(root: Path) -> dict[str, float]:
    from vsa_core.cli import status
    from vsa_core.store import Store

    return _spent(lambda: status.summary(Store(root)))


def _ask(root: Path, name: str) -> dict[str, float]:
    from vsa_core.query import ask, shipped_query
    from vsa_core.store import Store

    query = shipped_query(name)
    return _spent(lambda: list(ask(Store(root), query.sql, query.defaults).rows()))


def _close(root: Path, size: Size) -> dict[str, float]:
    from vsa_core import runs
    from vsa_core.store import Store

    setattr(runs, "backend_ids", lambda _: BACKENDS)  # noqa: B010 - made ones, nothing loads them
    ids, store = video_ids(size), Store(root)
    run_id = max((len(list(p.iterdir())), p.name) for p in (root / "labels").iterdir())[1]

    def work() -> None:
        runs.identify(str(root), ids, "late-mean", _settings())
        runs.summarise(store, run_id, ids, _settings())

    return _spent(work)


def _label(root: Path, size: Size, whole: bool = False) -> dict[str, float]:
    from vsa_core.fusion import FusionModel
    from vsa_core.fusion.resolve import resolve
    from vsa_core.store import Store

    ids = sorted(video_ids(size))
    shards = [ids[at : at + _SHARD] for at in range(0, len(ids), _SHARD)]
    model, run_id = FusionModel("late-mean", None, None), "rlabel"
    some = enumerate(shards) if whole else [(len(shards) // 2, shards[len(shards) // 2])]

    def work() -> None:
        for number, shard in some:
            resolve(Store(root), run_id, number, shard, BACKENDS, model, _settings())

    spent = _spent(work)
    shutil.rmtree(root / "labels" / run_id)
    return spent


def _agreement(segments: int) -> dict[str, float]:
    from vsa_core.agree import agreement

    rng = np.random.default_rng(0)
    probs = rng.standard_exponential((segments, 3, 3), np.float32)
    probs /= probs.sum(axis=2, keepdims=True)
    probs[rng.random((segments, 3)) < 0.2] = np.nan
    return _spent(lambda: agreement(probs, 0.5))


def _train(root: Path, size: Size, videos: int) -> dict[str, float]:
    from vsa_core.fusion.train import train_fusion
    from vsa_core.store import Store

    ids = video_ids(size)[:videos]
    return _spent(lambda: train_fusion(Store(root), ids, BACKENDS, _settings("crossview")))
