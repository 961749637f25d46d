"""What a run learns from its own videos, when late fusion decides, and what is left behind."""

from __future__ import annotations

import json
import random
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from safetensors import safe_open

import vsa_core.fusion.train
from tests.fusion.made import AUDIO, FACE, TEXT, Made, planted, put, settings, with_votes
from vsa_core import config
from vsa_core.errors import StoreError
from vsa_core.fusion import FusionModel, late
from vsa_core.fusion.card import read_model
from vsa_core.fusion.data import read_views
from vsa_core.fusion.strategies import DEFAULT, STRATEGIES, Opinion
from vsa_core.labels import SENTIMENTS, Modality
from vsa_core.schemas import table_from_rows
from vsa_core.store import Store

train_fusion = vsa_core.fusion.train.train_fusion


def trained(root: Path, made: Made, **fusion: Any) -> tuple[Store, FusionModel]:
    store = put(root, made)
    return store, train_fusion(store, made.video_ids, made.backends, settings(**fusion))


def opinion(store: Store, model: FusionModel, made: Made) -> Opinion:
    views = read_views(store, made.video_ids, made.backends)
    return read_model(store, model.model_id, made.backends)[0].opinion(views)


def review(store: Store, made: Made, *given: tuple[int, str | None], name: str = "b1") -> None:
    """Reviews of these segments, each a minute after the one before."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        {
            "review_id": f"{name}-{k}",
            "video_id": made.videos[i],
            "segment_id": made.segment_ids[i],
            "sentiment": sentiment,
            "emotion": None,
            "reviewer": "a test",
            "reviewed_at": start + timedelta(minutes=k),
            "reason": None,
        }
        for k, (i, sentiment) in enumerate(given)
    ]
    store.commit("reviews", name, table_from_rows("reviews", rows), "made")


@pytest.fixture(scope="module")
def made() -> Made:
    return planted()


@pytest.fixture(scope="module")
def model(made: Made, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, FusionModel]:
    return trained(tmp_path_factory.mktemp("store"), made)


def test_the_settings_know_every_strategy() -> None:
    assert get_args(config.Strategy) == STRATEGIES
    assert config.Fusion().strategy == DEFAULT


class TestWhatItLearns:
    def test_the_view_that_does_not_vote_carries_the_class(
        self, made: Made, model: tuple[Store, FusionModel]
    ) -> None:
        store, fusion = model
        assert fusion.reason is None
        said = opinion(store, fusion, made)
        views = read_views(store, made.video_ids, made.backends)
        votes = views.probs["sentiment"][:, :2].argmax(axis=2)
        differ = votes[:, 0] != votes[:, 1]
        assert differ.sum() > 200
        right = said.probs["sentiment"].argmax(axis=1) == made.truth
        late_right = late.mean(views.probs["sentiment"]).argmax(axis=1) == made.truth
        assert late_right[differ].mean() < 0.55
        assert right[differ].mean() > 0.8
        mean_attention = np.nanmean(said.attention, axis=0)
        assert mean_attention[2] == mean_attention.max()

    @pytest.mark.parametrize("strategy", ["tf-mvsa", "crossview-attention"])
    def test_the_other_strategies_that_learn(
        self, tmp_path: Path, made: Made, strategy: str
    ) -> None:
        store, fusion = trained(tmp_path, made, strategy=strategy, max_epochs=15)
        assert fusion.reason is None
        assert fusion.card is not None
        assert fusion.card["strategy"] == strategy
        said = opinion(store, fusion, made).probs["sentiment"]
        views = read_views(store, made.video_ids, made.backends)
        late_right = late.mean(views.probs["sentiment"]).argmax(axis=1) == made.truth
        assert (said.argmax(axis=1) == made.truth).mean() > late_right.mean() + 0.1

    @pytest.mark.parametrize("strategy", ["late-mean", "late-product", "vote"])
    def test_a_strategy_that_learns_nothing_is_its_own_model(
        self, tmp_path: Path, made: Made, strategy: str
    ) -> None:
        told: list[float] = []
        chosen = train_fusion(
            Store(tmp_path), made.video_ids, made.backends, settings(strategy=strategy),
            progress=told.append,
        )  # fmt: skip
        assert chosen == FusionModel(strategy, None, None)
        assert told == [1.0]
        assert not (tmp_path / "models").exists()


class TestReviews:
    def test_what_humans_said_is_believed_and_makes_another_model(
        self, tmp_path: Path, made: Made
    ) -> None:
        store, before = trained(tmp_path, made)
        wrong = opinion(store, before, made).probs["sentiment"].argmax(axis=1) != made.truth
        some = np.flatnonzero(wrong)[:20]
        names = [str(s) for s in SENTIMENTS]
        review(store, made, *((int(i), names[made.truth[i]]) for i in some))
        after = train_fusion(store, made.video_ids, made.backends, settings())
        assert after.model_id != before.model_id
        assert after.card is not None
        assert before.card is not None
        assert (before.card["data"]["reviewed"], after.card["data"]["reviewed"]) == (0, len(some))
        again = train_fusion(store, made.video_ids, made.backends, settings())
        assert again == after

    def test_tf_mvsa_does_not_learn_from_them(self, tmp_path: Path, made: Made) -> None:
        few = made.first(30)  # too little for its network, which is not the point
        store, before = trained(tmp_path, few, strategy="tf-mvsa")
        review(store, few, (3, "negative"))
        given = settings(strategy="tf-mvsa")
        assert train_fusion(store, few.video_ids, few.backends, given) == before

    def test_the_last_word_counts_and_silence_leaves_it(self, tmp_path: Path, made: Made) -> None:
        store = put(tmp_path, made)
        review(store, made, (3, "negative"), (3, "positive"), (3, None), (4, None))
        review(store, made, (5, "neutral"), name="b2")
        taken = []

        def fuse(*args: Any, known: Any, **more: Any) -> Any:
            taken.append(known)
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vsa_core.fusion.train, "fuse", fuse)
            for videos in (made.video_ids, made.video_ids[1:]):
                with pytest.raises(KeyboardInterrupt):
                    train_fusion(store, videos, made.backends, settings())
        known, nothing = taken
        assert known.target == "sentiment"
        assert known.rows.tolist() == [3, 5]
        assert known.labels.tolist() == [2, 1]
        assert nothing is None  # they are of the first video


class TestWhenLateFusionDecides:
    def test_nothing_to_learn_from(self, tmp_path: Path, made: Made) -> None:
        nothing = train_fusion(Store(tmp_path), [], made.backends, settings())
        assert nothing == FusionModel("late-product", None, "there is no segment to learn from")

    def test_one_video(self, tmp_path: Path, made: Made) -> None:
        single = Made(["v00"] * 60, made.first(60).views, made.truth[:60])
        votes = {m: np.random.default_rng(k).integers(0, 3, 60) for k, m in enumerate((TEXT, FACE))}
        store, fusion = trained(tmp_path, with_votes(single, **votes))
        assert (
            fusion.reason == "all 60 segments are of one video, so none can be held out: add videos"
        )
        assert fusion.card is not None
        assert fusion.card["report"]["targets"]["sentiment"]["decides"] == "product"
        said = opinion(store, fusion, single).probs["sentiment"]
        views = read_views(store, single.video_ids, single.backends)
        product = late.product(views.probs["sentiment"])
        assert (said.argmax(axis=1) == product.argmax(axis=1)).mean() > 0.95
        # What stands in the store says the same.
        assert train_fusion(store, single.video_ids, single.backends, settings()) == fusion

    def test_no_embeddings(self, tmp_path: Path) -> None:
        blind = planted(n=200)
        store = put(tmp_path, blind)
        shutil.rmtree(tmp_path / "embeddings")
        said = {m: np.random.default_rng(k).integers(0, 3, 200) for k, m in enumerate((TEXT, FACE))}
        put(tmp_path, with_votes(blind, **said))
        shutil.rmtree(tmp_path / "embeddings")
        fusion = train_fusion(store, blind.video_ids, blind.backends, settings())
        assert fusion.reason == "no model gave an embedding to learn from"

    def test_too_little_consensus_for_tf_mvsa(self, tmp_path: Path, made: Made) -> None:
        _, fusion = trained(tmp_path, made.first(30), strategy="tf-mvsa")
        assert fusion.reason is not None
        assert "of 30 segments agree, a network needs 60 (fusion.min_consensus)" in fusion.reason


class TestHardData:
    def test_views_that_are_mostly_absent(self, tmp_path: Path) -> None:
        made = planted(n=2000, videos=10, missing=0.8)
        made.views[AUDIO].present = np.ones(2000, bool)
        store, fusion = trained(tmp_path, made)
        assert fusion.card is not None
        assert fusion.card["data"]["present"]["audio"] == 2000
        said = opinion(store, fusion, made).probs["sentiment"]
        voted = np.zeros(2000, bool)
        for m in (TEXT, FACE):
            voted |= made.views[m].present  # type: ignore[arg-type]
        assert 0.3 < voted.mean() < 0.4
        assert np.isfinite(said[voted]).all()

    def test_a_broken_and_a_constant_embedding(self, tmp_path: Path) -> None:
        odd = planted(seed=2)
        odd.views[TEXT].embedding[5] = np.nan
        odd.views[FACE].embedding[:] = 0
        odd.views[AUDIO].embedding[7] = 3e38
        store, fusion = trained(tmp_path, odd)
        assert fusion.card is not None
        notes = fusion.card["report"]["notes"]
        assert "text: 1 embeddings are not finite and count as absent" in notes
        said = opinion(store, fusion, odd).probs["sentiment"]
        assert np.isfinite(said).all()
        # One vector of such a length spoils its view, and no more than that.
        views = read_views(store, odd.video_ids, odd.backends)
        late_right = late.mean(views.probs["sentiment"]).argmax(axis=1) == odd.truth
        assert (said.argmax(axis=1) == odd.truth).mean() > late_right.mean() - 0.02

    @pytest.mark.parametrize("n", [1, 2, 7])
    def test_very_few_segments(self, tmp_path: Path, made: Made, n: int) -> None:
        few = Made([f"v{i % 2:02d}" for i in range(n)], made.first(n).views, made.truth[:n])
        few.videos.sort()
        store, fusion = trained(tmp_path, few)
        said = opinion(store, fusion, few).probs["sentiment"]
        assert np.isfinite(said).all()

    def test_embeddings_too_large_to_hold_teach_the_same(
        self, made: Made, model: tuple[Store, FusionModel], tmp_path: Path
    ) -> None:
        store = put(tmp_path, made)

        def spooling(*args: Any, **more: Any) -> Any:
            return read_views(*args, **more, held_bytes=0)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vsa_core.fusion.train, "read_views", spooling)
            fusion = train_fusion(store, made.video_ids, made.backends, settings())
        assert fusion.card is not None
        assert model[1].card is not None
        assert fusion.card["files"] == model[1].card["files"]


class TestWhatItLeavesBehind:
    def test_the_card_says_it_all(self, made: Made, model: tuple[Store, FusionModel]) -> None:
        store, fusion = model
        folder = store.folder("models", fusion.model_id)
        assert folder is not None
        card = json.loads(Path(folder, "card.json").read_text())
        assert card == fusion.card
        assert {p.name for p in Path(folder).iterdir()} == {"card.json", *card["files"]}
        assert card["strategy"] == "crossview"
        assert card["backends"] == {m.value: b for m, b in made.backends.items()}
        assert [v["width"] for v in card["views"]] == [8, 6, 10]
        assert list(card["targets"]) == ["sentiment", "emotion"]
        assert card["data"]["segments"] == 600
        assert card["data"]["videos"] == 7
        assert card["report"]["targets"]["sentiment"]["decides"] == "experts"
        assert card["settings"]["fusion"]["seed"] == 0
        assert any("what all views get wrong" in limit for limit in card["limits"])
        assert card["reason"] is None

    def test_weights_are_plain_safetensors(self, model: tuple[Store, FusionModel]) -> None:
        store, fusion = model
        path = store.root / "models" / fusion.model_id / "crossview.safetensors"
        with safe_open(path, framework="np") as file:
            weights = file.get_tensor("sentiment/expert2/weights")
        assert weights.shape == (5, 10, 3)  # folds, width of audio, classes

    def test_a_model_that_stands_is_not_trained_again(
        self, made: Made, model: tuple[Store, FusionModel], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store, fusion = model

        def never(*_: object, **__: object) -> None:
            raise AssertionError("trained again")

        monkeypatch.setattr(vsa_core.fusion.train, "fuse", never)
        told: list[float] = []
        turned = dict(reversed(made.backends.items()))
        videos = random.Random(0).sample(made.video_ids, len(made.video_ids))
        # How sure a label must be is no matter of training.
        same = settings(min_label_confidence=0.7)
        again = train_fusion(store, [*videos, "v01"], turned, same, progress=told.append)
        assert again == fusion
        assert told == [1.0]
        for other in (settings(seed=1), settings(folds=4)):
            with pytest.raises(AssertionError, match="trained again"):
                train_fusion(store, made.video_ids, made.backends, other)
        with pytest.raises(AssertionError, match="trained again"):
            train_fusion(store, made.video_ids[1:], made.backends, settings())

    @pytest.mark.parametrize("strategy", ["crossview", "crossview-attention", "tf-mvsa"])
    def test_progress_rises_to_one_and_may_stop_it(
        self, tmp_path: Path, made: Made, strategy: str
    ) -> None:
        told: list[float] = []
        store, videos = put(tmp_path, made), made.video_ids
        given = settings(strategy=strategy, max_epochs=10)

        def stop(share: float) -> None:
            if share > 0.4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_fusion(store, videos, made.backends, given, progress=stop)
        assert not (tmp_path / "models").exists()
        train_fusion(store, videos, made.backends, given, progress=told.append)
        assert told == sorted(told)
        # A network tells every fifth of a second, and these are trained sooner.
        assert len(told) > (1 if strategy == "tf-mvsa" else 4)
        assert told[-1] == 1.0

    @pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "text", "card", "other card"])
    def test_a_damaged_model_is_one_clear_error(
        self, made: Made, model: tuple[Store, FusionModel], tmp_path: Path, damage: str
    ) -> None:
        fusion = model[1]
        shutil.copytree(model[0].root, tmp_path, dirs_exist_ok=True)
        weights = tmp_path / "models" / fusion.model_id / "crossview.safetensors"
        card = weights.with_name("card.json")
        content = bytearray(weights.read_bytes())
        if damage == "cut":
            weights.write_bytes(content[:-100])
        elif damage == "flipped":
            content[-3] ^= 0x40
            weights.write_bytes(content)
        elif damage == "gone":
            weights.unlink()
        elif damage == "text":
            weights.write_text("not a model")
        elif damage == "card":
            card.write_text(card.read_text()[:-40])
        else:
            card.write_text(json.dumps({"model_id": fusion.model_id}))
        with pytest.raises(StoreError, match=f"remove .*models/{fusion.model_id} and run") as error:
            read_model(Store(tmp_path), fusion.model_id, made.backends)
        assert "\n" not in str(error.value)

    def test_files_that_are_no_model_though_the_card_vouches_for_them(
        self, made: Made, model: tuple[Store, FusionModel], tmp_path: Path
    ) -> None:
        shutil.copytree(model[0].root, tmp_path, dirs_exist_ok=True)
        path = tmp_path / "models" / model[1].model_id / "card.json"
        card = json.loads(path.read_text())
        card["files"] = {}
        path.write_text(json.dumps(card))
        with pytest.raises(StoreError, match=r"does not read \(not a fusion model .*: remove"):
            read_model(Store(tmp_path), model[1].model_id, made.backends)

    def test_a_model_of_other_backends_is_refused(
        self, made: Made, model: tuple[Store, FusionModel]
    ) -> None:
        store, fusion = model
        other: dict[Modality, str] = {**made.backends, FACE: "made-face@9999"}
        with pytest.raises(StoreError, match="trained on made-face@0123, not on made-face@9999"):
            read_model(store, fusion.model_id, other)
        fewer = {TEXT: made.backends[TEXT], FACE: made.backends[FACE]}
        with pytest.raises(StoreError, match="trained on made-audio@0123, not on no audio"):
            read_model(store, fusion.model_id, fewer)
