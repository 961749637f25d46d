"""Training: what it learns, what it must not see, when it refuses, and what it leaves behind."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load

import vsa_core.fusion.fit
from tests.fusion.made import (
    AUDIO,
    FACE,
    TEXT,
    Made,
    confident,
    planted,
    put,
    settings,
    with_votes,
)
from vsa_core.agree import agreement
from vsa_core.errors import VsaError
from vsa_core.fusion import LATE_MEAN, FusionModel, one_thread
from vsa_core.fusion.card import softmax
from vsa_core.fusion.data import read_views
from vsa_core.fusion.fit import Fitted, fit, split
from vsa_core.fusion.opinion import network_opinion
from vsa_core.fusion.train import find_consensus, train_fusion
from vsa_core.labels import Modality
from vsa_core.store import Store


def trained(root: Path, made: Made, **fusion: object) -> tuple[Store, FusionModel]:
    store = put(root, made)
    return store, train_fusion(store, made.video_ids, made.backends, settings(**fusion))


def fitted(root: Path, made: Made, **fusion: object) -> Fitted:
    views = read_views(put(root, made), made.video_ids, made.backends)
    given = settings(**fusion)
    with one_thread():
        return fit(views, find_consensus(views, given), given.fusion, lambda _: None)


@pytest.fixture(scope="module")
def made() -> Made:
    return planted()


@pytest.fixture(scope="module")
def model(made: Made, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, FusionModel]:
    return trained(tmp_path_factory.mktemp("store"), made)


class TestWhatItLearns:
    def test_the_view_that_does_not_vote_carries_the_class(
        self, made: Made, model: tuple[Store, FusionModel]
    ) -> None:
        store, fusion = model
        assert fusion.reason is None
        views = read_views(store, made.video_ids, made.backends)
        votes = agreement(views.sentiment_probs, 0.5)
        differ = votes.states == "disagree"
        assert differ.sum() > 200
        opinion = network_opinion(
            store, fusion.model_id, made.backends, views, votes.states == "agree"
        )
        right = opinion.sentiment_probs.argmax(axis=1) == made.truth
        late = np.nanmean(views.sentiment_probs[:, :2], axis=1).argmax(axis=1) == made.truth
        assert late[differ].mean() < 0.55
        assert right[differ].mean() > 0.8
        mean_attention = np.nanmean(opinion.attention, axis=0)
        assert mean_attention[2] == mean_attention.max()

    def test_permuted_votes_teach_nothing_and_the_network_does_not_decide(
        self, tmp_path: Path, made: Made
    ) -> None:
        rng = np.random.default_rng(3)
        shuffled = with_votes(
            made, text=rng.permutation(made.truth), face=rng.permutation(made.truth)
        )
        store, fusion = trained(tmp_path, shuffled)
        assert fusion.model_id == LATE_MEAN
        assert fusion.card is None
        assert fusion.reason is not None
        assert "guessing" in fusion.reason
        (folder,) = (tmp_path / "models").iterdir()
        card = json.loads((folder / "card.json").read_text())
        assert card["metrics"]["sentiment"]["accuracy"] == pytest.approx(1 / 3, abs=0.1)
        again = train_fusion(store, made.video_ids, made.backends, settings())
        assert again == fusion

    def test_rare_classes_are_not_drowned(self, tmp_path: Path) -> None:
        made = planted(n=900, seed=4)
        rare = made.truth == 2
        keep = np.flatnonzero(~rare | (np.cumsum(rare) % 8 == 0))
        views = {
            m: type(v)(*(None if a is None else a[keep] for a in vars(v).values()))
            for m, v in made.views.items()
        }
        few = Made([made.videos[i] for i in keep], views, made.truth[keep])
        result = fitted(tmp_path, few)
        read = read_views(Store(tmp_path), few.video_ids, few.backends)
        consensus = find_consensus(read, settings())
        really = (consensus.sentiment == 2) & (few.truth[consensus.rows] == 2)
        assert 10 < really.sum() < 0.1 * len(consensus)
        assert (result.sentiment.argmax(axis=1) == 2)[really].mean() > 0.75

    def test_the_weights_kept_are_those_of_the_best_epoch(self, tmp_path: Path, made: Made) -> None:
        long = fitted(tmp_path / "long", made, max_epochs=40, patience=40)
        member = int(np.argmin(long.epochs))
        best = long.epochs[member]
        assert best < 35
        short = fitted(tmp_path / "short", made, max_epochs=best)
        assert short.epochs[member] == best
        for name, weights in load(short.weights).items():
            assert torch.equal(weights[member], load(long.weights)[name][member]), name


class TestWhatItMustNotSee:
    def test_folds_are_of_whole_videos_and_so_are_the_held_out_parts(
        self, tmp_path: Path, made: Made
    ) -> None:
        views = read_views(put(tmp_path, made), made.video_ids, made.backends)
        consensus = find_consensus(views, settings())
        videos = views.video_ids[consensus.rows]
        assert sorted(set(consensus.folds.tolist())) == [0, 1, 2, 3, 4]
        sizes = np.bincount(consensus.folds)
        assert sizes.min() > 0.5 * sizes.max()
        for member in range(5):
            train, inner = split(consensus, videos, member, seed=0)
            own = set(videos[consensus.folds == member])
            parts = [set(videos[train]), set(videos[inner]), own]
            assert all(parts)
            assert set.union(*parts) == set(videos)
            assert sum(map(len, parts)) == len(set(videos))

    def test_a_member_is_the_same_whatever_its_own_fold_holds(
        self, tmp_path: Path, made: Made
    ) -> None:
        """The whole path, from embeddings and votes to weights, leaks nothing of a fold."""
        consensus = find_consensus(
            read_views(put(tmp_path / "a", made), made.video_ids, made.backends), settings()
        )
        member = 2
        own = np.array([consensus.fold_of.get(v) == member for v in made.videos])
        rng = np.random.default_rng(7)
        said = {m: made.views[m].sentiment.argmax(axis=1) for m in (TEXT, FACE)}  # type: ignore[union-attr]
        changed = with_votes(made, **{m: np.where(own, (s + 1) % 3, s) for m, s in said.items()})
        for view in changed.views.values():
            noise = rng.normal(50, 9, size=view.embedding.shape).astype(np.float32)
            view.embedding = np.where(own[:, None], noise, view.embedding)
        before = load(fitted(tmp_path / "b", made, max_epochs=12).weights)
        after = load(fitted(tmp_path / "c", changed, max_epochs=12).weights)
        for name, weights in before.items():
            assert torch.equal(weights[member], after[name][member]), name
            for other in {0, 1, 3, 4}:
                if name.endswith("linear.weight"):
                    assert not torch.equal(weights[other], after[name][other])

    def test_a_trained_on_segment_is_judged_by_the_member_that_never_saw_its_video(
        self, made: Made, model: tuple[Store, FusionModel], tmp_path: Path
    ) -> None:
        """Also the round trip: stored and loaded, the network says the same."""
        store, fusion = model
        assert fusion.card is not None
        views = read_views(store, made.video_ids, made.backends)
        consensus = find_consensus(views, settings())
        agreeing = agreement(views.sentiment_probs, 0.5).agreed.any(axis=1)
        opinion = network_opinion(store, fusion.model_id, made.backends, views, agreeing)
        out_of_fold = fitted(tmp_path, made).sentiment
        temperature = fusion.card["metrics"]["sentiment"]["temperature"]
        np.testing.assert_array_equal(
            opinion.sentiment_probs[consensus.rows], softmax(out_of_fold, temperature)
        )


class TestWhenItRefuses:
    def test_too_few(self, tmp_path: Path, made: Made) -> None:
        _, fusion = trained(tmp_path, made.first(30))
        assert fusion.model_id == LATE_MEAN
        assert fusion.card is None
        assert fusion.reason is not None
        assert "of 30 segments agree, a network needs 60 (fusion.min_consensus)" in fusion.reason
        assert not (tmp_path / "models").exists()

    def test_one_video(self, tmp_path: Path, made: Made) -> None:
        single = Made(["v00"] * 600, made.views, made.truth)
        _, fusion = trained(tmp_path, single)
        assert fusion.model_id == LATE_MEAN
        assert "one video" in (fusion.reason or "")

    def test_one_class(self, tmp_path: Path, made: Made) -> None:
        same = np.zeros(600, np.intp)
        _, fusion = trained(tmp_path, with_votes(made, text=same, face=same))
        assert fusion.model_id == LATE_MEAN
        assert (fusion.reason or "").endswith("600 negative, 0 neutral, 0 positive")

    def test_classes_that_do_not_meet_in_a_fold(self, tmp_path: Path, made: Made) -> None:
        halves = Made(["v00"] * 300 + ["v01"] * 300, made.views, made.truth)
        said = np.repeat([0, 2], 300)
        _, fusion = trained(tmp_path, with_votes(halves, text=said, face=said))
        assert fusion.model_id == LATE_MEAN
        assert "a single sentiment" in (fusion.reason or "")

    def test_one_view_or_none(self, tmp_path: Path, made: Made) -> None:
        alone = Made(made.videos, {TEXT: made.views[TEXT]}, made.truth)
        assert trained(tmp_path / "a", alone)[1].model_id == LATE_MEAN
        deaf = Made(made.videos, {AUDIO: made.views[AUDIO]}, made.truth)
        assert trained(tmp_path / "b", deaf)[1].model_id == LATE_MEAN
        nothing = train_fusion(Store(tmp_path / "c"), [], made.backends, settings())
        assert nothing.reason == (
            "0 of 0 segments agree, a network needs 60 (fusion.min_consensus)"
        )

    def test_a_class_too_rare_is_noted_not_refused(self, tmp_path: Path, made: Made) -> None:
        truth = np.where(made.truth == 1, 0, made.truth)
        said = truth.copy()
        said[[10, 200, 400]] = 1
        _, fusion = trained(tmp_path, with_votes(made, text=said, face=said))
        assert fusion.reason is None
        assert fusion.card is not None
        assert fusion.card["data"]["sentiments"]["neutral"] == 3
        assert any(n.startswith("neutral is agreed on 3 times") for n in fusion.card["notes"])


class TestHardData:
    def test_voting_views_that_are_mostly_absent(self, tmp_path: Path) -> None:
        made = planted(n=4000, videos=10, missing=0.8)
        made.views[AUDIO].present = np.ones(4000, bool)
        _, fusion = trained(tmp_path, made, max_epochs=30)
        assert fusion.card is not None
        assert fusion.card["data"]["consensus"] < 0.04 * 4000
        assert fusion.card["metrics"]["sentiment"]["accuracy"] > 0.6

    def test_all_views_mostly_absent_is_too_little_to_learn_from(self, tmp_path: Path) -> None:
        _, fusion = trained(tmp_path, planted(n=4000, videos=10, missing=0.8), max_epochs=30)
        assert fusion.model_id == LATE_MEAN
        assert "which guessing would too" in (fusion.reason or "")

    def test_two_videos_and_videos_of_very_different_length(
        self, tmp_path: Path, made: Made
    ) -> None:
        videos = ["v00"] * 520 + ["v01"] * 80
        _, fusion = trained(tmp_path, Made(videos, made.views, made.truth))
        assert fusion.card is not None
        assert sorted(fusion.card["folds"].values()) == [0, 1]
        assert fusion.card["metrics"]["sentiment"]["rows"] == fusion.card["data"]["consensus"]

    def test_a_broken_and_a_constant_embedding(self, tmp_path: Path, made: Made) -> None:
        odd = planted(seed=2)
        odd.views[TEXT].embedding[5] = np.nan
        odd.views[FACE].embedding[:] = 0
        odd.views[AUDIO].embedding[7] = 3e38
        _, fusion = trained(tmp_path, odd)
        assert fusion.card is not None
        assert "text: 1 embeddings are not finite and count as absent" in fusion.card["notes"]
        assert np.isfinite(fusion.card["metrics"]["sentiment"]["ece"])

    def test_a_view_absent_from_all_agreeing_segments(self, tmp_path: Path, made: Made) -> None:
        said = [made.views[m].sentiment.argmax(axis=1) for m in (TEXT, FACE)]  # type: ignore[union-attr]
        differ = said[0] != said[1]
        hidden = planted()
        hidden.views[AUDIO].present = differ
        # Without audio nothing can be learned; let text show what text and face agree on.
        hidden.views[TEXT].embedding = (
            hidden.views[TEXT].embedding + 4 * np.eye(3, 8)[said[0]]
        ).astype(np.float32)
        store, fusion = trained(tmp_path, hidden)
        assert fusion.card is not None
        assert [v["modality"] for v in fusion.card["views"]] == ["text", "face"]
        views = read_views(store, hidden.video_ids, hidden.backends)
        opinion = network_opinion(store, fusion.model_id, hidden.backends, views, ~differ)
        assert (opinion.attention[differ, 2] == 0).all()
        assert np.isnan(opinion.attention[~differ, 2]).all()
        np.testing.assert_allclose(np.nansum(opinion.attention, axis=1), 1, atol=1e-6)

    def test_the_same_segments_twice(self, tmp_path: Path, made: Made) -> None:
        twice = Made(
            made.videos + [f"w{v}" for v in made.videos],
            {
                m: type(v)(
                    *(None if a is None else np.concatenate([a, a]) for a in vars(v).values())
                )
                for m, v in made.views.items()
            },
            np.concatenate([made.truth] * 2),
        )
        _, fusion = trained(tmp_path, twice, max_epochs=15)
        assert fusion.card is not None
        assert fusion.card["data"]["segments"] == 1200


class TestWhatItLeavesBehind:
    def test_the_card_says_it_all(self, made: Made, model: tuple[Store, FusionModel]) -> None:
        store, fusion = model
        folder = store.folder("models", fusion.model_id)
        assert folder is not None
        assert sorted(p.name for p in folder.iterdir()) == ["card.json", "model.safetensors"]
        card = json.loads((folder / "card.json").read_text())
        assert card == fusion.card
        assert card["backends"] == {m.value: b for m, b in made.backends.items()}
        assert [v["width"] for v in card["views"]] == [8, 6, 10]
        assert card["data"]["segments"] == 600
        assert sum(card["data"]["sentiments"].values()) == card["data"]["consensus"]
        assert set(card["folds"]) == set(made.video_ids)
        assert card["settings"]["fusion"]["seed"] == 0
        assert card["combined"]["view_weight"] == 0.5
        assert set(card["combined"]["temperature"]) == {"sentiment", "emotion"}
        assert len(card["epochs"]) == 5
        assert any("every error those models share" in limit for limit in card["limits"])
        for task in ("sentiment", "emotion"):
            scores = card["metrics"][task]
            assert scores["accuracy"] > 0.7
            assert 0 < scores["coverage"] < 1
            assert scores["ece"] <= scores["ece_before"] + 0.02
            assert scores["temperature"] >= 1

    def test_weights_are_plain_safetensors(self, model: tuple[Store, FusionModel]) -> None:
        store, fusion = model
        path = store.root / "models" / fusion.model_id / "model.safetensors"
        with safe_open(path, framework="np") as file:
            assert all(file.get_tensor(name).shape[0] == 5 for name in file.keys())  # noqa: SIM118

    def test_a_model_that_stands_is_not_trained_again(
        self, made: Made, model: tuple[Store, FusionModel], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store, fusion = model

        def never(*_: object) -> None:
            raise AssertionError("trained again")

        monkeypatch.setattr(vsa_core.fusion.fit, "fit", never)
        told: list[float] = []
        turned = dict(reversed(made.backends.items()))
        videos = random.Random(0).sample(made.video_ids, len(made.video_ids))
        again = train_fusion(store, [*videos, "v01"], turned, settings(), progress=told.append)
        assert again == fusion
        assert told == [1.0]
        for other in (settings(seed=1), settings(folds=4)):
            with pytest.raises(AssertionError, match="trained again"):
                train_fusion(store, made.video_ids, made.backends, other)
        with pytest.raises(AssertionError, match="trained again"):
            train_fusion(store, made.video_ids[1:], made.backends, settings())

    def test_progress_rises_to_one(self, tmp_path: Path, made: Made) -> None:
        told: list[float] = []
        store = put(tmp_path, made)
        train_fusion(
            store, made.video_ids, made.backends, settings(max_epochs=5), progress=told.append
        )
        assert told == sorted(told)
        assert len(told) > 5
        assert told[-1] == 1.0

    def test_the_same_bits_on_one_thread_and_two(self, tmp_path: Path, made: Made) -> None:
        before = torch.get_num_threads()
        random_state = torch.random.get_rng_state()
        files = []
        try:
            for threads in (1, 2):
                torch.set_num_threads(threads)
                store, fusion = trained(tmp_path / str(threads), made, max_epochs=10)
                assert torch.get_num_threads() == threads
                path = store.root / "models" / fusion.model_id / "model.safetensors"
                files.append(path.read_bytes())
        finally:
            torch.set_num_threads(before)
        assert files[0] == files[1]
        assert torch.equal(random_state, torch.random.get_rng_state())

    @pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "text", "card", "other card"])
    def test_a_damaged_model_is_one_clear_error(
        self, made: Made, model: tuple[Store, FusionModel], tmp_path: Path, damage: str
    ) -> None:
        fusion = model[1]
        shutil.copytree(model[0].root, tmp_path, dirs_exist_ok=True)
        store = Store(tmp_path)
        weights = tmp_path / "models" / fusion.model_id / "model.safetensors"
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
        views = read_views(store, made.video_ids, made.backends)
        with pytest.raises(VsaError, match=f"remove .*models/{fusion.model_id} and run") as error:
            network_opinion(store, fusion.model_id, made.backends, views, np.zeros(600, bool))
        assert "\n" not in str(error.value)

    def test_a_model_of_other_backends_is_refused(
        self, made: Made, model: tuple[Store, FusionModel]
    ) -> None:
        store, fusion = model
        views = read_views(store, made.video_ids, made.backends)
        other: dict[Modality, str] = {**made.backends, FACE: "made-face@9999"}
        with pytest.raises(VsaError, match="trained on made-face@0123, not on made-face@9999"):
            network_opinion(store, fusion.model_id, other, views, np.zeros(600, bool))


def test_votes_that_agree_on_an_emotion_must_suit_the_sentiment(tmp_path: Path) -> None:
    n = 9
    rng = np.random.default_rng(0)
    made = planted(n=n, videos=3)
    positive, joy, anger = np.full(n, 2), np.full(n, 3), np.full(n, 0)
    for modality, emotion in ((TEXT, joy), (FACE, np.where(np.arange(n) < 3, joy, anger))):
        view = made.views[modality]
        view.sentiment = confident(positive, rng)
        view.emotion = confident(emotion, rng, 7)
    made.views[TEXT].emotion[6:] = confident(anger[6:], rng, 7)  # type: ignore[index]
    views = read_views(put(tmp_path, made), made.video_ids, made.backends)
    consensus = find_consensus(views, settings())
    assert len(consensus) == n
    assert consensus.has_emotion.tolist() == [True] * 3 + [False] * 6
    assert (consensus.emotion[:3] == 3).all()
