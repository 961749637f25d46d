"""The student: whose judgement it gives, in whatever blocks, saved, and on new segments."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.fusion.taught import NAMES, QUICK, Made, accuracy, made, shuffled
from vsa_core.errors import StoreError, UsageError
from vsa_core.fusion.learn import train_student
from vsa_core.fusion.student import Student, skill
from vsa_core.fusion.views import Held


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
