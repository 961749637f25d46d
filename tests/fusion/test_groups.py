"""The gain is the same however segments are cut into videos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.grouping import cut, regrouped
from tests.fusion.segments import segments
from vsa_core.experiments.real import macro_f1, tally
from vsa_core.experiments.regimes import REGIMES, Drawn, draw
from vsa_core.fusion import groups as module
from vsa_core.fusion import late
from vsa_core.fusion.groups import group
from vsa_core.fusion.strategies import assign_folds, fuse
from vsa_core.fusion.views import Views

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def _f1(probs: NDArray, truth: NDArray) -> float:
    everything = np.zeros(len(truth), np.intp)
    said = probs.argmax(axis=1)
    return float(macro_f1(tally(truth, said, everything, everything == 0, 1, 3)[0]))


def _fused_f1(views: Views, truth: NDArray) -> float:
    (probs,) = fuse(views, "crossview").opinion.probs.values()
    return _f1(probs, truth)


def _drawn(name: str, seed: int = 31) -> Drawn:
    return draw(replace(REGIMES[name], segments=1500, videos=15), seed)


def _numbers(views: Views, how: str) -> NDArray:
    n, rng = len(views), np.random.default_rng(5)
    kind, _, size = how.partition(" ")
    if kind == "random":
        return rng.permutation(n).astype(np.int32) // int(size)
    if kind == "mixed":
        return cut(views.video, lambda: int(rng.choice([1, 1, 2, 5, 50, 100])))
    return cut(views.video, lambda: int(size))


_ALL = ("cut 1", "cut 2", "cut 3", "cut 5", "random 2", "random 5", "mixed")


@pytest.mark.parametrize(
    ("name", "hows"), [("shifted", _ALL), ("random", ("cut 1", "cut 3")), ("missing", ("cut 1",))]
)
def test_the_gain_is_the_same_however_segments_are_cut_into_videos(
    name: str, hows: tuple[str, ...]
) -> None:
    drawn = _drawn(name)
    long = _fused_f1(drawn.views, drawn.truth)
    pooled = _f1(late.product(drawn.views.probs["sentiment"]), drawn.truth)
    assert long > pooled + 0.05
    for how in hows:
        views = regrouped(drawn.views, _numbers(drawn.views, how))
        assert _fused_f1(views, drawn.truth) > long - 0.03, how


def test_nothing_is_lost_where_experts_cannot_help() -> None:
    drawn = _drawn("paper75")
    pooled = _f1(late.product(drawn.views.probs["sentiment"]), drawn.truth)
    for how in ("cut 1", "random 2", "mixed"):
        views = regrouped(drawn.views, _numbers(drawn.views, how))
        assert _fused_f1(views, drawn.truth) > pooled - 0.01, how


def test_clips_that_share_nothing_but_the_class_are_not_grouped_by_it() -> None:
    made = segments(n=600, videos=20, noise=0.4, accuracy=0.6, seed=2)
    clips = replace(made, videos=np.array([f"c{i:04}" for i in range(600)])).views
    assert not group(clips).found.any()
    long = _fused_f1(made.views, made.truth)
    assert long > _f1(late.product(made.probs), made.truth) + 0.1
    assert _fused_f1(clips, made.truth) > long - 0.03


def test_groups_are_what_clips_were_cut_from() -> None:
    drawn = _drawn("shifted")
    found = group(regrouped(drawn.views, np.arange(1500, dtype=np.int32)))
    assert found.found.all()
    of_one_video = [
        np.bincount(drawn.views.video[found.number == g]).max() for g in np.unique(found.number)
    ]
    assert sum(of_one_video) > 0.95 * 1500


class _Unread:
    width = 8

    def blocks(self) -> Iterator[tuple[NDArray, NDArray]]:
        raise AssertionError("the embeddings were read")


def test_long_videos_are_groups_of_their_own_without_a_look() -> None:
    made = segments(n=600, videos=600 // module.SHORT).views
    found = group(replace(made, embeddings=(_Unread(), _Unread())))
    assert (found.number == made.video).all()
    assert not found.found.any()


def test_a_long_video_among_clips_stays_a_group() -> None:
    drawn = _drawn("shifted")
    number = np.where(drawn.views.video == 3, 0, 1 + np.arange(1500)).astype(np.int32)
    found = group(regrouped(drawn.views, number))
    own = np.unique(found.number[drawn.views.video == 3])
    assert len(own) == 1
    assert not found.found[own[0]]
    assert (np.flatnonzero(found.number == own[0]) == np.flatnonzero(number == 0)).all()


@pytest.mark.parametrize("n", [0, 1, 30, 130])
def test_few_clips_are_left_alone_or_grouped_coarsely(n: int) -> None:
    made = segments(n=n, videos=max(n, 1), seed=1).views
    assert len(np.unique(group(made).number)) in (n, 4)


def test_folds_hold_whole_videos_and_what_looks_like_them() -> None:
    drawn = _drawn("shifted")
    pairs = regrouped(drawn.views, cut(drawn.views.video, lambda: 2))
    groups = group(pairs)
    folds = assign_folds(pairs, 5, 0, groups)
    assert folds.shape == (len(pairs.videos),)
    sizes = np.bincount(folds[pairs.video], minlength=5)
    assert sizes.min() > 150
    split = [len(np.unique(folds[pairs.video][groups.number == g])) for g in range(15)]
    assert np.mean(split) < 1.5
