"""What the weights are trusted on: association, information held out, names, samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.fusion.segments import segments
from vsa_core.fusion import weighing
from vsa_core.fusion.crossview import learn, vote_evidence
from vsa_core.fusion.information import Weights, softmax
from vsa_core.fusion.strategies import assign_folds
from vsa_core.fusion.weighing import association, kappa, kappa_of, named_as_voted, sample_of

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def test_association_of_votes_of_other_segments_is_chance() -> None:
    made = segments(n=500)
    video = made.views.video
    assert association(made.probs, video) > 8
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        mixed = made.probs.copy()
        mixed[:, 1] = mixed[rng.permutation(500), 1]
        found.append(association(mixed, video))
    assert abs(np.mean(found)) < 0.6  # mean 0, standard deviation 1
    assert 0.6 < np.std(found) < 1.5


def test_association_counts_nothing_that_a_video_shares() -> None:
    rng = np.random.default_rng(0)
    video = np.repeat(np.arange(20), 50)
    lean = 3 * rng.normal(size=(20, 1, 3))[video]
    z = lean + rng.normal(size=(1000, 2, 3))
    assert association(softmax(z), video) < 3
    assert association(softmax(z), np.zeros(1000, np.intp)) > 10


@pytest.mark.parametrize("size", [1, 2, 3, 5, 30])
def test_association_is_as_sure_however_long_videos_are(size: int) -> None:
    made = segments(n=600)
    whole = association(made.probs, np.zeros(600, np.intp))
    assert whole > 8
    assert association(made.probs, np.arange(600) // size) == pytest.approx(whole, rel=0.15)
    mixed = np.repeat(np.arange(320), np.r_[np.ones(300, np.intp), np.full(20, 15)])
    assert association(made.probs, mixed) == pytest.approx(whole, rel=0.15)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_association_of_other_segments_is_chance_in_short_videos(size: int) -> None:
    made = segments(n=500)
    found = []
    for seed in range(40):
        mixed = made.probs.copy()
        mixed[:, 1] = mixed[np.random.default_rng(seed).permutation(500), 1]
        found.append(association(mixed, np.arange(500) // size))
    assert abs(np.mean(found)) < 0.6
    assert 0.6 < np.std(found) < 1.5


def test_association_counts_nothing_that_short_videos_share() -> None:
    """What all videos share between their segments is taken off clips of one segment too."""
    rng = np.random.default_rng(0)
    for sizes in (np.full(500, 2), np.full(200, 5), np.r_[np.full(100, 8), np.ones(200, int)]):
        video = np.repeat(np.arange(len(sizes)), sizes)
        lean = 3 * rng.normal(size=(len(sizes), 1, 3))[video]
        z = lean + rng.normal(size=(len(video), 2, 3))
        assert association(softmax(z), video) < 4
        assert association(softmax(z), np.zeros(len(video), np.intp)) > 10


def test_association_needs_two_votes() -> None:
    made = segments(n=100)
    made.probs[:, 1] = np.nan
    assert association(made.probs, made.views.video) == 0.0
    assert association(made.probs[:0], made.views.video[:0]) == 0.0


def test_information_of_unrelated_views_is_not_significant() -> None:
    made = segments(n=900)
    rng = np.random.default_rng(1)
    order = rng.permutation(900)
    made.probs[:, 1] = made.probs[order, 1]
    assert made.embeddings[1] is not None
    made.embeddings[1] = made.embeddings[1][order]
    views = made.views
    folds = assign_folds(views, 5, 0)[views.video]
    votes = vote_evidence(views.probs["label"])
    fit = weighing.Fitter(votes, views, np.arange(900), None)
    found = weighing.compare(fit, np.zeros_like(votes), views, "label", folds, True)
    assert found["decides"] == "neither"
    mean, error = found["information_nats"]["votes"]
    assert mean < 2 * error
    report = learn(views, folds).targets["label"].report
    assert report["decides"] == "product"


def test_classes_are_named_as_voted_after_any_permutation() -> None:
    made = segments(n=600, accuracy=0.7)
    views, votes = made.views, vote_evidence(made.probs)
    nothing, rows = np.zeros_like(votes), np.arange(600)
    plain = Weights(
        np.repeat(np.eye(3)[None], 2, axis=0),
        np.zeros((2, 3, 3)),
        np.array([[0.1, 0, -0.1], [0, 0.2, -0.2]]),
        np.log([0.3, 0.3, 0.4]),
    )
    for turn in ([0, 1, 2], [1, 2, 0], [2, 1, 0], [0, 2, 1]):
        turned = replace(
            plain,
            votes=plain.votes[:, :, turn],
            bias=plain.bias[:, turn],
            log_prior=plain.log_prior[turn],
        )
        named = named_as_voted(turned, votes, nothing, views, rows, made.probs)
        assert np.array_equal(named.votes, plain.votes)
        assert np.array_equal(named.bias, plain.bias)
        assert np.array_equal(named.log_prior, plain.log_prior)
        assert named.votes.flags.c_contiguous


def test_kappa_by_hand() -> None:
    ours = np.eye(2)[[0, 0, 1, 1]]
    assert kappa_of(ours, np.array([0, 0, 1, 1])) == 1.0
    assert kappa_of(ours, np.array([0, 1, 0, 1])) == 0.0
    assert kappa_of(ours, np.array([1, 1, 0, 0])) == -1.0
    assert kappa_of(ours[:2], np.array([0, 0])) == 1.0
    assert kappa(ours, np.full((4, 2, 2), np.nan)) == 1.0


def test_the_sample_is_of_segments_with_two_views_and_what_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = segments(n=600)
    made.probs[:100, 0] = np.nan
    assert made.embeddings[0] is not None
    made.embeddings[0][:100] = np.nan
    views = made.views
    assert sample_of(views, None, 0).tolist() == list(range(100, 600))
    known = np.array([3, 200]), np.array([0, 1])
    monkeypatch.setattr(weighing, "_FITTED", 150)
    monkeypatch.setattr(weighing, "_FITTED_PER_VIDEO", 20)
    some = sample_of(views, known, 0)
    assert 150 <= len(some) <= 152
    assert {3, 200} <= set(some.tolist())
    assert np.bincount(views.video[some]).max() <= 21
    assert (np.diff(some) > 0).all()
    assert (
        some.tolist() == sample_of(views, known, 0).tolist() != sample_of(views, known, 1).tolist()
    )
