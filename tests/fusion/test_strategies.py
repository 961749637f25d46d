"""Every strategy by name: what it promises whatever it is given, and what labels add."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from tests.fusion.segments import Segments, segments
from vsa_core import config
from vsa_core.errors import StoreError, UsageError
from vsa_core.experiments.regimes import REGIMES, draw
from vsa_core.fusion.strategies import (
    STRATEGIES,
    Fused,
    Known,
    Model,
    assign_folds,
    fuse,
)
from vsa_core.fusion.student import skill
from vsa_core.fusion.views import Views

QUICK = config.Fusion(width=8, max_epochs=8, learning_rate=1e-2, patience=3)
ENGINE = "crossview"


@pytest.fixture(autouse=True)
def _every_odd_sum_is_an_error() -> Iterator[None]:
    with warnings.catch_warnings(), np.errstate(over="raise", divide="raise", invalid="raise"):
        warnings.simplefilter("error", RuntimeWarning)
        yield


def _checked(views: Views, strategy: str = ENGINE, **options: object) -> Fused:
    """What fusion says, after the promises that hold for any input."""
    fused = fuse(views, strategy, settings=QUICK, **options)
    (target,) = views.probs
    said = views.probs[target]
    probs, attention = fused.opinion.probs[target], fused.opinion.attention
    assert probs.shape == (len(views), said.shape[2])
    assert attention.shape == said.shape[:2]
    voted = np.isfinite(said).all(axis=2).any(axis=1)
    assert np.isfinite(probs[voted]).all()
    spoken = np.isfinite(probs).all(axis=1)
    assert np.isnan(probs[~spoken]).all()
    assert np.allclose(probs[spoken].sum(axis=1), 1)
    assert (probs[spoken] >= 0).all()
    assert not spoken[~views.present.any(axis=1)].any()
    assert np.isnan(attention[~views.present]).all()
    used = np.isfinite(attention).any(axis=1)
    assert used[voted].all()
    assert np.allclose(np.nansum(attention[used], axis=1), 1)
    json.dumps(fused.report, allow_nan=False)
    again = Model.from_files(fused.model.to_files().get).opinion(views)
    assert again.probs[target].tobytes() == probs.tobytes()
    return fused


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_keeps_its_promises(strategy: str) -> None:
    made = segments(n=300, accuracy=0.7)
    rng = np.random.default_rng(0)
    for v in range(2):
        gone = rng.random(300) < 0.3
        made.probs[gone, v] = np.nan
        x = made.embeddings[v]
        assert x is not None
        x[gone] = np.nan
    fused = _checked(made.views, strategy)
    probs = fused.opinion.probs["label"]
    said = np.isfinite(probs).all(axis=1)
    assert (~said).sum() == (~made.views.present.any(axis=1)).sum() > 0
    assert (probs[said].argmax(axis=1) == made.truth[said]).mean() > 0.65
    assert fused.report["strategy"] == strategy


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("n", [0, 1])
def test_next_to_nothing(strategy: str, n: int) -> None:
    fused = _checked(segments(n=n).views, strategy)
    assert len(fused.opinion.probs["label"]) == n


def _absent(made: Segments, share: float) -> None:
    rng = np.random.default_rng(1)
    for v, x in enumerate(made.embeddings):
        gone = rng.random(len(made.truth)) < share
        made.probs[gone, v] = np.nan
        assert x is not None
        x[gone] = np.nan


def _one_hot(made: Segments) -> None:
    made.probs = np.eye(made.probs.shape[2])[made.probs.argmax(axis=2)]


def _constant_view(made: Segments) -> None:
    made.probs[:, 1] = [0.5, 0.3, 0.2]
    made.embeddings[1] = np.full((len(made.truth), 8), 3.0)


def _constant_embeddings(made: Segments) -> None:
    made.embeddings = [np.zeros((len(made.truth), 8)), np.full((len(made.truth), 3), 1e30)]


def _never_votes(made: Segments) -> None:
    made.probs[:, 1] = np.nan


def _no_embeddings(made: Segments) -> None:
    made.embeddings = [None] * len(made.embeddings)


def _one_embedding(made: Segments) -> None:
    made.embeddings[1] = None


def _votes_alike(made: Segments) -> None:
    made.probs[:] = made.probs[:, :1]


def _all_one_class(made: Segments) -> None:
    made.probs[:] = np.eye(made.probs.shape[2])[0]


def _undecided(made: Segments) -> None:
    made.probs[:] = 1 / made.probs.shape[2]


def _never_together(made: Segments) -> None:
    half = len(made.truth) // 2
    for v, rows in enumerate((slice(0, half), slice(half, None))):
        made.probs[rows, v] = np.nan
        x = made.embeddings[v]
        assert x is not None
        x[rows] = np.nan


def _every_video_its_own(made: Segments) -> None:
    made.videos = np.array([f"v{i:05d}" for i in range(len(made.truth))])


def _one_segment_over_and_over(made: Segments) -> None:
    made.probs[:] = made.probs[0]
    made.embeddings = [np.repeat(x[:1], len(x), axis=0) for x in made.embeddings if x is not None]


def _huge(made: Segments) -> None:
    x = made.embeddings[0]
    assert x is not None
    made.embeddings[0] = (x * 3e37).astype(np.float32)


def _tiny_variance(made: Segments) -> None:
    x = made.embeddings[0]
    assert x is not None
    made.embeddings[0] = x * 1e-6 + 1000


def _one_wild_value(made: Segments) -> None:
    x = made.embeddings[0]
    assert x is not None
    x[5, 2] = 1e38


def _half_without_votes(made: Segments) -> None:
    made.probs[::2] = np.nan


@pytest.mark.parametrize(
    "spoil",
    [
        _one_hot,
        _constant_view,
        _constant_embeddings,
        _never_votes,
        _no_embeddings,
        _one_embedding,
        _votes_alike,
        _all_one_class,
        _undecided,
        _never_together,
        _every_video_its_own,
        _one_segment_over_and_over,
        _huge,
        _tiny_variance,
        _one_wild_value,
        _half_without_votes,
        lambda made: _absent(made, 0.3),
        lambda made: _absent(made, 0.8),
    ],
)
def test_the_engine_survives(spoil: Callable[[Segments], None]) -> None:
    made = segments(n=400)
    spoil(made)
    _checked(made.views)


@pytest.mark.parametrize(
    "shape",
    [
        {"n": 2, "videos": 2},
        {"n": 30, "videos": 3},
        {"videos": 1},
        {"videos": 2},
        {"views": 1},
        {"views": 5},
        {"views": 8, "noise": 0.2},
        {"classes": 2},
        {"classes": 7},
        {"n": 800, "classes": 20},
        {"width": [1, 300]},
        {"n": 60, "width": [200, 90]},
        {"prior": [0.9, 0.05, 0.05]},
        {"prior": [0.6, 0.4, 0.0]},
        {"n": 1500, "noise": 0.0, "accuracy": 0.9, "width": 32},
        {"n": 300, "noise": 0.001, "accuracy": 0.9, "views": 5, "prior": [0.97, 0.02, 0.01]},
    ],
    ids=str,
)
def test_the_engine_takes_any_shape(shape: dict[str, object]) -> None:
    made = segments(**shape)
    fused = _checked(made.views)
    if shape.get("n", 600) > 100:
        assert (fused.opinion.probs["label"].argmax(axis=1) == made.truth).mean() > 0.55


def test_where_nobody_votes_nothing_is_said() -> None:
    made = segments(n=200)
    made.probs[:] = np.nan
    fused = _checked(made.views)
    assert np.isnan(fused.opinion.probs["label"]).all()


def test_an_embedding_alone_is_enough_once_votes_have_taught_it() -> None:
    made = segments(n=800, accuracy=0.7)
    made.probs[::4] = np.nan
    probs = _checked(made.views).opinion.probs["label"][::4]
    assert np.isfinite(probs).all()
    assert (probs.argmax(axis=1) == made.truth[::4]).mean() > 0.8


def test_duplicated_segments_are_labelled_alike() -> None:
    made = segments(n=200)
    made.probs = np.tile(made.probs, (3, 1, 1))
    made.embeddings = [np.tile(x, (3, 1)) for x in made.embeddings if x is not None]
    made.videos = np.tile(made.videos, 3)
    probs = _checked(made.views).opinion.probs["label"]
    assert np.allclose(probs[:200], probs[200:400], atol=1e-6)


def test_doubles_and_singles_are_the_same() -> None:
    made = segments(n=400)
    singles = segments(n=400)
    singles.probs = singles.probs.astype(np.float32)
    singles.embeddings = [x.astype(np.float32) for x in singles.embeddings if x is not None]
    one, two = (_checked(m.views).opinion.probs["label"] for m in (made, singles))
    assert one.tobytes() == two.tobytes()


def test_an_unknown_strategy_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="no strategy 'best': take one of late-mean") as caught:
        fuse(segments(n=10).views, "best")
    assert "\n" not in str(caught.value)


def test_other_views_than_those_learned_from_are_refused() -> None:
    model = fuse(segments(n=200).views, ENGINE).model
    with pytest.raises(UsageError, match="trained on view0, view1, these segments have view0"):
        model.opinion(segments(n=10, views=1).views)


@pytest.mark.parametrize("about", [None, b"", b"{}", b"[1]", b"\xff", b'{"strategy": 1}'])
def test_files_that_are_no_model_are_refused(about: bytes | None) -> None:
    with pytest.raises(StoreError, match="not a fusion model"):
        Model.from_files({"fusion.json": about}.get)


@pytest.mark.parametrize("strategy", ["tf-mvsa", "crossview", "crossview-attention"])
def test_progress_reaches_the_end_and_may_stop_the_work(strategy: str) -> None:
    views = segments(n=300).views
    told: list[float] = []
    fuse(views, strategy, settings=QUICK, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0

    class StopError(Exception):
        pass

    def stop(share: float) -> None:
        raise StopError

    with pytest.raises(StopError):
        fuse(views, strategy, settings=QUICK, progress=stop)


def test_the_network_counts_by_half_of_what_it_learned_and_adds_no_confidence() -> None:
    views = segments(n=600, accuracy=0.5, noise=2.0).views
    fused = fuse(views, "crossview-attention", settings=QUICK)
    model, said = fused.model, fused.opinion.probs["label"]
    assert model.engine is not None
    assert model.network is not None
    engine = model.engine.probs(views, "label")
    network = model.network.infer(views, model.member(views))[0]["label"]
    share = fused.report["targets"]["label"]["network_share"]
    assert share == pytest.approx(0.5 * skill(network, engine))
    assert share > 0.1
    both = engine * network**share
    assert (said.argmax(axis=1) == both.argmax(axis=1)).all()
    assert (said.argmax(axis=1) != engine.argmax(axis=1)).any()
    both /= both.sum(axis=1, keepdims=True)
    sure = engine.max(axis=1).mean()
    assert both.max(axis=1).mean() > sure + 0.012
    assert said.max(axis=1).mean() == pytest.approx(sure, abs=0.006)


def test_known_labels_help() -> None:
    drawn = draw(REGIMES["weakface"], 11)
    rows = np.random.default_rng(0).permutation(len(drawn.truth))[:300]
    others = np.setdiff1d(np.arange(len(drawn.truth)), rows)

    def accuracy(known: Known | None) -> float:
        probs = fuse(drawn.views, ENGINE, known=known).opinion.probs["sentiment"]
        return float((probs[others].argmax(axis=1) == drawn.truth[others]).mean())

    assert accuracy(Known("sentiment", rows, drawn.truth[rows])) >= accuracy(None)


def test_known_labels_are_believed_where_votes_say_nothing() -> None:
    """Votes of other segments; only what humans said ties embeddings to classes."""
    made = segments(n=1200, accuracy=0.0, noise=0.5)
    rows = np.arange(0, 1200, 3)
    known = Known("label", rows, made.truth[rows])
    others = np.setdiff1d(np.arange(1200), rows)
    with_labels = _checked(made.views, known=known).opinion.probs["label"].argmax(axis=1)
    without = _checked(made.views).opinion.probs["label"].argmax(axis=1)
    right = (with_labels == made.truth)[others].mean()
    assert right > 0.8
    assert right > (without == made.truth)[others].mean() + 0.2


def test_known_labels_of_a_target_leave_the_others_alone() -> None:
    views = segments(n=300).views
    both = replace(
        views,
        probs={"label": views.probs["label"], "other": views.probs["label"]},
        classes={"label": views.classes["label"], "other": views.classes["label"]},
    )
    known = Known("other", np.arange(50), np.zeros(50, np.intp))
    one, two = fuse(both, ENGINE, known=known).opinion, fuse(both, ENGINE).opinion
    assert one.probs["label"].tobytes() == two.probs["label"].tobytes()
    assert one.probs["other"].tobytes() != two.probs["other"].tobytes()


def test_folds_hold_whole_videos_and_are_about_as_large() -> None:
    made = segments(n=997, videos=40)
    folds = assign_folds(made.views, 5, 3)
    sizes = np.bincount(folds[made.views.video])
    assert len(folds) == 40
    assert len(sizes) == 5
    assert np.ptp(sizes) <= 25
    assert (assign_folds(made.views, 5, 3) == folds).all()
    assert (assign_folds(made.views, 5, 4) != folds).any()


@pytest.mark.parametrize(("videos", "expected"), [(1, 1), (2, 2), (3, 3)])
def test_fewer_videos_give_fewer_folds(videos: int, expected: int) -> None:
    folds = assign_folds(segments(n=30, videos=videos).views, 5, 0)
    assert len(np.unique(folds)) == expected
