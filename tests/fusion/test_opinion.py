"""The network's opinion times the views' own: neither is dropped, and no confidence is gained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fusion.made import planted, put, settings
from vsa_core.agree import agreement, has_unique_top
from vsa_core.fusion.data import Views, read_views
from vsa_core.fusion.opinion import (
    VIEW_WEIGHT,
    Opinion,
    fit_combination,
    network_opinion,
    with_views,
)
from vsa_core.fusion.resolve import resolve
from vsa_core.fusion.train import train_fusion
from vsa_core.labels import Modality

NAN = float("nan")
SILENT = [NAN] * 3
EVEN = [1 / 3] * 3


def views_saying(*rows: list[list[float]]) -> Views:
    """One segment per row, and in it what text and face say of the sentiment."""
    n = len(rows)
    return Views(
        segment_ids=np.array([f"s{i}" for i in range(n)]),
        video_ids=np.full(n, "v00"),
        modalities=(Modality.TEXT, Modality.FACE),
        embeddings=(np.zeros((n, 2), np.float32),) * 2,
        present=np.ones((n, 2), np.bool_),
        sentiment_probs=np.array(rows, np.float32),
        emotion_probs=np.full((n, 2, 7), NAN, np.float32),
    )


def network_saying(*rows: list[float]) -> Opinion:
    n = len(rows)
    return Opinion(np.array(rows), np.full((n, 7), 1 / 7), np.full((n, 2), 0.5))


def card(temperature: float = 1.0) -> dict[str, Any]:
    both = {"sentiment": temperature, "emotion": temperature}
    return {"combined": {"view_weight": VIEW_WEIGHT, "temperature": both}}


def sentiment(network: list[float], text: list[float], face: list[float], t: float = 1.0) -> Any:
    return with_views(network_saying(network), views_saying([text, face]), card(t)).sentiment_probs[
        0
    ]


class TestWithViews:
    def test_a_network_that_does_not_know_leaves_it_to_the_views(self) -> None:
        text, face = [0.9, 0.05, 0.05], [0.2, 0.2, 0.6]
        said = sentiment(EVEN, text, face)
        expected = (np.array(text) * np.array(face)) ** VIEW_WEIGHT
        np.testing.assert_allclose(said, expected / expected.sum(), rtol=1e-5)
        assert said.argmax() == 0

    def test_views_that_do_not_know_leave_it_to_the_network(self) -> None:
        network = [0.2, 0.7, 0.1]
        np.testing.assert_allclose(sentiment(network, EVEN, EVEN), network, rtol=1e-5)
        assert sentiment(network, EVEN, SILENT) == pytest.approx(network, rel=1e-5)

    def test_each_can_outweigh_the_other(self) -> None:
        sure, slightly = [0.02, 0.02, 0.96], [0.4, 0.3, 0.3]
        assert sentiment(slightly, sure, slightly).argmax() == 2
        assert sentiment(sure, slightly, slightly).argmax() == 2

    def test_the_temperature_flattens_and_does_not_change_the_label(self) -> None:
        args = [0.5, 0.3, 0.2], [0.9, 0.05, 0.05], [0.2, 0.2, 0.6]
        sharp, flat = sentiment(*args), sentiment(*args, t=2.0)
        np.testing.assert_allclose(flat, np.sqrt(sharp) / np.sqrt(sharp).sum())
        assert flat.max() < sharp.max()

    def test_without_votes_it_is_the_network_alone_whatever_the_temperature(self) -> None:
        network = [0.2, 0.7, 0.1]
        assert sentiment(network, SILENT, SILENT, t=3.0).tolist() == network

    def test_where_the_network_says_nothing_neither_does_this(self) -> None:
        assert np.isnan(sentiment(SILENT, [0.9, 0.05, 0.05], EVEN)).all()

    def test_a_zero_of_one_view_is_no_veto(self) -> None:
        said = sentiment([0.002, 0.002, 0.996], [1.0, 0.0, 0.0], [0.1, 0.1, 0.8])
        assert np.isfinite(said).all()
        assert said.argmax() == 2

    def test_an_exact_tie_stays_one(self) -> None:
        said = sentiment([0.4, 0.2, 0.4], [0.7, 0.1, 0.2], [0.2, 0.1, 0.7], t=1.7)
        assert not has_unique_top(said[None]).any()

    def test_attention_is_the_networks_and_unknown_emotions_of_views_change_nothing(self) -> None:
        network = network_saying(EVEN)
        both = with_views(network, views_saying([EVEN, EVEN]), card())
        assert both.attention is network.attention
        np.testing.assert_array_equal(both.emotion_probs, network.emotion_probs)


class TestItsTemperature:
    @pytest.fixture
    def case(self) -> tuple[Opinion, Views]:
        rng = np.random.default_rng(0)
        views = views_saying(*(rng.dirichlet([0.3] * 3, (200, 2)).tolist()))
        return network_saying(*rng.dirichlet([2.0] * 3, 200).tolist()), views

    def test_on_average_it_is_no_surer_than_the_network(self, case: tuple[Opinion, Views]) -> None:
        network, views = case
        undecided = np.arange(200) % 2 == 0
        made = fit_combination(network, views, undecided)
        alone = network.sentiment_probs[undecided].max(axis=1).mean()
        both = with_views(network, views, {"combined": made}).sentiment_probs
        assert made["temperature"]["sentiment"] > 1
        assert alone - 0.02 < both[undecided].max(axis=1).mean() <= alone
        sharp = with_views(network, views, card()).sentiment_probs
        assert sharp[undecided].max(axis=1).mean() > alone + 0.05

    def test_only_undecided_segments_count_and_it_never_sharpens(
        self, case: tuple[Opinion, Views]
    ) -> None:
        network, views = case
        nobody = np.zeros(200, np.bool_)
        assert fit_combination(network, views, nobody)["temperature"] == {
            "sentiment": 1.0,
            "emotion": 1.0,
        }
        views.sentiment_probs[:] = 1 / 3
        made = fit_combination(network, views, ~nobody)
        assert made["temperature"]["sentiment"] == pytest.approx(1, abs=0.03)


def test_labels_hold_what_the_network_and_the_views_say(tmp_path: Path) -> None:
    """End to end; also that a view's confidence, which no network sees, decides labels."""
    made = planted()
    given = settings(max_epochs=15)
    store = put(tmp_path, made)
    model = train_fusion(store, made.video_ids, made.backends, given)
    assert model.card is not None
    views = read_views(store, made.video_ids, made.backends)
    votes = agreement(views.sentiment_probs, given.agree.min_confidence)
    network = network_opinion(store, model.model_id, made.backends, views, votes.states == "agree")
    rows = store.read(
        resolve(store, "r1", 0, made.video_ids, made.backends, model, given)
    ).to_pylist()
    fusion = np.array([row["origin"] == "fusion" for row in rows])
    assert fusion.sum() > 200
    t = model.card["combined"]["temperature"]["sentiment"]
    assert t > 1
    voting = views.sentiment_probs[fusion, :2]  # text and face; audio does not vote
    expected = network.sentiment_probs[fusion] * voting.prod(axis=1) ** VIEW_WEIGHT
    expected = expected ** (1 / t)
    said = np.array([row["sentiment_probs"] for row in rows if row["origin"] == "fusion"])
    np.testing.assert_allclose(said, expected / expected.sum(axis=1, keepdims=True), atol=1e-5)
    assert (said.argmax(axis=1) != network.sentiment_probs[fusion].argmax(axis=1)).any()
    assert said.max(axis=1).mean() <= network.sentiment_probs[fusion].max(axis=1).mean() + 1e-6
    felt = model.card["combined"]["temperature"]["emotion"]
    assert felt > 1
