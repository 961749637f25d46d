"""The student: what it learns, what it never sees, what it survives, and that it repeats."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

from vsa_core.config import Fusion
from vsa_core.errors import StoreError, UsageError
from vsa_core.fusion import descend
from vsa_core.fusion.inputs import EMBEDDING, VOTES
from vsa_core.fusion.learn import split, train_student
from vsa_core.fusion.student import Student, skill
from vsa_core.fusion.views import Embedding, Held, Views, views_from_arrays

QUICK = Fusion(width=16, max_epochs=30, patience=6, learning_rate=1e-2, batch_size=128)
NAMES = ("a", "b", "c")


@dataclass
class Made:
    """Segments whose class three views show: by embedding and votes, by either alone."""

    views: Views
    truth: NDArray[np.intp]
    folds: NDArray[np.intp]

    @property
    def soft(self) -> NDArray[np.float32]:
        """The truth as soft labels."""
        return np.where(np.eye(3)[self.truth] > 0, 0.9, 0.05).astype(np.float32)


def made(
    n: int = 600, videos: int = 10, folds: int = 5, absent: float = 0.2, seed: int = 0
) -> Made:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, n)
    video = np.sort(np.arange(n) % videos)
    text = 2 * np.eye(3, 12)[truth] + rng.normal(size=(n, 12))
    sound = 2 * np.eye(3, 5)[truth] + rng.normal(size=(n, 5))
    voted = np.where(rng.random((n, 3)) < 0.7, truth[:, None], rng.integers(0, 3, (n, 3)))
    said = np.exp(3 * np.eye(3)[voted] + rng.normal(size=(n, 3, 3)))
    said /= said.sum(axis=2, keepdims=True)
    said[:, 1] = np.nan  # sound does not vote
    gone = rng.random((n, 3)) < absent
    text[gone[:, 0]] = np.nan
    sound[gone[:, 1]] = np.nan
    said[gone] = np.nan
    views = views_from_arrays(
        np.array([f"v{i:03d}" for i in video]),
        said,
        [text, sound, None],
        names=("text", "sound", "face"),
        classes=NAMES,
    )
    return Made(views, truth, views.video.astype(np.intp) % folds)


def accuracy(student: Student, these: Made) -> float:
    probs, _ = student.infer(these.views, these.folds)
    heard = np.isfinite(probs["label"]).all(axis=1)
    return float((probs["label"].argmax(axis=1) == these.truth)[heard].mean())


@dataclass(frozen=True)
class Shuffled:
    """The same embeddings in blocks of another size, the rows in any order."""

    held: Held
    seed: int

    @property
    def width(self) -> int:
        return self.held.width

    def blocks(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        order = np.random.default_rng(self.seed).permutation(len(self.held.rows))
        for part in np.array_split(order, 7 + self.seed):
            yield self.held.rows[part], self.held.vectors[part]


def shuffled(views: Views) -> Views:
    others: list[Embedding] = [
        Shuffled(e, seed) if e.width else e for seed, e in enumerate(views.embeddings)
    ]
    return dataclasses.replace(views, embeddings=tuple(others))


@pytest.fixture(scope="module")
def these() -> Made:
    return made()


@pytest.fixture(scope="module")
def student(these: Made) -> Student:
    return train_student(these.views, {"label": these.soft}, these.folds, QUICK)


def test_it_learns_and_its_attention_is_over_what_is_there(student: Student, these: Made) -> None:
    assert accuracy(student, these) > 0.8
    for member in (these.folds, np.full(600, -1)):
        probs, attention = student.infer(these.views, member)
        heard = these.views.present.any(axis=1)
        assert not heard.all()  # some segments nobody sees: the test looks at them too
        assert np.isnan(probs["label"][~heard]).all()
        np.testing.assert_allclose(probs["label"][heard].sum(axis=1), 1, rtol=1e-5)
        assert (np.isnan(attention) == ~these.views.present).all()
        np.testing.assert_allclose(np.nansum(attention[heard], axis=1), 1, rtol=1e-5)
        assert probs["label"].dtype == np.float32


def test_each_segment_is_judged_by_its_member_or_by_the_mean(student: Student, these: Made) -> None:
    n = len(these.views)
    each = [student.infer(these.views, np.full(n, m))[0]["label"] for m in range(5)]
    mean = student.infer(these.views, np.full(n, -1))[0]["label"]
    np.testing.assert_allclose(mean, np.mean(each, axis=0), atol=1e-6)
    mixed = np.where(np.arange(n) % 3 == 0, -1, these.folds)
    want = np.stack([*each, mean])[mixed, np.arange(n)]
    np.testing.assert_allclose(student.infer(these.views, mixed)[0]["label"], want, atol=1e-6)


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


def test_blocks_in_any_order_and_parts_of_any_length_say_the_same(
    student: Student, these: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = np.where(np.arange(600) % 2 == 0, -1, these.folds)
    probs, attention = student.infer(these.views, member)
    monkeypatch.setattr("vsa_core.fusion.student._HELD_BYTES", 0)
    monkeypatch.setattr("vsa_core.fusion.student._BLOCK", 50)
    again, shares = student.infer(shuffled(these.views), member)
    np.testing.assert_allclose(again["label"], probs["label"], atol=1e-6)
    np.testing.assert_allclose(shares, attention, atol=1e-6)


def test_saved_and_read_again_it_says_the_same(student: Student, these: Made) -> None:
    data = student.to_bytes()
    again = Student.from_bytes(data)
    assert again.to_bytes() == data
    assert again.facts == student.facts
    assert again.classes == {"label": NAMES}
    got, shares = again.infer(these.views, these.folds)
    want, attention = student.infer(these.views, these.folds)
    np.testing.assert_array_equal(got["label"], want["label"])
    np.testing.assert_array_equal(shares, attention)


@pytest.mark.parametrize("spoil", [lambda b: b[:100], lambda b: b"", lambda b: b"x" * 400])
def test_what_is_no_model_is_refused_in_one_line(student: Student, spoil) -> None:
    with pytest.raises(StoreError, match="train it again"):
        Student.from_bytes(spoil(student.to_bytes()))


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


def test_huge_values_stay_finite() -> None:
    these = made(n=200)
    text = these.views.embeddings[0]
    assert isinstance(text, Held)
    text.vectors[::7] = 3e38
    text.vectors[1::7] = -3e38
    student = train_student(these.views, {"label": these.soft}, these.folds, QUICK)
    probs, _ = student.infer(these.views, these.folds)
    assert np.isfinite(probs["label"][these.views.present.any(axis=1)]).all()


def test_new_segments_may_lack_a_view_but_not_change_its_width(student: Student) -> None:
    new = made(n=50, seed=9)
    only = dataclasses.replace(
        new.views,
        names=("face", "text"),
        present=new.views.present[:, [2, 0]],
        embedded=new.views.embedded[:, [2, 0]],
        embeddings=(new.views.embeddings[2], new.views.embeddings[0]),
        probs={"label": new.views.probs["label"][:, [2, 0]]},
    )
    probs, attention = student.infer(only, np.full(50, -1))
    assert attention.shape == (50, 2)
    heard = only.present.any(axis=1)
    assert (probs["label"][heard].argmax(axis=1) == new.truth[heard]).mean() > 0.6
    text = only.embeddings[1]
    assert isinstance(text, Held)
    wide = Held(text.rows, np.zeros((len(text.rows), 13), np.float32))
    with pytest.raises(UsageError, match="text: the model takes embeddings 12 wide, these are 13"):
        student.infer(
            dataclasses.replace(only, embeddings=(only.embeddings[0], wide)), np.full(50, -1)
        )
    with pytest.raises(UsageError, match="reads votes on label"):
        student.infer(dataclasses.replace(only, probs={}), np.full(50, -1))


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


def test_skill_is_what_was_learned_of_what_there_was_to_learn(these: Made) -> None:
    soft = these.soft
    shares = np.broadcast_to(soft.mean(axis=0), soft.shape)
    assert skill(soft, soft) == pytest.approx(1)
    assert skill(shares, soft) == pytest.approx(0, abs=1e-4)
    assert skill(soft[:, [1, 2, 0]], soft) == 0
    assert 0.3 < skill((soft * shares) ** 0.5, soft) < 0.9
    half = soft.copy()
    half[::2] = np.nan
    assert skill(half, soft) == pytest.approx(1)
    assert skill(np.full_like(soft, np.nan), soft) == 0
    assert skill(shares, shares) == 0
