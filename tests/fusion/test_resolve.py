"""Labels: who decides, with what probabilities, and that nothing is dropped."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import vsa_core.fusion.resolve
from tests.fusion.made import (
    AUDIO,
    BACKENDS,
    FACE,
    TEXT,
    Made,
    View,
    planted,
    put,
    settings,
)
from vsa_core.errors import StoreError
from vsa_core.fusion import FusionModel, late
from vsa_core.fusion.data import read_views
from vsa_core.fusion.resolve import resolve
from vsa_core.fusion.train import train_fusion
from vsa_core.labels import EMOTIONS, SENTIMENT_GIVEN_EMOTION, SENTIMENTS
from vsa_core.schemas import table_from_rows
from vsa_core.store import Store
from vsa_core.verify import verify

WITHOUT = FusionModel("late-mean", None, None)
NAN = float("nan")
NEG, POS = [0.8, 0.1, 0.1], [0.1, 0.2, 0.7]
UNSURE, TORN, NONE = [0.3, 0.4, 0.3], [0.5, 0.0, 0.5], [NAN] * 3
JOY = [0.02, 0.02, 0.02, 0.8, 0.1, 0.02, 0.02]
ANGER = [0.7, 0.1, 0.05, 0.05, 0.05, 0.03, 0.02]
SURPRISE = [0.0] * 6 + [1.0]
NO_EMOTION = [NAN] * 7


def segments(*rows: dict[Any, tuple[list[float], list[float]]], audio: bool = True) -> Made:
    """One video; per segment modality → (sentiment, emotion); text and face else absent."""
    n = len(rows)
    views = {}
    for modality in (TEXT, FACE):
        said = [row.get(modality, (NONE, NO_EMOTION)) for row in rows]
        views[modality] = View(
            np.zeros((n, 4), np.float32),
            np.array([s for s, _ in said], np.float32),
            np.array([e for _, e in said], np.float32),
            np.array([modality in row for row in rows]),
        )
    views[AUDIO] = View(np.zeros((n, 2), np.float32), present=np.full(n, audio))
    return Made(["v00"] * n, views, np.zeros(n, np.intp))


def labels(
    root: Path, made: Made, model: FusionModel = WITHOUT, **fusion: Any
) -> list[dict[str, Any]]:
    store = put(root, made)
    ref = resolve(store, "r1", 0, made.video_ids, made.backends, model, settings(**fusion))
    return store.read(ref).to_pylist()


class TestWithoutLearning:
    def test_consensus_is_what_agreeing_votes_say(self, tmp_path: Path) -> None:
        (row,) = labels(tmp_path, segments({TEXT: (POS, JOY), FACE: ([0.2, 0.2, 0.6], JOY)}))
        assert (row["origin"], row["agreement"], row["sentiment"]) == (
            "consensus", "agree", "positive",
        )  # fmt: skip
        assert row["sentiment_probs"] == pytest.approx([0.15, 0.2, 0.65])
        assert row["confidence"] == pytest.approx(0.65)
        assert (row["text_vote"], row["face_vote"], row["audio_vote"]) == (
            "positive", "positive", None,
        )  # fmt: skip
        assert row["emotion"] == "joy"

    def test_a_view_that_abstains_casts_no_vote_but_has_its_say(self, tmp_path: Path) -> None:
        made = segments({TEXT: (POS, NO_EMOTION), FACE: (UNSURE, NO_EMOTION)})
        made.views[AUDIO].sentiment = np.array([[0.1, 0.0, 0.9]], np.float32)
        (row,) = labels(tmp_path, made)
        assert row["origin"] == "consensus"
        expected = np.mean([POS, UNSURE, [0.1, 0.0, 0.9]], axis=0)
        assert row["sentiment_probs"] == pytest.approx(expected.tolist())
        assert (row["face_vote"], row["audio_vote"]) == (None, "positive")

    def test_a_label_less_probable_than_is_asked_for_is_not_given(self, tmp_path: Path) -> None:
        made = segments({TEXT: (POS, JOY)}, {TEXT: ([0.1, 0.0, 0.9], JOY)})
        first, second = labels(tmp_path, made, min_label_confidence=0.8)
        assert (first["origin"], first["agreement"]) == ("none", "single")
        assert first["sentiment"] is first["confidence"] is first["sentiment_probs"] is None
        assert first["text_vote"] == "positive"
        assert (second["origin"], second["sentiment"]) == ("single", "positive")

    def test_single_is_the_only_voter(self, tmp_path: Path) -> None:
        (row,) = labels(tmp_path, segments({FACE: (NEG, ANGER)}))
        assert (row["origin"], row["agreement"], row["sentiment"]) == (
            "single", "single", "negative",
        )  # fmt: skip
        assert row["sentiment_probs"] == pytest.approx(NEG)
        assert (row["text_vote"], row["face_vote"]) == (None, "negative")
        assert (row["text_attention"], row["face_attention"], row["audio_attention"]) == (
            None,
            1,
            0,
        )
        assert row["emotion"] == "anger"

    @pytest.mark.parametrize("other", [NEG, UNSURE])
    def test_who_disagrees_or_is_unsure_is_averaged(
        self, tmp_path: Path, other: list[float]
    ) -> None:
        (row,) = labels(tmp_path, segments({TEXT: (POS, JOY), FACE: (other, ANGER)}))
        assert row["origin"] == "fusion"
        assert row["agreement"] == ("disagree" if other is NEG else "uncertain")
        assert row["sentiment_probs"] == pytest.approx(np.mean([POS, other], axis=0).tolist())
        assert row["confidence"] == pytest.approx(max(row["sentiment_probs"]))
        assert (row["text_attention"], row["face_attention"]) == (0.5, 0.5)
        assert row["audio_attention"] == 0
        assert row["model_id"] == "late-mean"

    def test_how_far_face_and_text_are_apart(self, tmp_path: Path) -> None:
        rows = segments({TEXT: (POS, JOY), FACE: (NEG, ANGER)}, {TEXT: (POS, JOY)}, {})
        apart, alone, absent = labels(tmp_path / "all", rows)
        assert apart["face_text_distance"] == pytest.approx(0.7)  # (0.7 + 0.1 + 0.6) / 2
        assert alone["face_text_distance"] is absent["face_text_distance"] is None
        faceless = segments({TEXT: (POS, JOY)})
        del faceless.views[FACE]
        (row,) = labels(tmp_path / "faceless", faceless)
        assert row["face_text_distance"] is None

    def test_nothing_votes(self, tmp_path: Path) -> None:
        heard, silent = [
            labels(tmp_path / str(audio), segments({}, audio=audio))[0] for audio in (True, False)
        ]
        for row in (heard, silent):
            assert (row["origin"], row["agreement"]) == ("none", "absent")
            for column in (
                "sentiment", "emotion", "sentiment_probs", "emotion_probs", "confidence",
                "emotion_confidence", "text_vote", "face_vote", "audio_vote",
                "text_attention", "face_attention", "audio_attention",
            ):  # fmt: skip
                assert row[column] is None, column

    def test_torn_between_two_sentiments_nobody_decides_but_the_emotion_is_known(
        self, tmp_path: Path
    ) -> None:
        (row,) = labels(tmp_path, segments({FACE: (TORN, SURPRISE)}))
        assert (row["origin"], row["agreement"]) == ("none", "uncertain")
        assert row["sentiment"] is row["sentiment_probs"] is row["confidence"] is None
        assert row["emotion"] == "surprise"
        assert row["emotion_confidence"] == pytest.approx(1, abs=1e-4)

    def test_an_emotion_has_its_own_confidence(self, tmp_path: Path) -> None:
        (row,) = labels(tmp_path, segments({TEXT: (NEG, ANGER), FACE: (NEG, ANGER)}))
        expected = np.array(ANGER) * (SENTIMENT_GIVEN_EMOTION @ np.array(NEG))
        assert row["emotion_probs"] == pytest.approx((expected / expected.sum()).tolist(), abs=1e-4)
        assert row["emotion"] == "anger"
        assert row["emotion_confidence"] == max(row["emotion_probs"])
        assert row["emotion_confidence"] != pytest.approx(row["confidence"], abs=0.01)

    @pytest.mark.parametrize(
        "felt",
        [
            ANGER,  # likeliest also after the sentiment had its say, which it does not suit
            [0.05, 0.05, 0.0, 0.1, 0.7, 0.1, 0.0],  # neutral of a slide talk
            [0.2, 0.2, 0.2, 0.1, 0.1, 0.2, 0.0],  # only joy is left over
        ],
    )
    def test_an_emotion_that_does_not_suit_the_sentiment_is_none(
        self, tmp_path: Path, felt: list[float]
    ) -> None:
        (row,) = labels(tmp_path, segments({TEXT: (POS, felt), FACE: (POS, felt)}))
        assert row["sentiment"] == "positive"
        assert row["emotion"] is row["emotion_confidence"] is None
        assert sum(row["emotion_probs"]) == pytest.approx(1)

    def test_an_emotion_all_views_exclude(self, tmp_path: Path) -> None:
        certain = [0.0, 0.0, 1.0]
        only_anger = [1.0, 0, 0, 0, 0, 0, 0]
        (row,) = labels(
            tmp_path, segments({TEXT: (certain, only_anger), FACE: (certain, only_anger)})
        )
        assert row["emotion"] is row["emotion_confidence"] is None
        assert sum(row["emotion_probs"]) == pytest.approx(1)

    def test_an_improbable_or_tied_emotion_is_none(self, tmp_path: Path) -> None:
        shy, tied = [0.3, 0.2, 0.2, 0.05, 0.05, 0.2, 0.0], [0.4, 0.4, 0.1, 0.0, 0.0, 0.1, 0.0]
        made = segments({FACE: (NEG, shy)}, {FACE: (NEG, tied)}, {FACE: (NEG, ANGER)})
        for floor, given in ((0.0, ["anger", None, "anger"]), (0.5, [None, None, "anger"])):
            rows = labels(tmp_path / str(floor), made, min_emotion_confidence=floor)
            assert [row["emotion"] for row in rows] == given
            assert [row["sentiment"] for row in rows] == ["negative"] * 3
            for row in rows:
                assert (row["emotion"] is None) == (row["emotion_confidence"] is None)
        # The default keeps what is likelier than not to be right of emotions that are unsure.
        assert [row["emotion"] for row in labels(tmp_path / "default", made)] == [
            "anger", None, "anger",
        ]  # fmt: skip

    def test_without_emotions_there_is_no_emotion(self, tmp_path: Path) -> None:
        (row,) = labels(tmp_path, segments({TEXT: (POS, NO_EMOTION)}))
        assert row["sentiment"] == "positive"
        assert row["emotion"] is row["emotion_probs"] is None

    def test_lineage_and_facts(self, tmp_path: Path) -> None:
        (row,) = labels(tmp_path, segments({TEXT: (POS, JOY)}))
        assert row["run_id"] == "r1"
        assert row["video_id"] == "v00"
        assert row["segment_id"] == "v00-0-900"
        assert (row["start_ms"], row["end_ms"], row["text"]) == (0, 900, "line 0")
        assert (row["channel_id"], row["title"]) == ("c1", "About v00")
        assert row["backends"] == [BACKENDS[m] for m in (TEXT, FACE, AUDIO)]
        assert row["config_id"] == settings().fingerprint()


@pytest.fixture(scope="module")
def made() -> Made:
    found = planted(n=700, videos=10, seed=5, missing=0.25)
    text = found.views[TEXT]
    assert text.sentiment is not None
    text.sentiment[::9] = [0.4, 0.3, 0.3]
    text.sentiment[::20] = np.nan
    text.embedding[11] = np.nan
    return found


@pytest.fixture(scope="module")
def fused(made: Made, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, FusionModel]:
    store = put(tmp_path_factory.mktemp("store"), made)
    return store, train_fusion(store, made.video_ids, made.backends, settings())


@pytest.fixture(scope="module")
def rows(made: Made, fused: tuple[Store, FusionModel]) -> list[dict[str, Any]]:
    store, model = fused
    assert model.reason is None
    ref = resolve(store, "r1", 0, made.video_ids, made.backends, model, settings())
    return store.read(ref).to_pylist()


class TestWithWhatWasLearned:
    def test_every_segment_has_one_row(self, made: Made, rows: list[dict[str, Any]]) -> None:
        assert [row["segment_id"] for row in rows] == made.segment_ids
        assert {row["origin"] for row in rows} == {"consensus", "fusion", "single", "none"}
        assert {row["agreement"] for row in rows} == {
            "agree", "disagree", "single", "uncertain", "absent",
        }  # fmt: skip

    def test_attention_sums_to_one_over_the_views_present(
        self, made: Made, fused: tuple[Store, FusionModel], rows: list[dict[str, Any]]
    ) -> None:
        views = read_views(fused[0], made.video_ids, made.backends)
        for row, present in zip(rows, views.present, strict=True):
            weights = [row[f"{m}_attention"] for m in (TEXT, FACE, AUDIO)]
            assert [w is not None for w in weights] == present.tolist()
            if present.any():
                assert sum(w for w in weights if w is not None) == pytest.approx(1, abs=1e-5)
        # Audio that is heard counts though it does not vote, and for consensus segments too.
        assert any(r["audio_attention"] and r["origin"] == "consensus" for r in rows)

    def test_it_decides_the_disagreements_better_than_the_mean(
        self, made: Made, fused: tuple[Store, FusionModel], rows: list[dict[str, Any]]
    ) -> None:
        heard = made.views[AUDIO].present
        assert heard is not None
        views = read_views(fused[0], made.video_ids, made.backends)
        late_right = late.mean(views.probs["sentiment"]).argmax(axis=1) == made.truth
        names = [str(s) for s in SENTIMENTS]
        right = np.array(
            [r["sentiment"] == names[t] for r, t in zip(rows, made.truth, strict=True)]
        )
        differ = np.array([r["agreement"] == "disagree" for r in rows]) & heard
        assert right[differ].mean() > late_right[differ].mean() + 0.15

    def test_labels_are_consistent_with_their_probabilities(
        self, rows: list[dict[str, Any]]
    ) -> None:
        names, emotions = [str(s) for s in SENTIMENTS], [str(e) for e in EMOTIONS]
        for row in rows:
            assert (row["origin"] == "none") == (row["sentiment"] is None)
            assert (row["sentiment"] is None) == (row["confidence"] is None)
            if row["sentiment"] is None:
                continue
            best = int(np.argmax(row["sentiment_probs"]))
            assert row["sentiment"] == names[best]
            assert row["confidence"] == max(row["sentiment_probs"])
            if row["emotion"] is not None:
                assert SENTIMENT_GIVEN_EMOTION[emotions.index(row["emotion"]), best] > 0

    def test_shards_give_the_same_labels_as_the_whole(
        self, made: Made, fused: tuple[Store, FusionModel], rows: list[dict[str, Any]]
    ) -> None:
        store, model = fused
        videos = made.video_ids
        found = []
        for shard, part in enumerate((videos[:1], videos[1:7], videos[7:])):
            ref = resolve(store, "r2", shard, part, made.backends, model, settings())
            assert (ref.part, ref.key) == ("r2", f"{shard:04d}")
            found.extend(store.read(ref).to_pylist())
        for one, other in zip(found, rows, strict=True):
            assert {**one, "run_id": "r1"} == {
                **other,
                "sentiment_probs": pytest.approx(other["sentiment_probs"], abs=1e-5),
                "emotion_probs": pytest.approx(other["emotion_probs"], abs=1e-5),
                "confidence": pytest.approx(other["confidence"], abs=1e-5),
                **{
                    f"{m}_attention": pytest.approx(other[f"{m}_attention"], abs=1e-5)
                    for m in (TEXT, FACE, AUDIO)
                },
            }

    def test_videos_the_model_never_saw(
        self, tmp_path: Path, made: Made, fused: tuple[Store, FusionModel]
    ) -> None:
        """Also a modality that is absent from all of them."""
        new = planted(n=60, videos=2, seed=8)
        new.views[FACE].present = np.zeros(60, bool)
        new.videos = [f"w{v}" for v in new.videos]
        store = put(fused[0].root, new)
        ref = resolve(store, "r3", 0, new.video_ids, new.backends, fused[1], settings())
        found = store.read(ref).to_pylist()
        assert len(found) == 60
        assert {r["agreement"] for r in found} == {"single"}
        assert all(r["face_attention"] is None for r in found)
        assert all(
            r["text_attention"] + r["audio_attention"] == pytest.approx(1, abs=1e-5) for r in found
        )
        # What it learned to hear elsewhere overrides votes here, and nothing was trained again.
        assert {r["origin"] for r in found} == {"single", "fusion"}
        assert [r["origin"] == "single" for r in found] == [
            r["sentiment"] == r["text_vote"] for r in found
        ]
        names = [str(sentiment) for sentiment in SENTIMENTS]
        right = np.array([[names.index(r[c]) for c in ("sentiment", "text_vote")] for r in found])
        of_label, of_text = (right == new.truth[:, None]).mean(axis=0)
        assert of_label > of_text + 0.1
        assert len(list((store.root / "models").iterdir())) == 1

    def test_one_new_video_is_labelled_as_with_others(
        self, made: Made, fused: tuple[Store, FusionModel], tmp_path: Path
    ) -> None:
        new = planted(n=80, videos=4, seed=9)
        new.videos = [f"x{v}" for v in new.videos]
        store = put(fused[0].root, new)
        found = []
        for run, videos in (("r4", new.video_ids), ("r7", new.video_ids[1:2])):
            ref = resolve(store, run, 0, videos, new.backends, fused[1], settings())
            found.append(
                {r["segment_id"]: r["sentiment_probs"] for r in store.read(ref).to_pylist()}
            )
        together, alone = found
        assert len(alone) == 20
        for segment, probs in alone.items():
            assert probs == pytest.approx(together[segment], abs=1e-5)

    def test_a_shard_where_nobody_knows_emotions(self, fused: tuple[Store, FusionModel]) -> None:
        new = planted(n=30, videos=1, seed=10)
        new.videos = [f"y{v}" for v in new.videos]
        for view in new.views.values():
            view.emotion = None
        store = put(fused[0].root, new)
        ref = resolve(store, "r5", 0, new.video_ids, new.backends, fused[1], settings())
        assert all(r["sentiment"] is not None for r in store.read(ref).to_pylist())

    def test_a_label_against_an_agreement_is_fusions_own(self, rows: list[dict[str, Any]]) -> None:
        agreeing = [r for r in rows if r["agreement"] == "agree"]
        for row in agreeing:
            backed = row["sentiment"] in (row["text_vote"], row["face_vote"])
            assert row["origin"] == ("consensus" if backed else "fusion")
        assert {row["origin"] for row in agreeing} == {"consensus", "fusion"}

    def test_embeddings_of_another_width_are_one_clear_error(
        self, fused: tuple[Store, FusionModel], tmp_path: Path
    ) -> None:
        new = planted(n=30, videos=1, seed=11)
        new.views[TEXT].embedding = new.views[TEXT].embedding[:, :5]
        shutil.copytree(fused[0].root / "models", tmp_path / "models")
        store = put(tmp_path, new)
        with pytest.raises(StoreError, match=r"takes text embeddings 8 wide, these are 5: remove"):
            resolve(store, "r6", 0, new.video_ids, new.backends, fused[1], settings())

    def test_what_stands_is_not_made_again(
        self,
        made: Made,
        fused: tuple[Store, FusionModel],
        rows: list[dict[str, Any]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        store, model = fused

        def never(*_: object, **__: object) -> None:
            raise AssertionError("made again")

        monkeypatch.setattr(vsa_core.fusion.resolve, "read_views", never)
        ref = resolve(store, "r1", 0, made.video_ids, made.backends, model, settings())
        assert ref.rows == len(rows)
        for changed in (
            lambda: resolve(store, "r1", 0, made.video_ids[1:], made.backends, model, settings()),
            lambda: resolve(store, "r1", 0, made.video_ids, made.backends, WITHOUT, settings()),
            lambda: resolve(store, "r1", 0, made.video_ids, made.backends, model, settings(seed=3)),
        ):
            with pytest.raises(AssertionError, match="made again"):
                changed()


class TestOddStores:
    def test_no_videos_and_videos_without_segments(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        store.commit("segments", "v9", table_from_rows("segments", []), "made")
        ref = resolve(store, "r1", 7, ["v9", "nowhere"], BACKENDS, WITHOUT, settings())
        assert (ref.key, ref.rows) == ("0007", 0)

    def test_segments_without_any_prediction_are_absent(self, tmp_path: Path) -> None:
        made = segments({TEXT: (POS, JOY)}, {})
        store = put(tmp_path, made)
        other = {TEXT: "other-text@1", FACE: "other-face@1"}
        ref = resolve(store, "r1", 0, ["v00", "v00"], other, WITHOUT, settings())
        found = store.read(ref).to_pylist()
        assert [r["agreement"] for r in found] == ["absent", "absent"]
        assert found[0]["backends"] == ["other-text@1", "other-face@1"]

    def test_a_video_without_its_row_is_an_error(self, tmp_path: Path) -> None:
        store = put(tmp_path, segments({TEXT: (POS, JOY)}))
        (tmp_path / "videos" / "v00.parquet").unlink()
        with pytest.raises(StoreError, match="video v00 has segments but no row"):
            resolve(store, "r1", 0, ["v00"], BACKENDS, WITHOUT, settings())

    def test_the_table_passes_the_stores_own_check(
        self, fused: tuple[Store, FusionModel], rows: list[dict[str, Any]]
    ) -> None:
        problems = [p for p in verify(fused[0]) if "runs" not in p]
        assert problems == []
        assert isinstance(table_from_rows("labels", rows), pa.Table)
