"""What contenders tell of labels that were hidden from them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.fusion.made import FACE, TEXT, planted, put
from vsa_core.fusion import late
from vsa_core.fusion.data import read_views
from vsa_core.fusion.telling import answers, hidden_votes, nats_told, without
from vsa_core.fusion.views import Views


def votes(truth: np.ndarray, right: float, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(len(truth)) < right, truth, rng.integers(0, 3, len(truth)))


def soft(labels: np.ndarray, top: float = 0.8) -> np.ndarray:
    return np.where(np.eye(3)[labels] > 0, top, (1 - top) / 2)


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Views:
    made = planted(120, 4, missing=0.2)
    store = put(tmp_path_factory.mktemp("store"), made)
    return read_views(store, made.video_ids, made.backends)


class TestNats:
    def test_who_knows_more_tells_more_of_labels_that_err(self) -> None:
        rng = np.random.default_rng(0)
        truth = rng.integers(0, 3, 3000)
        hidden = votes(truth, 0.5, rng)
        told = [
            nats_told(soft(votes(truth, right, rng)), hidden).mean() for right in (0.0, 0.5, 0.9)
        ]
        assert told[0] < 0.002
        assert told[0] + 0.02 < told[1] < told[2] - 0.05

    def test_neither_false_confidence_nor_modesty_decides(self) -> None:
        rng = np.random.default_rng(1)
        truth = rng.integers(0, 3, 3000)
        hidden, said = votes(truth, 0.7, rng), votes(truth, 0.7, rng)
        told = [nats_told(soft(said, top), hidden).mean() for top in (0.5, 0.8, 0.999)]
        assert max(told) - min(told) < 0.005
        # Each vote as it is: the surer of two that know the same would lose.
        raw = [np.log(soft(said, top)[np.arange(3000), hidden]).mean() for top in (0.5, 0.999)]
        assert raw[0] - raw[1] > 1

    def test_a_lopsided_hidden_voter_is_taken_as_it_is(self) -> None:
        rng = np.random.default_rng(2)
        truth = rng.integers(0, 3, 3000)
        hidden = np.where(rng.random(3000) < 0.6, truth, 1)  # all errors go to one class
        right = nats_told(soft(truth), hidden).mean()
        followed = nats_told(soft(votes(truth, 0.6, rng)), hidden).mean()
        assert right > followed + 0.1

    def test_classes_that_are_mixed_up_tell_nothing(self) -> None:
        rng = np.random.default_rng(3)
        truth = rng.integers(0, 3, 3000)
        hidden = votes(truth, 0.7, rng)
        assert (
            nats_told(soft((truth + 1) % 3), hidden).mean()
            < 0.002
            < nats_told(soft(truth), hidden).mean()
        )

    def test_of_no_label_there_is_nothing_to_tell(self) -> None:
        assert nats_told(np.zeros((0, 3)), np.zeros(0, np.intp)).shape == (0,)


class TestHiding:
    def test_a_hidden_view_is_absent_everywhere_and_the_rest_is_as_it_was(
        self, views: Views
    ) -> None:
        face = views.names.index(FACE)
        left = without(views, face)
        assert not left.present[:, face].any()
        assert not left.embedded[:, face].any()
        assert list(left.embeddings[face].blocks()) == []
        assert left.embeddings[face].width == views.embeddings[face].width
        assert np.isnan(left.probs["sentiment"][:, face]).all()
        others = np.delete(np.arange(3), face)
        assert (left.present[:, others] == views.present[:, others]).all()
        assert views.present[:, face].any()
        assert without(views, None) is views

    def test_confident_votes_are_asked_for_where_another_view_votes(self, views: Views) -> None:
        among = views.video < 3
        asked = hidden_votes(views, "sentiment", 0.5, among)
        said = np.isfinite(views.probs["sentiment"]).all(axis=2)
        assert [views.names[a.view] for a in asked if a.view is not None] == [TEXT, FACE]
        both = said[:, views.names.index(TEXT)] & said[:, views.names.index(FACE)] & among
        for question in asked:
            assert question.view is not None
            assert question.rows.tolist() == np.flatnonzero(both).tolist()
            top = views.probs["sentiment"][question.rows, question.view].argmax(axis=1)
            assert (question.labels == top).all()
        # Also where the two disagree: chosen by agreement, late fusion would always be right.
        assert (asked[0].labels != asked[1].labels).any()

    def test_a_vote_that_is_not_confident_is_not_asked_for(self, views: Views) -> None:
        everywhere = np.ones(len(views), bool)
        assert hidden_votes(views, "sentiment", 0.95, everywhere) == []

    def test_late_fusion_only_has_what_is_left(self, views: Views) -> None:
        asked = hidden_votes(views, "sentiment", 0.5, np.ones(len(views), bool))
        _, given = answers(
            asked, lambda view: late.product(without(views, view).probs["sentiment"])
        )
        assert (given == np.concatenate([a.labels for a in reversed(asked)])).all()

    def test_who_says_nothing_gives_no_class_and_tells_nothing(self, views: Views) -> None:
        asked = hidden_votes(views, "sentiment", 0.5, np.ones(len(views), bool))
        nats, given = answers(asked, lambda _: np.full((len(views), 3), np.nan))
        assert (given == -1).all()
        assert abs(nats.mean()) < 1e-9
        one = dataclasses.replace(asked[0], rows=asked[0].rows[:1], labels=asked[0].labels[:1])
        assert answers([one], lambda _: np.full((len(views), 3), np.nan))[1].tolist() == [-1]
