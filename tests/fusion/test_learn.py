"""Training the student: what it learns, what it never sees, what it survives; that it repeats."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.fusion.taught import NAMES, QUICK, Made, accuracy, made, shuffled
from vsa_core.errors import UsageError
from vsa_core.fusion import descend
from vsa_core.fusion.inputs import EMBEDDING, VOTES
from vsa_core.fusion.learn import split, train_student
from vsa_core.fusion.student import Student
from vsa_core.fusion.views import Held, views_from_arrays


@pytest.fixture(scope="module")
def these() -> Made:
    return made()


@pytest.fixture(scope="module")
def student(these: Made) -> Student:
    return train_student(these.views, {"label": these.soft}, these.folds, QUICK)


def test_the_same_bytes_on_any_number_of_threads_and_in_any_blocks(
    student: Student, these: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            again = train_student(shuffled(these.views), {"label": these.soft}, these.folds, QUICK)
            assert again.to_bytes() == student.to_bytes()
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    other = train_student(
        these.views, {"label": these.soft}, these.folds, QUICK.model_copy(update={"seed": 1})
    )
    assert other.to_bytes() != student.to_bytes()


def test_members_trained_in_two_groups_are_the_same_members(
    student: Student, these: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descend, "_TWO_THREADS", 0)
    two = [train_student(these.views, {"label": these.soft}, these.folds, QUICK) for _ in range(2)]
    assert two[0].to_bytes() == two[1].to_bytes()
    # The batched products may round differently, so the members are the same but for that.
    assert two[0].facts["checks"] == student.facts["checks"]
    want = student.infer(these.views, these.folds)[0]["label"]
    got = two[0].infer(these.views, these.folds)[0]["label"]
    np.testing.assert_allclose(got, want, atol=1e-3)


def test_a_member_never_sees_its_own_folds_videos() -> None:
    """Labels are random per video and the embedding names the video: only memory could know."""
    rng = np.random.default_rng(0)
    n, videos = 1200, 40
    video = np.sort(np.arange(n) % videos)
    label = rng.permutation(np.arange(videos) % 3)[video]
    views = views_from_arrays(
        np.array([f"v{i:02d}" for i in video]),
        np.full((n, 1, 3), np.nan),
        [6 * np.eye(videos)[video] + 0.1 * rng.normal(size=(n, videos))],
        names=("text",),
        classes=NAMES,
    )
    folds = views.video % 5
    soft = np.eye(3, dtype=np.float32)[label]
    student = train_student(views, {"label": soft}, folds, QUICK)
    said = [
        student.infer(views, np.full(n, m))[0]["label"].argmax(axis=1) == label for m in range(5)
    ]
    seen = [said[m][split(views.video, folds, m, QUICK.seed).train].mean() for m in range(5)]
    unseen = [said[m][folds == m].mean() for m in range(5)]
    assert np.mean(seen) > 0.6
    assert np.mean(unseen) < 0.45
    # Other labels in a fold's videos change every member but the fold's own.
    soft[folds == 2] = soft[folds == 2][:, [1, 2, 0]]
    other = train_student(views, {"label": soft}, folds, QUICK)
    before, after = (s.network.state_dict() for s in (student, other))
    for member in range(5):
        same = all(torch.equal(before[k][member], after[k][member]) for k in before)
        assert same == (member == 2)


def test_neither_training_nor_stopping_uses_the_own_fold_and_they_share_no_video() -> None:
    video = np.sort(np.arange(600) % 23)
    folds = video % 5
    for member in range(5):
        train, inner = split(video, folds, member, 0)
        assert not (folds[np.concatenate([train, inner])] == member).any()
        assert not set(video[train]) & set(video[inner])
        assert len(train) + len(inner) == (folds != member).sum()
        assert 0.2 <= len(inner) / (folds != member).sum() < 0.3


def test_a_single_other_video_gives_its_last_fifth_to_stop_by() -> None:
    video = np.repeat([0, 1], 50)
    train, inner = split(video, video, 0, 0)
    assert train.tolist() == list(range(50, 90))
    assert inner.tolist() == list(range(90, 100))


@pytest.mark.parametrize(
    "case",
    [
        {"n": 30, "videos": 4, "folds": 2},
        {"n": 30, "videos": 2, "folds": 2},
        {"n": 300, "absent": 0.8},
    ],
)
def test_small_and_sparse_sets(case) -> None:
    few = made(**case)
    student = train_student(few.views, {"label": few.soft}, few.folds, QUICK)
    probs, _ = student.infer(few.views, few.folds)
    heard = few.views.present.any(axis=1)
    assert (np.isfinite(probs["label"]).all(axis=1) == heard).all()
    assert np.isfinite(student.facts["held_out_loss"]).all()
    assert accuracy(student, few) > 0.4


def test_a_constant_view_and_a_class_without_targets() -> None:
    these = made()
    text, sound, _ = these.views.embeddings
    assert isinstance(sound, Held)
    flat = Held(sound.rows, np.full_like(sound.vectors, 7.0))
    views = dataclasses.replace(these.views, embeddings=(text, flat, these.views.embeddings[2]))
    soft = these.soft.copy()
    soft[these.truth == 2] = np.nan
    soft[:, 2] = 0
    soft /= soft.sum(axis=1, keepdims=True)
    student = train_student(views, {"label": soft}, these.folds, QUICK)
    said = student.infer(views, these.folds)[0]["label"]
    known = (these.truth < 2) & np.isfinite(said).all(axis=1)
    assert (said[known].argmax(axis=1) == these.truth[known]).mean() > 0.75
    assert np.nanmax(said[known, 2]) < 0.2


def test_two_targets_are_trained_together_each_on_its_own_segments(these: Made) -> None:
    n = len(these.views)
    five = np.eye(5, dtype=np.float32)[these.truth + 1]
    five[::2] = np.nan
    three = these.soft.copy()
    three[1::4] = np.nan
    votes = np.full((n, 3, 5), np.nan, np.float32)
    votes[:, 2] = 0.2
    votes[~these.views.present] = np.nan
    views = dataclasses.replace(
        these.views,
        classes={"sentiment": NAMES, "emotion": tuple("vwxyz")},
        probs={"sentiment": these.views.probs["label"], "emotion": votes},
    )
    student = train_student(views, {"sentiment": three, "emotion": five}, these.folds, QUICK)
    assert [i.votes for i in student.inputs] == [("sentiment",), (), ("sentiment", "emotion")]
    probs, _ = student.infer(views, these.folds)
    heard = views.present.any(axis=1)
    assert (probs["sentiment"][heard].argmax(axis=1) == these.truth[heard]).mean() > 0.75
    assert (probs["emotion"][heard].argmax(axis=1) == these.truth[heard] + 1).mean() > 0.75


@pytest.mark.parametrize("read", [(EMBEDDING,), (VOTES,)])
def test_it_reads_what_it_is_told_to(these: Made, read) -> None:
    student = train_student(these.views, {"label": these.soft}, these.folds, QUICK, read=read)
    widths = {i.name: (i.width, len(i.votes)) for i in student.inputs}
    assert widths == (
        {"text": (12, 0), "sound": (5, 0)}
        if read == (EMBEDDING,)
        else {"text": (0, 1), "face": (0, 1)}
    )
    _, attention = student.infer(these.views, these.folds)
    unread = these.views.names.index("face" if read == (EMBEDDING,) else "sound")
    alone = these.views.present.sum(axis=1) == these.views.present[:, unread]
    column = attention[these.views.present[:, unread] & ~alone, unread]
    assert (column == 0).all()
    assert np.isnan(attention[alone]).all()
    assert accuracy(student, these) > 0.6


def test_weights_decide_what_counts(these: Made) -> None:
    """Half the segments carry wrong labels: with no weight they teach nothing."""
    wrong = np.random.default_rng(3).random(600) < 0.6
    soft = these.soft.copy()
    soft[wrong] = soft[wrong][:, [1, 2, 0]]
    weight = {"label": np.where(wrong, 0.0, 1.0)}
    taught = train_student(these.views, {"label": soft}, these.folds, QUICK, weights=weight)
    misled = train_student(these.views, {"label": soft}, these.folds, QUICK)
    assert accuracy(taught, these) > 0.75 > 0.6 > accuracy(misled, these)


def test_a_sample_of_the_segments_is_enough(these: Made) -> None:
    few = QUICK.model_copy(update={"max_train": 300})
    student = train_student(these.views, {"label": these.soft}, these.folds, few)
    assert student.facts["sampled"] == 300 < student.facts["segments"]
    assert accuracy(student, these) > 0.75


def test_one_fold_is_refused_in_one_line(these: Made) -> None:
    with pytest.raises(UsageError, match="nothing to train"):
        train_student(these.views, {"label": these.soft}, np.zeros(600, int), QUICK)
    soft = these.soft.copy()
    soft[these.folds != 1] = np.nan
    with pytest.raises(UsageError, match="without the videos of fold 2 of 5"):
        train_student(these.views, {"label": soft}, these.folds, QUICK)


def test_progress_is_told_and_can_stop_the_training(these: Made) -> None:
    told: list[float] = []
    train_student(these.views, {"label": these.soft}, these.folds, QUICK, progress=told.append)
    assert told[-1] == 1.0
    assert told == sorted(told)

    class Enough(BaseException):
        pass

    def stop(_: float) -> None:
        raise Enough

    long = QUICK.model_copy(update={"max_epochs": 100_000, "patience": 100_000})
    with pytest.raises(Enough):
        train_student(these.views, {"label": these.soft}, these.folds, long, progress=stop)


def test_segment_ids_do_not_matter(student: Student, these: Made) -> None:
    renamed = dataclasses.replace(
        these.views, segment_ids=pa.array([f"s{i}" for i in range(600, 0, -1)])
    )
    again = train_student(renamed, {"label": these.soft}, these.folds, QUICK)
    assert again.to_bytes() == student.to_bytes()
