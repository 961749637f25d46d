"""`python -m benchmarks [--toy] [NAME …]`: each of `BENCHMARKS` prints one row of RESULTS.md.

`--toy` runs the same commands on so little that it takes seconds: the figures mean nothing then,
but that they still come is what continuous integration checks.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import audio, faces, fusion, scale, speech, text
from benchmarks.material import talking_head
from benchmarks.measure import VSA, scratch, watched


def labelled(folder: Path, store: Path) -> tuple[dict[str, Any], float, int]:
    """`vsa run`'s summary, the wall time of the whole command, s, and its peak memory, MB."""
    begun = time.monotonic()
    process = subprocess.Popen(
        [VSA, "run", str(folder), "--store", str(store), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    peak = watched(process.pid)
    out, _ = process.communicate()
    seconds = time.monotonic() - begun
    if process.returncode not in (0, 3):  # 3: not all of it was labelled
        raise SystemExit(f"vsa run ended with {process.returncode}")
    return json.loads(out), seconds, peak()


def line(minutes: float = 10) -> None:
    """End to end: a talking head with captions, and where the time goes."""
    from vsa_core.backends.face_detect import load_detector
    from vsa_core.media import probe

    with scratch() as folder:
        video = talking_head(folder / "in" / "head.mp4", minutes * 60)
        media = probe(video)
        length_s = media.duration_ms / 1000
        summary, seconds, peak = labelled(video.parent, folder / "store")
        parts = direct(video.parent, folder / "direct", workers=1, clock=time.process_time)
        begun = time.process_time()
        frames = [frame.rgb for frame in media.frames(2.0, 640)]
        decode = time.process_time() - begun
        detector = load_detector("haar", 0.12)
        begun = time.process_time()
        for rgb in frames:
            detector.detect_next(rgb)
        detect = time.process_time() - begun
    print(
        f"line: {length_s:.0f} s of 640×360, {summary['segments']} segments: flow "
        f"{summary['seconds']:.1f} s = {length_s / summary['seconds']:.0f}× real time, whole "
        f"command {seconds:.1f} s = {length_s / seconds:.0f}×, peak {peak} MB"
    )
    print(
        f"  processor time, s: decode {decode:.1f}, detect {detect:.1f}, the rest of the faces "
        f"{max(0.0, parts['face'] - decode - detect):.1f}, text {parts['text']:.1f}, audio "
        f"{parts['audio']:.1f}, find to segment {parts['prepare']:.1f}, train and label "
        f"{parts['fuse']:.1f}; models load in {parts['load']:.1f}, the rest of the command "
        f"(imports, Prefect's server) {seconds - summary['seconds']:.1f}"
    )


def prefect(videos: int = 50, seconds_each: float = 60) -> None:
    """Prefect's share of a run: the flow against the same stages called without it."""
    with scratch() as folder:
        for i in range(videos):
            video = talking_head(folder / "in" / f"v{i:02}.mp4", seconds_each)
            with video.open("ab") as file:  # another content each, to the hash
                file.write(b"\0" * (i + 1))
        summary, seconds, _ = labelled(folder / "in", folder / "flow")
        without = sum(direct(folder / "in", folder / "direct", workers=2).values())
    share = (summary["seconds"] - without) / summary["seconds"]
    print(
        f"prefect: {videos} videos of {seconds_each:.0f} s: flow {summary['seconds']:.1f} s, the "
        f"same stages without Prefect {without:.1f} s: {share:.1%} is Prefect's; start of the "
        f"command and its server {seconds - summary['seconds']:.1f} s"
    )


def direct(
    folder: Path, store: Path, workers: int, clock: Callable[[], float] = time.monotonic
) -> dict[str, float]:
    """Seconds of each stage of the same work, called without Prefect; `look` is all modalities."""
    from tasks.fuse import finish, resolve, train
    from tasks.ingest import find_videos, ingest
    from tasks.policies import share_cores
    from tasks.predict import predict
    from tasks.segment import segment
    from tasks.shards import split
    from tasks.transcribe import transcribe
    from vsa_core.config import load_config
    from vsa_core.runs import LABEL_SHARD_VIDEOS, backend_ids, identify

    settings, root = load_config(), str(store)
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        begun = clock()
        yield
        seconds[name] = clock() - begun

    started = datetime.now(UTC)
    share_cores()
    with timed("load"):
        backend_ids(settings)
    with ThreadPoolExecutor(workers) as pool:

        def over(stages: list[Any], items: list[Any]) -> list[str]:
            shards = split(items, settings.run.shard_videos)
            futures = [
                pool.submit(stage.fn, shard, settings, root) for stage in stages for shard in shards
            ]
            results = [future.result() for future in futures]
            return list(dict.fromkeys(v for result in results for v in result.done))

        with timed("prepare"):
            found = find_videos.fn([str(folder)], settings, root, None, {})
            ids = over([segment], over([transcribe], over([ingest], found)))
        if workers == 1:
            for modality, stage in predict.items():
                with timed(modality):
                    over([stage], ids)
        else:
            with timed("look"):
                over([predict[m] for m in ("face", "text", "audio")], ids)
        with timed("fuse"):
            model = train.fn(ids, settings, root)
            run_id = identify(root, ids, model.model_id, settings)
            for number, shard in enumerate(split(ids, LABEL_SHARD_VIDEOS)):
                resolve.fn(run_id, number, shard, model, settings, root)
            finish.fn(run_id, [], len(found), ids, [], model, settings, root, started)
    return seconds


def memory(hours: float = 2) -> None:
    """Peak memory of a long video against a short one: what length costs."""
    with scratch() as folder:
        talking_head(folder / "short" / "head.mp4", 20)
        talking_head(folder / "long" / "head.mp4", hours * 3600)
        _, _, short = labelled(folder / "short", folder / "store-short")
        summary, seconds, long = labelled(folder / "long", folder / "store-long")
    print(
        f"memory: {hours:g} h in {seconds:.0f} s ({summary['segments']} segments): peak {long} MB, "
        f"a 20 s clip {short} MB: {long - short} MB above the models"
    )


def startup(times: int = 15) -> None:
    """`vsa --help`, against the interpreter alone."""

    def median(command: list[Any]) -> float:
        spent = []
        for _ in range(times):
            begun = time.monotonic()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            spent.append(time.monotonic() - begun)
        return statistics.median(spent)

    bare, ours = median([sys.executable, "-c", "pass"]), median([VSA, "--help"])
    print(f"startup: vsa --help {ours:.3f} s, python alone {bare:.3f} s: {ours / bare:.1f}×")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A row of RESULTS.md.

    Attributes:
        run: measures and prints it.
        toy: arguments with which it takes seconds.
    """

    run: Callable[..., None]
    toy: dict[str, Any] = field(default_factory=dict)


BENCHMARKS: dict[str, Benchmark] = {
    "startup": Benchmark(startup, {"times": 1}),
    "line": Benchmark(line, {"minutes": 0.4}),
    "prefect": Benchmark(prefect, {"videos": 2, "seconds_each": 20}),
    "memory": Benchmark(memory, {"hours": 0.01}),
    "fusion": Benchmark(fusion.speed, {"count": 1_000}),
    "fusion-memory": Benchmark(fusion.memory, {"count": 1_000, "strategies": ["crossview"]}),
    "text": Benchmark(text.text, {"every": 200, "layers": 1}),
    "faces": Benchmark(faces.faces, {"per_s": 1.0, "rounds": 1, "peers": False}),
    "speaking": Benchmark(faces.speaking, {"most_clips": 1}),
    "audio": Benchmark(audio.audio, {"rounds": 1, "layers": 1}),
    "speech": Benchmark(speech.speech, {"minutes": 0.5}),
    "scale": Benchmark(scale.scale, {"videos": 100, "agreement": 1_000}),
    "scale-training": Benchmark(scale.training, {"videos": [20, 40]}),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--toy", action="store_true", help="seconds instead of minutes; no figures")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are: {', '.join(BENCHMARKS)}")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for name in args.names or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        benchmark.run(**(benchmark.toy if args.toy else {}))


if __name__ == "__main__":
    main()
