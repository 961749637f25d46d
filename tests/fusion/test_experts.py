"""The experts: sums in blocks are the dense computation, and no segment is judged by its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from vsa_core.fusion import experts as module
from vsa_core.fusion.experts import Expert, ViewSums, over_blocks, scores, without_offsets
from vsa_core.fusion.views import Held

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

N, D, K, FOLDS = 400, 7, 3, 4


@dataclass
class Case:
    x: NDArray[np.float32]
    rows: NDArray[np.intp]
    trained: NDArray[np.bool_]
    video: NDArray[np.intp]
    fold: NDArray[np.intp]
    believed: NDArray[np.float32]

    def sums(self, block: int = 4096) -> ViewSums:
        held = Held(self.rows, self.x[self.rows], block)
        return ViewSums(held, self.trained, self.fold, FOLDS, self.video)


def _case(d: int = D, seed: int = 0) -> Case:
    """Videos of 4 to 60 segments with offsets of their own, some rows without embedding."""
    rng = np.random.default_rng(seed)
    video = np.sort(rng.choice(12, N, p=np.r_[[0.01] * 2, [0.098] * 10]))
    y = rng.integers(0, K, N)
    x = 1.5 * rng.normal(size=(K, d))[y] + rng.normal(size=(N, d))
    x += 2 * rng.normal(size=(12, d))[video]
    rows = np.flatnonzero(rng.random(N) < 0.9)
    trained = np.zeros(N, bool)
    trained[rows] = rng.random(len(rows)) < 0.9
    believed = np.full((N, K), 0.1) + 0.7 * np.eye(K)[y]
    return Case(
        x.astype(np.float32), rows, trained, video, video % FOLDS, believed.astype(np.float32)
    )


def _dense(case: Case, fold: int) -> tuple[NDArray, NDArray]:
    """Weights and bias by the mixed model's equations, solved for means and offsets at once.

    `Σ_i Σ_k t_ik |z_i − b_video − M_k|² + SHRINK_VIDEO Σ_v |b_v|²` over the other folds' rows;
    the pooled covariance is what is left.
    """
    x = case.x[case.trained].astype(float)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    video, t = case.video[case.trained], case.believed[case.trained].astype(float)
    kept = case.fold[case.trained] != fold
    z, video, t = z[kept], video[kept], t[kept]
    all_sizes = np.bincount(case.video[case.trained])
    own = [v for v in np.unique(video) if all_sizes[v] >= module.MIN_VIDEO]
    of_video = (video[:, None] == own).astype(float)
    n, d = z.shape
    counts = np.diag(t.sum(axis=0) + 1e-6 * n)
    both = t.T @ of_video
    penalty = np.diag(of_video.sum(axis=0) + module.SHRINK_VIDEO)
    left = np.block([[counts, both], [both.T, penalty]])
    found = np.linalg.solve(left, np.r_[t.T @ z, of_video.T @ z])
    means, offsets = found[:K], found[K:]
    within = np.zeros((d, d))
    for k in range(K):
        rest = z - of_video @ offsets - means[k]
        within += (rest * t[:, [k]]).T @ rest
    within /= n
    within += (50 + d) / n * max(np.trace(within) / d, 1e-6) * np.eye(d)
    weights = np.linalg.solve(within, means.T)
    return weights, -0.5 * np.diag(means @ weights)


@pytest.mark.parametrize("block", [16, 4096])
def test_streamed_sums_are_the_dense_computation(block: int) -> None:
    case = _case()
    expert = case.sums(block).fit(case.believed)
    for fold in range(FOLDS):
        weights, bias = _dense(case, fold)
        size = np.abs(weights).max()  # single precision, and a ridge of 1e-6 on the means
        assert np.abs(expert.weights[fold] - weights).max() < 2e-5 * size
        assert np.abs(expert.bias[fold] - bias).max() < 2e-5 * np.abs(bias).max()


def test_offsets_are_what_the_video_shares_beyond_its_classes() -> None:
    case = _case()
    expert = case.sums().fit(case.believed)
    held = Held(case.rows, case.x[case.rows])
    embedded = np.isin(np.arange(N), case.rows)
    said = scores(held, expert, case.fold, N)
    heard = without_offsets(said, case.believed, expert, case.fold, embedded, case.video)
    z = expert.standardised(case.x).astype(float)
    for v in np.unique(case.video):
        at = (case.video == v) & embedded
        fold = case.fold[at][0]
        means = expert.means[fold]
        offset = (z[at] @ expert.weights[fold] - case.believed[at] @ means).sum(axis=0)
        offset *= (at.sum() >= module.MIN_VIDEO) / (at.sum() + module.SHRINK_VIDEO)
        aim = z[at] @ expert.weights[fold] + expert.bias[fold] - offset
        aim -= aim.mean(axis=1, keepdims=True)
        assert np.allclose(heard[at], aim, atol=1e-3)
    assert (heard[~embedded] == 0).all()


def test_the_size_of_blocks_does_not_matter() -> None:
    case = _case()
    one, many = case.sums(4096).fit(case.believed), case.sums(7).fit(case.believed)
    assert np.allclose(one.weights, many.weights, rtol=1e-3, atol=1e-5)
    assert np.allclose(one.bias, many.bias, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("cores", [2, 5])
def test_any_number_of_threads_gives_the_same_bits(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = _case(d=33)

    def learned(count: int) -> list[bytes]:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)), raising=False)
        expert = case.sums(16).fit(case.believed)
        said = scores(Held(case.rows, case.x[case.rows], 16), expert, case.fold, N)
        return [*_bytes(expert), said.tobytes()]

    assert learned(1) == learned(cores)


def test_no_expert_is_taught_by_the_videos_it_judges() -> None:
    """Whatever becomes of a video, what was learned without its fold stays to the bit."""
    case = _case()
    # Beliefs only: the standardisation is taken over all segments, which needs no belief.
    before = case.sums().fit(case.believed)
    own = case.fold == 2
    case.believed[own] = np.random.default_rng(1).dirichlet([1] * K, own.sum())
    after = case.sums().fit(case.believed)
    assert before.weights[2].tobytes() == after.weights[2].tobytes()
    assert before.bias[2].tobytes() == after.bias[2].tobytes()
    assert before.means[2].tobytes() == after.means[2].tobytes()
    assert not np.allclose(before.weights[1], after.weights[1])


def test_embeddings_of_a_fold_reach_its_expert_by_their_scale_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = _case()
    fixed = np.zeros(D), np.ones(D)
    monkeypatch.setattr(ViewSums, "_standard", lambda self, d: fixed)
    before = case.sums().fit(case.believed)
    own = case.fold == 2
    case.x[own] = 3 * np.random.default_rng(1).normal(size=(own.sum(), D))
    after = case.sums().fit(case.believed)
    assert before.weights[2].tobytes() == after.weights[2].tobytes()
    assert before.means[2].tobytes() == after.means[2].tobytes()
    assert not np.allclose(before.weights[1], after.weights[1])


def test_a_constant_column_says_nothing() -> None:
    case = _case()
    plain = case.sums().fit(case.believed)
    case.x = np.c_[case.x, np.full(N, 7.0), np.zeros(N), np.full(N, 1e-44)].astype(np.float32)
    case_with = case.sums().fit(case.believed)
    assert np.abs(case_with.weights[:, D:]).max() < 1e-6
    # The ridge counts columns, so the others' weights move a little.
    angle = (case_with.weights[:, :D] * plain.weights).sum()
    angle /= np.linalg.norm(case_with.weights[:, :D]) * np.linalg.norm(plain.weights)
    assert angle > 0.99


def test_a_class_nobody_believes_in_breaks_nothing() -> None:
    case = _case()
    case.believed[:] = np.eye(K)[case.believed.argmax(axis=1) % 2]
    expert = case.sums().fit(case.believed)
    assert all(np.isfinite(getattr(expert, f)).all() for f in ("weights", "bias", "means"))
    said = scores(Held(case.rows, case.x[case.rows]), expert, case.fold, N)
    right = said[case.rows, :2].argmax(axis=1) == case.believed[case.rows, :2].argmax(axis=1)
    assert right.mean() > 0.7


@pytest.mark.parametrize("d", [1, 700])
def test_one_column_and_more_columns_than_segments(d: int) -> None:
    case = _case(d)
    expert = case.sums(64).fit(case.believed)
    assert expert.weights.shape == (FOLDS, d, K)
    assert np.isfinite(expert.weights).all()
    held, embedded = Held(case.rows, case.x[case.rows]), np.isin(np.arange(N), case.rows)
    said = scores(held, expert, case.fold, N)
    heard = without_offsets(said, case.believed, expert, case.fold, embedded, case.video)
    right = heard[case.rows].argmax(axis=1) == case.believed[case.rows].argmax(axis=1)
    assert right.mean() > 0.42  # chance is a third


def test_broken_measurements_are_cut_off() -> None:
    case = _case()
    expert = case.sums().fit(case.believed)
    wild = np.full((2, D), 1e30, np.float32)
    assert np.abs(expert.standardised(wild)).max() <= 10


def test_new_videos_are_judged_by_the_mean_of_all_experts() -> None:
    case = _case()
    expert = case.sums().fit(case.believed)
    held = Held(case.rows, case.x[case.rows])
    new = scores(held, expert, np.full(N, -1), N)
    each = [scores(held, expert, np.full(N, f), N) for f in range(FOLDS)]
    assert np.allclose(new, np.mean(each, axis=0), atol=1e-3)


def test_an_error_in_a_block_comes_through() -> None:
    def fail(_: object) -> None:
        raise ValueError("unreadable")

    with pytest.raises(ValueError, match="unreadable"):
        list(over_blocks(Held(np.arange(3), np.zeros((3, 2), np.float32)), fail))


def test_blocks_come_back_in_their_order() -> None:
    class Slow:
        width = 1

        def blocks(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
            for i in range(20):
                yield np.array([i]), np.zeros((1, 1), np.float32)

    assert [int(r) for r in over_blocks(Slow(), lambda block: block[0][0])] == list(range(20))


def _bytes(expert: Expert) -> list[bytes]:
    return [getattr(expert, field).tobytes() for field in expert.__dataclass_fields__]
