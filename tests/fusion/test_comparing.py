"""A better candidate is found better, one that is no better is not, and reviews are believed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fusion.made import AUDIO, BACKENDS, FACE, Made, planted, put, settings
from vsa_core.fusion import FusionModel, comparing
from vsa_core.fusion.comparing import compare
from vsa_core.fusion.registry import promote
from vsa_core.fusion.train import train_fusion
from vsa_core.fusion.verdict import (
    CANDIDATE,
    CONSENSUS,
    CURRENT,
    LATE,
    REVIEWS,
    Comparison,
    Row,
    verdict,
)
from vsa_core.labels import SENTIMENTS
from vsa_core.schemas import table_from_rows
from vsa_core.store import Store

NAMES = [str(s) for s in SENTIMENTS]
DAY = datetime(2026, 1, 1, tzinfo=UTC)


def named(made: Made, prefix: str) -> Made:
    return Made([prefix + video for video in made.videos], made.views, made.truth)


def elsewhere(made: Made) -> Made:
    """Another domain: what shows one class there shows none here."""
    heard = made.views[AUDIO]
    turned = replace(heard, embedding=np.roll(heard.embedding, 3, axis=1))
    return named(replace(made, views={**made.views, AUDIO: turned}), "w")


def shuffled(made: Made, seed: int) -> Made:
    """The same embeddings with the votes of other segments."""
    order = np.random.default_rng(seed).permutation(len(made.truth))
    views = {
        modality: replace(view, sentiment=view.sentiment[order], emotion=None)
        if view.sentiment is not None
        else view
        for modality, view in made.views.items()
    }
    return named(replace(made, views=views), "y")


def review(
    store: Store, made: Made, rows: np.ndarray, labels: np.ndarray, start: datetime = DAY
) -> None:
    """People's word on these segments, each a second after the one before."""
    given = [
        {
            "review_id": f"{start:%j}-{k}",
            "video_id": made.videos[i],
            "segment_id": made.segment_ids[i],
            "sentiment": NAMES[label],
            "emotion": None,
            "reviewer": "a test",
            "reviewed_at": start + timedelta(seconds=k),
            "reason": None,
        }
        for k, (i, label) in enumerate(zip(rows.tolist(), labels.tolist(), strict=True))
    ]
    store.commit("reviews", f"b{start:%j}", table_from_rows("reviews", given), "made")


class Place:
    """A store with a domain, the model learned in it, and one learned in another domain."""

    def __init__(self, root: Path, seed: int = 0) -> None:
        self.made = planted(400, 8, seed=seed)
        self.other = elsewhere(planted(400, 8, seed=seed + 100))
        self.store = put(root, self.made)
        put(root, self.other)
        self.own = self.learned(self.made)
        self.foreign = self.learned(self.other)

    def learned(self, made: Made, videos: list[str] | None = None, **fusion: Any) -> FusionModel:
        return train_fusion(self.store, videos or made.video_ids, BACKENDS, settings(**fusion))

    def compared(self, candidate: FusionModel, current: FusionModel | None) -> Comparison:
        return compare(self.store, candidate, current, self.made.video_ids, BACKENDS, settings())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("store"))


class TestBetter:
    def test_what_was_learned_here_over_what_was_learned_elsewhere(self, place: Place) -> None:
        found = place.compared(place.own, place.foreign)
        assert found.better
        assert "it tells more than the current model" in found.reason
        of = {row.contender: row for row in found.rows}
        assert {row.judge for row in found.rows} == {CONSENSUS}
        assert of[CANDIDATE].told > of[LATE].told > of[CURRENT].told
        assert of[CANDIDATE].macro_f1 > of[LATE].macro_f1
        assert of[CANDIDATE].n == 800  # two votes, each hidden once
        assert of[CANDIDATE].videos == found.videos == 8
        assert of[CANDIDATE].gain is None
        assert of[CURRENT].low is not None
        assert 0 < of[CURRENT].low < of[CURRENT].gain < of[CURRENT].high  # type: ignore[operator]
        assert found == place.compared(place.own, place.foreign)

    def test_late_fusion_is_enough_to_beat_where_nothing_labels_yet(self, place: Place) -> None:
        assert place.compared(place.own, None).better
        found = place.compared(place.foreign, None)
        assert not found.better
        assert "late fusion" in found.reason

    def test_the_other_way_round_it_is_not(self, place: Place) -> None:
        found = place.compared(place.foreign, place.own)
        assert not found.better
        assert "it is not surely better than the current model" in found.reason

    def test_one_as_good_is_not_better(self, place: Place) -> None:
        for candidate, current in (
            (place.learned(place.made, seed=1), place.own),
            (place.own, place.learned(place.made, place.made.video_ids[:-1])),
        ):
            assert candidate.model_id != current.model_id
            assert not place.compared(candidate, current).better
        assert place.compared(place.own, place.own).reason == "it is the current model"

    def test_one_learned_from_shuffled_votes_is_not(self, place: Place) -> None:
        made = shuffled(place.made, 0)
        put(place.store.root, made)
        junk = place.learned(made)
        assert not place.compared(junk, None).better
        assert not place.compared(junk, place.own).better

    @pytest.mark.parametrize(("strategy", "epochs"), [("crossview-attention", 5), ("tf-mvsa", 60)])
    def test_networks_answer_without_the_hidden_view_too(
        self, place: Place, strategy: str, epochs: int
    ) -> None:
        learned = place.learned(place.made, strategy=strategy, max_epochs=epochs)
        found = place.compared(learned, place.foreign)
        assert found.better
        of = {row.contender: row for row in found.rows}
        assert of[CANDIDATE].told > of[LATE].told + 0.05

    def test_a_strategy_that_learns_nothing_is_not(self, place: Place) -> None:
        found = place.compared(FusionModel("late-mean", None, None), None)
        assert (found.better, found.reason) == (
            False,
            "late fusion would decide in it: late-mean learns nothing",
        )
        fallen = replace(place.own, reason="all 3 segments are of one video")
        assert "one video" in place.compared(fallen, None).reason

    def test_a_current_model_of_other_backends_is_no_rival(self, place: Place) -> None:
        assert place.own.card is not None
        card = {**place.own.card, "backends": {"text": "another@1"}}
        found = place.compared(place.own, FusionModel("older", card, None))
        assert found.better
        assert {row.contender for row in found.rows} == {LATE, CANDIDATE}
        assert "older is of other backends" in found.notes[0]

    def test_of_a_big_store_it_looks_at_some_videos(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(comparing, "_MOST_SEGMENTS", 100)
        asked = [*place.made.video_ids, *place.other.video_ids]
        found = compare(place.store, place.own, None, asked, BACKENDS, settings())
        assert 100 <= found.segments < 800
        assert found == compare(place.store, place.own, None, reversed(asked), BACKENDS, settings())


class TestReviews:
    @pytest.fixture
    def own(self, tmp_path: Path) -> Place:
        return Place(tmp_path)

    def test_people_who_agree_and_people_who_do_not(self, own: Place) -> None:
        rows = np.arange(0, 400, 5)
        review(own.store, own.made, rows, own.made.truth[rows])
        found = own.compared(own.own, own.foreign)
        assert found.better
        assert "80 reviews" in found.reason
        of = {row.contender: row for row in found.rows if row.judge == REVIEWS}
        assert of[CANDIDATE].n == 80
        assert of[CANDIDATE].accuracy > of[LATE].accuracy + 0.1
        # Of other people's mind: they say what the face alone shows.
        face = own.made.views[FACE].sentiment
        assert face is not None
        review(own.store, own.made, rows, face[rows].argmax(axis=1), DAY + timedelta(days=1))
        found = own.compared(own.own, None)
        assert not found.better
        assert "by people's reviews it is not better than late fusion" in found.reason

    def test_few_reviews_do_not_judge(self, own: Place) -> None:
        review(own.store, own.made, np.arange(5), own.made.truth[:5])
        found = own.compared(own.own, None)
        assert found.better
        assert found.notes == ("5 reviews are too few to judge by: it takes 30",)

    def test_a_candidate_is_not_judged_by_what_it_learned(self, own: Place) -> None:
        rng = np.random.default_rng(0)
        rows, noise = np.arange(0, 400, 5), rng.integers(0, 3, 80)
        review(own.store, own.made, rows, noise)
        taught = own.learned(own.made)
        assert taught.card is not None
        assert taught.card["data"]["reviewed"] == 80
        found = own.compared(taught, None)
        of = {row.contender: row for row in found.rows if row.judge == REVIEWS}
        assert of[CANDIDATE].accuracy < 0.45
        # As the model that was learned without them has it.
        plain = {r.contender: r for r in own.compared(own.own, None).rows if r.judge == REVIEWS}
        assert of[CANDIDATE].accuracy == pytest.approx(plain[CANDIDATE].accuracy, abs=0.02)

    def test_nor_the_current_model(self, own: Place) -> None:
        rows = np.arange(0, 400, 5)
        review(own.store, own.made, rows, own.made.truth[rows])
        taught = own.learned(own.made, own.made.video_ids[:4])
        found = own.compared(own.own, taught)
        learned = sum(own.made.videos[i] in own.made.video_ids[:4] for i in rows)
        assert found.notes[0] == (
            f"{learned} reviews that the current model may have learned from count not"
        )
        assert next(r for r in found.rows if r.judge == REVIEWS).n == 80 - learned
        # Reviews given when it stood it did not learn from.
        promote(own.store, "default", taught.model_id, by="a test", reason="a test")
        more = np.arange(1, 400, 10)
        later = datetime.now(UTC) + timedelta(minutes=1)
        review(own.store, own.made, more, own.made.truth[more], later)
        found = own.compared(own.own, taught)
        assert next(r for r in found.rows if r.judge == REVIEWS).n == 80 - learned + len(more)


def row(contender: str, told: float, judge: str = CONSENSUS, **changed: object) -> Row:
    given = {
        "judge": judge,
        "contender": contender,
        "n": 500,
        "videos": 10,
        "told": told,
        "macro_f1": 0.5,
        "accuracy": 0.5,
        "gain": None if contender == CANDIDATE else 0.3 - told,
        "low": None if contender == CANDIDATE else 0.25 - told,
        "high": None if contender == CANDIDATE else 0.35 - told,
        **changed,
    }
    return Row(**given)  # type: ignore[arg-type]


class TestVerdict:
    def test_the_current_model_stays_where_too_little_was_seen(self) -> None:
        rows = [row(LATE, 0.1), row(CURRENT, 0.1), row(CANDIDATE, 0.3)]
        assert verdict(rows)[0]
        few = [replace(r, videos=4) for r in rows]
        assert verdict(few) == (
            False,
            "500 votes of 4 videos are too few to unseat the current model: it takes 100 of 5",
        )
        assert verdict([r for r in few if r.contender != CURRENT])[0]
        assert not verdict([replace(r, n=99) for r in rows])[0]

    def test_sure_but_hardly_better(self) -> None:
        rows = [row(LATE, 0.1), row(CURRENT, 0.297, low=0.001), row(CANDIDATE, 0.3)]
        better, why = verdict(rows)
        assert not better
        assert why.startswith("it is hardly better than the current model: 0.300 against 0.297")

    def test_better_on_average_is_not_enough(self) -> None:
        better, why = verdict([row(LATE, 0.2, low=-0.01), row(CANDIDATE, 0.3)])
        assert not better
        assert "not surely better than late fusion" in why

    def test_one_video_cannot_make_sure(self) -> None:
        assert not verdict([row(LATE, 0.2, low=None, high=None), row(CANDIDATE, 0.3)])[0]

    def test_fewer_right_classes(self) -> None:
        better, why = verdict([row(LATE, 0.1, macro_f1=0.6), row(CANDIDATE, 0.3)])
        assert not better
        assert "fewer right classes than late fusion: macro-F1 0.500 against 0.600" in why

    def test_reviews_have_a_say(self) -> None:
        rows = [row(LATE, 0.1), row(CANDIDATE, 0.3)]
        people = [row(LATE, 0.4, REVIEWS), row(CANDIDATE, 0.3, REVIEWS)]
        assert not verdict(rows + people)[0]
        assert verdict([*rows, replace(people[0], gain=0.001), people[1]])[0]

    def test_nothing_to_compare_by(self) -> None:
        assert verdict([])[1].startswith("no two models vote on the same segments")
