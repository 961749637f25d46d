"""`python -m benchmarks.grouping DIR [STRATEGY]`: labels however segments are cut into videos.

DIR holds prediction tables NAME.parquet (a row per segment and view: `segment_id`, `video_id`,
`modality`, `probs` and `embedding`, null where absent) and NAME.truth.parquet (`segment_id`,
`label`; the order of the classes is that of their names). The same segments are labelled with their
own videos and with others of 1 to 50 segments: their own cut up, and drawn at random. Prints
macro-F1 of each beside late fusion's, and the first letter of what decided.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vsa_core.experiments.real import macro_f1, tally
from vsa_core.fusion.strategies import fuse
from vsa_core.fusion.views import Views, views_from_arrays

_MIXED = (1, 1, 1, 2, 3, 5, 10, 50)


def cut(video: NDArray[np.integer], sizes: Callable[[], int]) -> NDArray[np.int32]:
    """Videos (n,) cut into pieces of so many segments, in their order."""
    new, piece, left, last = np.zeros(len(video), np.int32), -1, 0, -1
    for i in np.argsort(video, kind="stable"):
        if left == 0 or video[i] != last:
            piece, left, last = piece + 1, sizes(), video[i]
        new[i] = piece
        left -= 1
    return new


def groupings(views: Views) -> dict[str, NDArray[np.int32]]:
    """By name other numbers of the segments' videos (n,)."""
    n, rng = len(views), np.random.default_rng(0)
    shuffled = rng.permutation(n).astype(np.int32)
    found = {"own": views.video}
    found |= {f"cut {g}": cut(views.video, lambda g=g: g) for g in (1, 2, 3, 5)}  # type: ignore[misc]
    found |= {f"random {g}": shuffled // g for g in (2, 5)}
    found["mixed"] = cut(views.video, lambda: int(rng.choice(_MIXED)))
    return found


def regrouped(views: Views, video: NDArray[np.int32]) -> Views:
    """The same segments as of other videos."""
    _, number = np.unique(video, return_inverse=True)
    names = tuple(f"v{i:06}" for i in range(int(number.max()) + 1))
    return replace(views, videos=names, video=number.astype(np.int32))


def read(path: Path) -> tuple[Views, NDArray[np.intp]]:
    """The segments of a prediction table, and their truth."""
    truth = pq.read_table(path.with_suffix(".truth.parquet")).to_pydict()
    place = {segment: i for i, segment in enumerate(truth["segment_id"])}
    classes = tuple(sorted(set(truth["label"])))
    rows = [row for row in pq.read_table(path).to_pylist() if row["probs"] is not None]
    names = tuple(dict.fromkeys(row["modality"] for row in rows))
    probs = np.full((len(place), len(names), len(classes)), np.nan)
    video = np.full(len(place), "", object)
    embeddings = [np.zeros((0, 0))] * len(names)
    for row in rows:
        i, v = place[row["segment_id"]], names.index(row["modality"])
        if not len(embeddings[v]):
            embeddings[v] = np.full((len(place), len(row["embedding"])), np.nan)
        probs[i, v], embeddings[v][i], video[i] = row["probs"], row["embedding"], row["video_id"]
    made = views_from_arrays(
        video.astype(str), probs, list(embeddings), names=names, classes=classes
    )
    return made, np.array([classes.index(label) for label in truth["label"]])


def score(views: Views, truth: NDArray[np.intp], strategy: str) -> tuple[float, str]:
    """Macro-F1 and what decided."""
    fused = fuse(views, strategy)
    probs = fused.opinion.probs["label"]
    said = np.where(np.isfinite(probs).all(axis=1), np.nan_to_num(probs).argmax(axis=1), -1)
    count = tally(truth, said, np.zeros(len(truth), np.intp), np.ones(len(truth), bool), 1, 3)
    return float(macro_f1(count[0])), fused.report["targets"].get("label", {}).get("decides", "")


def main(folder: Path, strategy: str = "crossview") -> None:
    for path in sorted(folder.glob("*.parquet")):
        if path.name.endswith(".truth.parquet"):
            continue
        views, truth = read(path)
        line = [f"{path.stem:<14} late {score(views, truth, 'late-product')[0]:.3f}"]
        for name, video in groupings(views).items():
            f1, decides = score(regrouped(views, video), truth, strategy)
            line.append(f"{name} {f1:.3f} {decides[:1]}")
        print(", ".join(line), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
