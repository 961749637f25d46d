"""Which model labels a domain: promotion, rollback, what is written down, and in which order."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.fusion.made import BACKENDS, planted, put, settings
from tests.small_store import run_row
from vsa_core.errors import UsageError
from vsa_core.fusion import FusionModel
from vsa_core.fusion.card import read_card
from vsa_core.fusion.listing import listing
from vsa_core.fusion.registry import (
    Decision,
    consider,
    current,
    history,
    known_since,
    opened,
    promote,
    rollback,
    stored,
)
from vsa_core.fusion.train import train_fusion
from vsa_core.fusion.verdict import CANDIDATE, CONSENSUS, Comparison, Row
from vsa_core.labels import Modality
from vsa_core.schemas import table_from_rows
from vsa_core.store import CARD, Store

BY = {"by": "ann", "reason": "a test"}
WON = Comparison(
    True, "it tells more", (Row(CONSENSUS, CANDIDATE, 9, 2, 0.3, 0.5, 0.5, None, None, None),)
)
LOST = Comparison(False, "late fusion tells more", notes=("a note",))


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, FusionModel]:
    made = planted(120, 4)
    store = put(tmp_path_factory.mktemp("learned"), made)
    return store, train_fusion(store, made.video_ids, BACKENDS, settings())


@pytest.fixture
def store(tmp_path: Path, learned: tuple[Store, FusionModel]) -> Store:
    """A store with the models a, b and c: one model under three names."""
    elsewhere, model = learned
    store = Store(tmp_path)
    for name in ("a", "b", "c"):
        card = {**read_card(elsewhere, model.model_id), "model_id": name}
        files = {
            file: elsewhere.read_folder("models", model.model_id, file) for file in card["files"]
        }
        store.commit_folder("models", name, {**files, CARD: json.dumps(card).encode()})
    return store


class TestPromotion:
    def test_a_better_candidate_labels_and_another_does_not(self, store: Store) -> None:
        assert current(store, "news") is None
        lost = consider(store, "news", stored(store, "a"), LOST, by="adapt")
        assert (lost.action, lost.current_model_id) == ("candidate", None)
        assert current(store, "news") is None
        won = consider(store, "news", stored(store, "b"), WON, by="adapt")
        assert (won.action, won.current_model_id, won.sequence) == ("promoted", "b", 2)
        lost = consider(store, "news", stored(store, "c"), LOST, by="adapt")
        assert lost.current_model_id == "b"
        assert current(store, "news") == "b"
        kept = history(Store(store.root), "news")
        assert [(d.action, d.model_id, d.decided_by) for d in kept] == [
            ("candidate", "a", "adapt"),
            ("promoted", "b", "adapt"),
            ("candidate", "c", "adapt"),
        ]
        assert kept[0].reason == "late fusion tells more"
        assert kept[1].metrics["rows"][0]["told"] == 0.3

    def test_considering_again_changes_nothing(self, store: Store) -> None:
        lost = consider(store, "news", stored(store, "a"), LOST, by="adapt")
        assert consider(store, "news", stored(store, "a"), LOST, by="adapt") == lost
        won = consider(store, "news", stored(store, "a"), WON, by="adapt")
        # From then on it is compared with itself, and wins nothing.
        for again in (WON, Comparison(False, "it is the current model")):
            assert consider(store, "news", stored(store, "a"), again, by="adapt") == won
        assert history(store) == [lost, won]

    def test_what_became_known_since_is_written_down(self, store: Store) -> None:
        consider(store, "news", stored(store, "a"), LOST, by="adapt")
        consider(store, "news", stored(store, "a"), replace(LOST, videos=9), by="adapt")
        promote(store, "news", "b", **BY)
        consider(store, "news", stored(store, "a"), replace(LOST, videos=9), by="adapt")
        assert [d.action for d in history(store)] == ["candidate"] * 2 + ["promoted", "candidate"]

    def test_by_hand_whatever_it_is_worth(self, store: Store) -> None:
        consider(store, "news", stored(store, "a"), LOST, by="adapt")
        decision = promote(store, "news", "a", by="ann", reason="I\nlooked at it")
        assert (decision.decided_by, decision.reason) == ("ann", "I looked at it")
        assert current(store, "news") == "a"
        assert promote(store, "news", "a", by="bob", reason="again") == decision

    @pytest.mark.parametrize("name", ["d", "../models/a", "", ".", "a/b"])
    def test_only_a_model_of_the_store(self, store: Store, name: str) -> None:
        (store.root / "models" / "d").mkdir()  # the rest of a killed writer
        with pytest.raises(UsageError, match="holds no fusion model"):
            promote(store, "news", name, **BY)
        assert history(store) == []

    @pytest.mark.parametrize("domain", ["", "a\nb", "x" * 101])
    def test_a_domain_has_a_name(self, store: Store, domain: str) -> None:
        with pytest.raises(UsageError, match="cannot name a domain"):
            promote(store, domain, "a", **BY)

    def test_domains_are_apart_and_default_stands_in(self, store: Store) -> None:
        promote(store, "default", "a", **BY)
        assert current(store, "news") == "a"
        promote(store, "news", "b", **BY)
        promote(store, "default", "c", **BY)
        assert (current(store, "news"), current(store, "sport")) == ("b", "c")
        assert [d.sequence for d in history(store, "default")] == [1, 2]
        assert [d.domain for d in history(store)] == ["default", "default", "news"]


class TestRollback:
    def test_back_and_further_back_and_no_further(self, store: Store) -> None:
        for name in ("a", "b", "c"):
            promote(store, "news", name, **BY)
        assert rollback(store, "news", **BY).current_model_id == "b"
        assert rollback(store, "news", **BY).current_model_id == "a"
        with pytest.raises(UsageError, match="no model labelled news before a"):
            rollback(store, "news", **BY)
        assert current(store, "news") == "a"
        promote(store, "news", "c", **BY)
        assert rollback(store, "news", **BY).current_model_id == "a"

    def test_of_nothing(self, store: Store) -> None:
        promote(store, "default", "a", **BY)
        with pytest.raises(UsageError, match="news has no model of its own"):
            rollback(store, "news", **BY)

    def test_a_model_that_is_gone_is_passed_over(self, store: Store) -> None:
        for name in ("a", "b", "c"):
            promote(store, "news", name, **BY)
        store.remove_folder("models", "b")
        assert rollback(store, "news", **BY).current_model_id == "a"

    def test_no_flow_promotes_what_was_taken_back(self, store: Store) -> None:
        consider(store, "news", stored(store, "a"), WON, by="adapt")
        consider(store, "news", stored(store, "b"), WON, by="adapt")
        rollback(store, "news", by="ann", reason="too cheerful")
        again = consider(store, "news", stored(store, "b"), WON, by="adapt")
        assert again.action == "candidate"
        assert "rolled back by ann (too cheerful)" in again.reason
        assert current(store, "news") == "a"
        assert consider(store, "news", stored(store, "b"), WON, by="adapt") == again
        promote(store, "news", "b", **BY)
        promote(store, "news", "a", **BY)
        assert consider(store, "news", stored(store, "b"), WON, by="adapt").action == "promoted"


class TestOrder:
    def test_numbers_count_not_clocks(self, store: Store) -> None:
        promote(store, "news", "a", **BY)
        promote(store, "news", "b", **BY)
        early = datetime(2020, 1, 1, tzinfo=UTC)
        last = history(store, "news")[-1]
        row = {**_row(last), "decided_at": early}
        store.commit("promotions", last.decision_id, table_from_rows("promotions", [row]), "again")
        assert history(Store(store.root), "news")[-1].decided_at == early
        assert current(Store(store.root), "news") == "b"

    def test_joined_into_one_file_they_are_the_same(self, store: Store) -> None:
        for name in ("a", "b", "a", "c"):
            promote(store, "news", name, **BY)
        rollback(store, "news", **BY)
        before = history(store)
        store.compact()
        assert len(store.files("promotions")) == 1
        assert history(Store(store.root)) == before
        assert promote(store, "news", "b", **BY).sequence == 6

    def test_two_at_the_same_moment_are_in_one_order_for_all(self, store: Store) -> None:
        first = promote(store, "news", "a", **BY)
        for name in ("y", "x"):
            row = {**_row(first), "decision_id": name, "model_id": "b", "current_model_id": "b"}
            store.commit("promotions", name, table_from_rows("promotions", [row]), name)
        assert [d.decision_id for d in history(store)] == sorted([first.decision_id, "x", "y"])
        assert promote(store, "news", "c", **BY).sequence == 2
        assert current(store, "news") == "c"


def _row(decision: Decision) -> dict[str, object]:
    row = asdict(decision)
    return {**row, "metrics": json.dumps(row["metrics"])}


class TestOpened:
    def test_ready_to_label(self, store: Store) -> None:
        assert opened(store, "news", BACKENDS) is None
        promote(store, "news", "a", **BY)
        model = opened(store, "news", BACKENDS)
        assert model is not None
        assert (model.model_id, model.reason) == ("a", None)
        assert model.card == read_card(store, "a")

    def test_not_with_other_backends(self, store: Store) -> None:
        promote(store, "news", "a", **BY)
        for others in (
            {**BACKENDS, Modality.FACE: "another@1"},
            {Modality.TEXT: BACKENDS[Modality.TEXT]},
        ):
            assert opened(store, "news", others) is None

    def test_not_when_it_is_gone_but_that_of_default_then(self, store: Store) -> None:
        promote(store, "default", "a", **BY)
        promote(store, "news", "b", **BY)
        store.remove_folder("models", "b")
        model = opened(store, "news", BACKENDS)
        assert model is not None
        assert model.model_id == "a"
        store.remove_folder("models", "a")
        assert opened(store, "news", BACKENDS) is None


class TestListing:
    def test_every_model_with_what_became_of_it(self, store: Store) -> None:
        consider(store, "news", stored(store, "a"), LOST, by="adapt")
        promote(store, "news", "b", **BY)
        promote(store, "news", "c", **BY)
        promote(store, "sport", "b", **BY)
        found = {model.model_id: model for model in listing(store)}
        assert {name: model.states for name, model in found.items()} == {
            "a": {"news": "candidate"},
            "b": {"news": "former", "sport": "current"},
            "c": {"news": "current"},
        }
        assert (found["a"].strategy, found["a"].videos, found["a"].segments) == (
            "crossview",
            4,
            120,
        )
        assert {model.model_id for model in listing(store, "sport")} == {"b"}
        assert json.dumps([model.to_dict() for model in found.values()])

    def test_the_latest_first_and_those_nobody_named_last(self, store: Store) -> None:
        rows = [run_row(f"r{name}", day, model_id=name) for name, day in (("a", 4), ("b", 5))]
        for row in [*rows, run_row("r9", 9, model_id="a")]:
            store.commit("runs", row["run_id"], table_from_rows("runs", [row]), "f")
        assert [model.model_id for model in listing(store)] == ["b", "a", "c"]
        assert known_since(store)["a"] == rows[0]["finished_at"]
        promote(store, "news", "a", **BY)
        assert known_since(store)["a"] == rows[0]["finished_at"]
        promote(store, "news", "c", **BY)
        assert abs(known_since(store)["c"] - datetime.now(UTC)) < timedelta(hours=1)

    def test_a_card_that_does_not_read_hides_no_other_model(self, store: Store) -> None:
        (store.root / "models" / "a" / CARD).write_text("{")
        card = read_card(store, "b")
        (store.root / "models" / "b" / CARD).write_text(json.dumps({**card, "data": {}}))
        found = {model.model_id: model for model in listing(store)}
        assert "does not read" in (found["a"].problem or "")
        assert "its card lacks 'videos'" in (found["b"].problem or "")
        assert found["c"].problem is None
