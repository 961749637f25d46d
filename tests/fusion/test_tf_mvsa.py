"""TF-MVSA: what it is trained on, who decides where, and when there is too little consensus."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from numpy.typing import NDArray

from vsa_core.agree import agreement
from vsa_core.config import Fusion
from vsa_core.fusion import late
from vsa_core.fusion.inputs import VOTES
from vsa_core.fusion.tf_mvsa import consensus_targets, tf_mvsa
from vsa_core.fusion.views import Views, views_from_arrays

QUICK = Fusion(width=16, max_epochs=30, patience=6, learning_rate=1e-2, batch_size=128)


def made(n: int = 900, videos: int = 9, seed: int = 0) -> tuple[Views, NDArray[np.intp]]:
    """Two voters, wrong at random; only the embedding of sound, which does not vote, is clear."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, n)
    said = np.full((n, 3, 3), np.nan)
    for v in range(2):
        voted = np.where(rng.random(n) < 0.5, truth, rng.integers(0, 3, n))
        top = rng.uniform(0.55, 0.9, n)
        said[:, v] = ((1 - top) / 2)[:, None]
        said[np.arange(n), v, voted] = top
    said[rng.random(n) < 0.1, 0] = np.nan
    said[rng.random(n) < 0.1, 1] = np.nan
    sound = 2.5 * np.eye(3, 8)[truth] + rng.normal(size=(n, 8))
    sound[rng.random(n) < 0.1] = np.nan
    views = views_from_arrays(
        np.array([f"v{i}" for i in np.sort(np.arange(n) % videos)]),
        said,
        [rng.normal(size=(n, 4)), None, sound],
        names=("text", "face", "sound"),
        classes=("negative", "neutral", "positive"),
    )
    return views, truth


def test_who_decides_where() -> None:
    views, truth = made()
    votes = agreement(views.probs["label"], 0.5)
    out = tf_mvsa(views, views.video % 3, QUICK, 0.5)
    assert out.note is None
    assert out.student is not None
    probs, said = out.probs["label"], views.probs["label"]
    mean = late.mean(said)
    for state in ("agree", "single"):
        rows = votes.states == state
        assert rows.any()
        np.testing.assert_allclose(probs[rows], mean[rows])
    assert (votes.states == "absent").any()
    assert np.isnan(probs[votes.states == "absent"]).all()
    network, attention = out.student.infer(views, views.video % 3)
    torn = votes.states == "disagree"
    np.testing.assert_allclose(probs[torn], network["label"][torn])
    np.testing.assert_allclose(out.attention[torn], attention[torn])
    agree = votes.states == "agree"
    shares = np.where(views.present[agree], [0.5, 0.5, 0.0], np.nan)
    np.testing.assert_allclose(out.attention[agree], shares)
    # The network learned from the votes what they do not know of the others.
    heard = torn & np.isfinite(attention[:, 2])
    right = probs[heard].argmax(axis=1) == truth[heard]
    assert right.mean() > 0.8 > 0.6 > (mean[heard].argmax(axis=1) == truth[heard]).mean()


def test_the_network_reads_embeddings_alone_and_trains_on_agreeing_segments_alone() -> None:
    views, _ = made()
    folds = views.video % 3
    out = tf_mvsa(views, folds, QUICK, 0.5)
    assert out.student is not None
    assert VOTES not in out.student.facts["read"]
    assert [(i.name, i.votes) for i in out.student.inputs] == [("text", ()), ("sound", ())]
    votes = agreement(views.probs["label"], 0.5)
    assert out.student.facts["segments"] == votes.agreed.any(axis=1).sum()
    # Other votes on segments that still disagree change nothing of what is learned.
    said = views.probs["label"].copy()
    torn = votes.states == "disagree"
    said[torn, :2] = said[torn][:, [1, 0]]
    swapped = tf_mvsa(dataclasses.replace(views, probs={"label": said}), folds, QUICK, 0.5)
    assert swapped.student is not None
    assert swapped.student.to_bytes() == out.student.to_bytes()


def test_classes_count_the_same_however_frequent() -> None:
    said = np.zeros((100, 2, 3))
    said[:90, :, 0] = said[90:98, :, 1] = said[98:, :, 2] = 1
    said[5, 1] = [0, 1, 0]
    labels, weights = consensus_targets(agreement(said, 0.5), min_per_class=4)
    assert np.isnan(labels[5]).all()
    assert weights[5] == 0
    per_class = [np.nansum(weights * labels[:, k]) for k in range(3)]
    np.testing.assert_allclose(per_class, [33, 33, 16.5])  # two segments count as half of four


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"min_consensus": 2000}, "of 900 segments agree, a network needs 2000"),
        ({"min_per_class": 800}, "fewer than two classes are agreed on 800 times"),
        ("one video", "of one video or fold, none can be held out"),
        ("no embedding", "0 of .* agreeing segments have an embedding"),
    ],
)
def test_too_little_consensus_gives_the_mean_and_says_why(change, reason: str) -> None:
    views, _ = made()
    settings = QUICK.model_copy(update=change) if isinstance(change, dict) else QUICK
    folds = np.zeros(900, int) if change == "one video" else views.video % 3
    if change == "no embedding":
        views = views_from_arrays(
            np.array(views.videos)[views.video],
            views.probs["label"],
            [None, None, None],
            names=views.names,
            classes=("a", "b", "c"),
        )
    out = tf_mvsa(views, folds, settings, 0.5)
    assert out.student is None
    assert out.note is not None
    assert re.search(reason, out.note), out.note
    np.testing.assert_allclose(out.probs["label"], late.mean(views.probs["label"]))


def test_where_no_embedding_is_the_mean_decides() -> None:
    views, _ = made()
    blind = np.zeros(900, bool)
    blind[::10] = True
    said = views.probs["label"]
    video = np.array(views.videos)[views.video]
    held = []
    for e in views.embeddings:
        x = np.full((900, max(e.width, 1)), np.nan)
        for rows, vectors in e.blocks():
            x[rows] = vectors
        x[blind] = np.nan
        held.append(x)
    views = views_from_arrays(video, said, held, names=views.names, classes=("a", "b", "c"))
    out = tf_mvsa(views, views.video % 3, QUICK, 0.5)
    assert out.student is not None
    torn = blind & (agreement(said, 0.5).states == "disagree")
    assert torn.any()
    np.testing.assert_allclose(out.probs["label"][torn], late.mean(said)[torn])
    np.testing.assert_allclose(np.nansum(out.attention[torn], axis=1), 1)


def test_a_second_target_is_trained_where_there_is_consensus_on_it() -> None:
    views, truth = made()
    first = views.probs["label"]
    emotion = np.full((900, 3, 4), np.nan, np.float32)
    emotion[..., :3] = 0.9 * first
    emotion[..., 3] = np.where(np.isnan(first[..., 0]), np.nan, 0.1)
    both = dataclasses.replace(
        views,
        classes={"sentiment": ("a", "b", "c"), "emotion": tuple("wxyz")},
        probs={"sentiment": first, "emotion": emotion},
    )
    out = tf_mvsa(both, views.video % 3, QUICK, 0.5)
    assert out.student is not None
    assert list(out.student.classes) == ["sentiment", "emotion"]
    torn = agreement(emotion, 0.0).states == "disagree"
    heard = torn & views.embedded[:, 2]
    assert (out.probs["emotion"][heard].argmax(axis=1) == truth[heard]).mean() > 0.75
    emotion[:, 1] = np.nan  # one voter: nobody to agree with
    out = tf_mvsa(both, views.video % 3, QUICK, 0.5)
    assert out.student is not None
    assert list(out.student.classes) == ["sentiment"]
    np.testing.assert_allclose(out.probs["emotion"], late.mean(emotion))
