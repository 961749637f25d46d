"""What fusing costs: the cross-view engine and its network, in time and in memory."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks import segments
from benchmarks.measure import VSA, scratch, timed, watched
from vsa_core.fusion.crossview import ROUNDS, vote_evidence
from vsa_core.fusion.experts import one_blas_thread
from vsa_core.fusion.information import VOTE_WEIGHT, softmax
from vsa_core.fusion.strategies import assign_folds, fuse
from vsa_core.fusion.views import Views

_FOLDS = 5


def speed(count: int = 100_000) -> None:
    """The strategies on embeddings in memory, against a plain pass over them and plain numpy."""
    views, truth = segments.held(count)
    matrices = [np.concatenate([x for _, x in e.blocks()]) for e in views.embeddings]
    with one_blas_thread():
        _, one_pass = timed(lambda: [x.T @ x for x in matrices])
        peer, plainly = timed(lambda: plain(views, matrices))
    fuse(segments.held(2000)[0], "crossview-attention")  # imports are not what is measured
    teacher, taught = timed(lambda: fuse(views, "crossview"))
    both, attended = timed(lambda: fuse(views, "crossview-attention"))

    def right(posterior: NDArray[np.floating]) -> float:
        return float((posterior.argmax(axis=1) == truth).mean())

    print(
        f"fusion: {count:,} segments, d = {' + '.join(map(str, segments.WIDTHS.values()))}: "
        f"crossview {taught.wall:.1f} s ({taught.cpu:.1f} s of processor time), "
        f"crossview-attention {attended.wall:.1f} s ({attended.cpu:.1f})"
    )
    print(
        f"  processor time of crossview against one XᵀX of the embeddings ({one_pass.cpu:.2f} s): "
        f"{taught.cpu / one_pass.cpu:.1f}×; against plain numpy, {ROUNDS} rounds "
        f"({plainly.cpu:.1f} s): {taught.cpu / plainly.cpu:.2f}×; accuracy "
        f"{right(teacher.opinion.probs['label']):.3f}, with attention "
        f"{right(both.opinion.probs['label']):.3f}, plain {right(peer):.3f}"
    )


def plain(views: Views, matrices: Sequence[NDArray[np.float32]]) -> NDArray[np.floating]:
    """The same idea in plain numpy: discriminants taught by the other views, fixed weights.

    Embeddings are standardised and held whole, in double precision; a Gram matrix per fold is
    taken once. No video offsets, nothing is weighed.
    """
    folds = assign_folds(views, _FOLDS, 0)[views.video]
    wholes = [((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float64) for x in matrices]
    grams = [[x[folds == f].T @ x[folds == f] for f in range(_FOLDS)] for x in wholes]
    votes = VOTE_WEIGHT * vote_evidence(views.probs["label"])
    evidence = votes.copy()
    for _ in range(ROUNDS):
        heard = np.zeros_like(evidence)
        for v, x in enumerate(wholes):
            believed = softmax(evidence.sum(axis=0) - 0.5 * evidence[v])
            for f in range(_FOLDS):
                others = folds != f
                counts = believed[others].sum(axis=0)
                means = (believed[others].T @ x[others]) / counts[:, None]
                n, d = others.sum(), x.shape[1]
                within = np.sum([g for i, g in enumerate(grams[v]) if i != f], axis=0)
                within = (within - (means.T * counts) @ means) / n
                within += (50 + d) / n * np.trace(within) / d * np.eye(d)
                weights = np.linalg.solve(within, means.T)
                heard[v, ~others] = x[~others] @ weights - 0.5 * np.diag(means @ weights)
        evidence = votes + heard
    return softmax(evidence.sum(axis=0))


def memory(
    count: int = 2_000_000, strategies: Sequence[str] = ("crossview", "crossview-attention")
) -> None:
    """Peak memory and time of `vsa label` on a table far larger than memory should be."""
    size = 4 * count * sum(segments.WIDTHS.values())
    if shutil.disk_usage(tempfile.gettempdir()).free < 2.2 * size:
        raise SystemExit(
            f"{tempfile.gettempdir()} lacks {2.2 * size / 1e9:.0f} GB for the table and the "
            "scratch files: set TMPDIR to a folder on a larger disk"
        )
    with scratch() as folder:
        table = folder / "predictions.parquet"
        segments.write(table, count)
        print(f"fusion-memory: {count:,} segments, a table of {table.stat().st_size / 1e9:.1f} GB")
        for strategy in strategies:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            where = ["-o", str(folder / "labels.parquet"), "--strategy", strategy]
            names = ["--classes", ",".join(segments.CLASSES), "--json"]
            process = subprocess.Popen(
                [VSA, "label", str(table), *where, *names],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            peak = watched(process.pid)
            out, _ = process.communicate()
            if process.returncode:
                raise SystemExit(f"vsa label ended with {process.returncode}")
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = sum(after[:2]) - sum(before[:2])
            print(
                f"  {strategy}: {json.loads(out)['seconds']:.0f} s, {cpu:.0f} s of processor "
                f"time, peak {peak()} MB"
            )
