"""A third voter: the same rules and the same code as with two, whichever of the three it is."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import bad_media
from tests.fusion.made import (
    AUDIO,
    FACE,
    TEXT,
    Made,
    View,
    confident,
    noisy,
    planted,
    put,
    settings,
)
from vsa_core.backends import load_backend
from vsa_core.backends.label_maps import map_labels
from vsa_core.config import NamedModel, Settings
from vsa_core.fusion import FusionModel, late
from vsa_core.fusion.resolve import resolve
from vsa_core.fusion.strategies import STRATEGIES
from vsa_core.fusion.train import train_fusion
from vsa_core.labels import EMOTIONS, SENTIMENTS
from vsa_core.media import probe
from vsa_core.predict import predict
from vsa_core.progress import Steps
from vsa_core.schemas import TABLES, table_from_rows
from vsa_core.store import Store

VIEWS = (TEXT, FACE, AUDIO)
NAN = float("nan")
POS, NEU, NEG = [0.1, 0.2, 0.7], [0.2, 0.7, 0.1], [0.8, 0.1, 0.1]
UNSURE, GONE = [0.3, 0.4, 0.3], [NAN] * 3
NAME = {id(POS): "positive", id(NEU): "neutral", id(NEG): "negative"}
FEAR = [0.03, 0.03, 0.6, 0.03, 0.03, 0.25, 0.03]
SUPERB = ("neu", "hap", "ang", "sad")


def one_segment(votes: dict[Any, list[float]]) -> Made:
    """A segment with these votes; a view that is `GONE` is absent."""
    views = {
        modality: View(
            np.zeros((1, 4), np.float32),
            np.array([said], np.float32),
            present=np.array([said is not GONE]),
        )
        for modality, said in votes.items()
    }
    return Made(["v00"], views, np.zeros(1, np.intp))


def labels_of(root: Path, made: Made, strategy: str = "late-mean") -> list[dict[str, Any]]:
    """Their labels, by what the strategy learns of them."""
    store, how = put(root, made), settings(strategy=strategy)
    model = train_fusion(store, made.video_ids, made.backends, how)
    return store.read(
        resolve(store, "r1", 0, made.video_ids, made.backends, model, how)
    ).to_pylist()


# --- who decides --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("votes", "agreement", "origin", "sentiment"),
    [
        ((POS, POS, POS), "agree", "consensus", "positive"),
        ((POS, POS, UNSURE), "agree", "consensus", "positive"),
        ((POS, POS, GONE), "agree", "consensus", "positive"),
        ((NEG, NEG, POS), "disagree", "fusion", "negative"),
        ((POS, NEG, GONE), "disagree", "fusion", "negative"),
        ((POS, NEU, UNSURE), "disagree", "fusion", "neutral"),
        ((POS, UNSURE, UNSURE), "uncertain", "fusion", "positive"),
        ((POS, UNSURE, GONE), "uncertain", "fusion", "positive"),
        ((UNSURE, UNSURE, UNSURE), "uncertain", "fusion", "neutral"),
        ((POS, GONE, GONE), "single", "single", "positive"),
        ((GONE, GONE, GONE), "absent", "none", None),
    ],
)
def test_it_does_not_matter_which_of_three_says_it(
    tmp_path: Path,
    votes: tuple[list[float], ...],
    agreement: str,
    origin: str,
    sentiment: str | None,
) -> None:
    for order in permutations(VIEWS):
        said = dict(zip(order, votes, strict=True))
        (row,) = labels_of(tmp_path / "-".join(order), one_segment(said))
        assert (row["agreement"], row["origin"], row["sentiment"]) == (agreement, origin, sentiment)
        for modality, vote in said.items():
            assert row[f"{modality}_vote"] == NAME.get(id(vote)), modality
        present = [m for m in VIEWS if said[m] is not GONE]
        weights = {m: row[f"{m}_attention"] for m in VIEWS}
        assert [m for m in VIEWS if weights[m] is not None] == present
        if present:
            assert sum(weights[m] for m in present) == pytest.approx(1)


def test_a_third_that_is_never_there_changes_nothing(tmp_path: Path) -> None:
    two = {TEXT: POS, FACE: NEG}
    for strategy in ("late-mean", "late-product", "vote"):
        (without,) = labels_of(tmp_path / strategy / "two", one_segment(two), strategy)
        (with_it,) = labels_of(
            tmp_path / strategy / "three", one_segment(two | {AUDIO: GONE}), strategy
        )
        told_by = ("backends", "config_id")
        assert {k: v for k, v in without.items() if k not in told_by} == {
            k: v for k, v in with_it.items() if k not in told_by
        }


def test_two_outvote_one(tmp_path: Path) -> None:
    """However sure the one is: a vote is a vote, where the mean is not of the same mind."""
    said = {TEXT: [0.4, 0.05, 0.55], FACE: [0.4, 0.05, 0.55], AUDIO: [0.96, 0.02, 0.02]}
    (counted,) = labels_of(tmp_path / "vote", one_segment(said), "vote")
    (mean,) = labels_of(tmp_path / "mean", one_segment(said))
    assert (counted["sentiment"], mean["sentiment"]) == ("positive", "negative")
    assert counted["sentiment_probs"] == pytest.approx([1 / 3, 0, 2 / 3])


# --- what is learned ----------------------------------------------------------------------


def three_voters(audio_votes: bool = True) -> Made:
    """As `planted`, with a voice that votes, unsure at times, and knows four emotions."""
    made = planted(n=420, videos=6, seed=3, missing=0.2)
    if not audio_votes:
        return made
    rng = np.random.default_rng(1)
    said = noisy(made.truth, 0.6, rng)
    classes = map_labels(SUPERB, where="a test")
    theirs = confident(np.array([3, 0, 1])[said], rng, 4)  # sad, neutral, happy
    voice = made.views[AUDIO]
    voice.sentiment = classes.sentiment_probs(theirs)
    voice.emotion = classes.emotion_probs(theirs)
    assert voice.emotion is not None
    voice.sentiment[::11] = [0.35, 0.3, 0.35]
    voice.sentiment[::13] = voice.emotion[::13] = np.nan  # abstains, and is still heard
    return made


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_takes_three_voters(strategy: str, tmp_path: Path) -> None:
    made = three_voters()
    rows = labels_of(tmp_path / "three", made, strategy)
    assert [row["segment_id"] for row in rows] == made.segment_ids
    assert {row["agreement"] for row in rows} == {
        "agree", "disagree", "single", "uncertain", "absent",
    }  # fmt: skip
    assert {row["audio_vote"] for row in rows} == {None, *map(str, SENTIMENTS)}
    voices = made.views[AUDIO]
    assert voices.present is not None
    for row, heard in zip(rows, voices.present, strict=True):
        weights = [row[f"{m}_attention"] for m in VIEWS if row[f"{m}_attention"] is not None]
        assert not weights or sum(weights) == pytest.approx(1, abs=1e-5)
        assert heard or row["audio_vote"] is row["audio_attention"] is None
    names = [str(sentiment) for sentiment in SENTIMENTS]

    def right(found: list[dict[str, Any]]) -> float:
        return float(
            np.mean([r["sentiment"] == names[t] for r, t in zip(found, made.truth, strict=True)])
        )

    two = labels_of(tmp_path / "two", three_voters(audio_votes=False), strategy)
    assert right(rows) > right(two)


def test_a_voice_that_knows_four_emotions_does_not_hide_the_others(tmp_path: Path) -> None:
    """Text and face see fear; the voice, which has no word for it, hears anger or sadness."""
    classes = map_labels(SUPERB, where="a test")
    theirs = np.array([[0.05, 0.05, 0.5, 0.4]], np.float32)
    admitted = classes.emotion_probs(theirs)
    assert admitted is not None
    known = np.isin(EMOTIONS, ("anger", "joy", "neutral", "sadness"))
    zeros = np.where(known, admitted, 0)
    fear = EMOTIONS.index("fear")  # type: ignore[arg-type]
    others = np.array([[FEAR, FEAR]], np.float32)

    def together(heard: np.ndarray) -> int:
        return int(late.product(np.concatenate([others, heard[None]], axis=1)).argmax())

    assert together(zeros) != fear  # which is why they do not stay zero
    assert together(admitted) == fear


# --- through the stages -------------------------------------------------------------------


@pytest.mark.parametrize("votes", [True, False])
def test_a_voice_that_votes_through_the_stages(tmp_path: Path, votes: bool) -> None:
    video = bad_media.write(tmp_path / "v.mp4", bad_media.film(100), bad_media.sweep(10))
    media = probe(video)
    store = Store(tmp_path / "store")
    about: dict[str, Any] = dict.fromkeys(TABLES["videos"].schema.names)
    about |= {"video_id": "v00", "status": "ok", "source_url": "file:///v.mp4", "title": "V"}
    about |= {name: getattr(media, name) for name in ("duration_ms", "has_video", "has_audio")}
    about |= {"media_path": str(video), "width": media.width, "height": media.height}
    store.commit("videos", "v00", table_from_rows("videos", [about]), "made")
    spans = [
        {
            "video_id": "v00",
            "segment_id": f"v00-{k}",
            "index": k,
            "start_ms": k * 500,
            "end_ms": k * 500 + 500,
            "text": f"line {k}",
            "speaker": None,
            "text_source": "captions",
            "language": "en",
        }
        for k in range(18)
    ]
    store.commit("segments", "v00", table_from_rows("segments", spans), "made")
    models = {
        TEXT: NamedModel(name="fake-text"),
        FACE: NamedModel(name="fake-face"),
        AUDIO: NamedModel(name="fake-audio", options={"votes": votes, "abstain": ["line 2"]}),
    }
    how = Settings(backends=models)
    for modality in VIEWS:
        predict(modality, "v00", how, store, Steps(modality))
    ids = {m: load_backend(model.name, model.options).id for m, model in models.items()}
    model = FusionModel("late-mean", None, None)
    rows = store.read(resolve(store, "r1", 0, ["v00"], ids, model, how)).to_pylist()
    assert len(rows) == 18
    assert rows[2]["audio_vote"] is None
    assert any(row["audio_vote"] for row in rows) == votes
    for row in rows:
        cast = [row[f"{m}_vote"] for m in VIEWS if row[f"{m}_vote"] is not None]
        if len(cast) >= 2:
            assert row["agreement"] == ("agree" if len(set(cast)) == 1 else "disagree")
        assert sum(row[f"{m}_attention"] for m in VIEWS) == pytest.approx(1)
    assert len({load_backend("fake-audio", {"votes": v}).id for v in (True, False)}) == 2
