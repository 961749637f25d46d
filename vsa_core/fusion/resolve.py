"""Give every segment its label: what the run's strategy says, and how that sits with the votes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsa_core import config
from vsa_core.config import Settings
from vsa_core.errors import StoreError
from vsa_core.fusion import FusionModel
from vsa_core.fusion.card import check_widths, read_model
from vsa_core.fusion.data import EMOTION, SENTIMENT, in_order, input_fingerprints, read_views
from vsa_core.fusion.decide import decide
from vsa_core.fusion.strategies import Model, Opinion
from vsa_core.fusion.views import Views
from vsa_core.labels import (
    EMOTIONS,
    MODALITIES,
    SENTIMENT_GIVEN_EMOTION,
    SENTIMENTS,
    Agreement,
    Modality,
)
from vsa_core.schemas import attention_column, table_from_rows, vote_column
from vsa_core.store import Store, TableRef

# Raised whenever the same inputs and settings would give another table.
_VERSION = 4
# Keeps an emotion no view thought of possible where the sentiment excludes all the others.
_LEAST_EMOTION = 1e-6
_TIE_DECIMALS = 5
_FROM_SEGMENTS = ("video_id", "segment_id", "start_ms", "end_ms", "text", "text_source", "language")
_FROM_VIDEOS = ("channel_id", "title", "published_at")


def resolve(
    store: Store,
    run_id: str,
    shard: int,
    video_ids: Iterable[str],
    backends: Mapping[Modality, str],
    model: FusionModel,
    settings: Settings,
) -> TableRef:
    """Write the labels of some videos, one row for each row of their segments.

    The model decides on every segment somebody votes on, agreeing ones too; `decide` says when
    its label is a consensus, a single vote or its own, and when there is none. Emotions suit the
    sentiment: `P(e) ∝ p(e) · Σ_s P(s) · P(s|e)`, and the label is the likeliest that the
    sentiment allows.

    Args:
        store: holds videos, segments, predictions and embeddings.
        run_id: the part of the labels table.
        shard: number of this set of videos within the run; the key, four digits.
        video_ids: the set; one that repeats counts once, one without segments adds no row. They
            need not be those the model was trained on.
        backends: modality → backend id.
        model: what `train_fusion` returned.
        settings: `agree` and `fusion.min_label_confidence` count, and the fingerprint of all.

    Raises:
        StoreError: a table or the model does not read or does not fit, the disk is full.
    """
    videos = list(dict.fromkeys(video_ids))
    key = f"{shard:04d}"
    made_from = config.fingerprint(
        "labels",
        _VERSION,
        run_id,
        list(in_order(backends).items()),
        model.model_id,
        settings.fingerprint(),
        [ref.fingerprint if (ref := store.find("videos", video)) else None for video in videos],
        list(zip(videos, input_fingerprints(store, videos, backends), strict=True)),
    )
    standing = store.fresh("labels", key, made_from, part=run_id)
    if standing is not None:
        return standing
    if model.card is None:  # a strategy that learns nothing
        views = read_views(store, videos, backends)
        opinion = Model(model.model_id).opinion(views)
    else:
        learned, card = read_model(store, model.model_id, backends)
        views = read_views(store, videos, backends, targets=list(card["targets"]))
        check_widths(card, views, str(store.root / "models" / model.model_id))
        opinion = learned.opinion(views)
    lineage = {
        "run_id": run_id,
        "backends": list(in_order(backends).values()),
        "model_id": model.model_id,
        "config_id": settings.fingerprint(),
    }
    facts = _facts(store, videos, backends.get(Modality.FACE))
    rows = [
        {**facts[segment], **decision, **lineage}
        for segment, decision in zip(
            views.segment_ids.to_pylist(), _decisions(views, opinion, settings), strict=True
        )
    ]
    return store.commit("labels", key, table_from_rows("labels", rows), made_from, part=run_id)


def _decisions(views: Views, opinion: Opinion, settings: Settings) -> list[dict[str, Any]]:
    """Of each segment the columns of `labels` that are decided here."""
    sentiment = opinion.probs[SENTIMENT]
    said = decide(
        views.probs[SENTIMENT],
        sentiment,
        settings.agree.min_confidence,
        settings.fusion.min_label_confidence,
    )
    decided = said.label >= 0
    felt, emotion = _emotions(views, opinion, said.label, said.agreement)
    columns: dict[str, Sequence[Any]] = {
        "sentiment": _named(SENTIMENTS, said.label),
        "emotion": _named(EMOTIONS, felt),
        "sentiment_probs": _or_none(said.probs, decided),
        "emotion_probs": _or_none(emotion, felt >= 0),
        "confidence": _or_none(said.confidence, decided),
        "origin": said.origin.tolist(),
        "agreement": said.agreement.tolist(),
    }
    for modality in MODALITIES:
        vote: Sequence[Any] = [None] * len(views)
        attention = vote
        if modality in views.names:
            view = views.names.index(modality)
            vote = _named(SENTIMENTS, said.votes[:, view])
            weight = opinion.attention[:, view]
            attention = _or_none(weight, ~np.isnan(weight))
        columns[vote_column(modality)] = vote
        columns[attention_column(modality)] = attention
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _emotions(
    views: Views, opinion: Opinion, label: NDArray[np.intp], agreement: NDArray[np.str_]
) -> tuple[NDArray[np.intp], NDArray[np.floating]]:
    """Index (n,) of the emotion, −1 for none, and its probabilities (n, 7).

    Where somebody votes on the sentiment and something is known of the emotion there is one; it
    is one that the sentiment allows, if that is decided.
    """
    if EMOTION not in opinion.probs:
        return np.full(len(views), -1), np.full((len(views), len(EMOTIONS)), np.nan)
    emotion = _suiting(opinion.probs[EMOTION], opinion.probs[SENTIMENT])
    known = (agreement != Agreement.ABSENT.value) & ~np.isnan(emotion).any(axis=1)
    allowed = np.where((label >= 0)[:, None], SENTIMENT_GIVEN_EMOTION.T[label] > 0, True)
    # Of emotions that tie the first wins: rounding noise, which differs from one processor and
    # size of batch to the next, must not decide.
    best = np.where(known[:, None] & allowed, np.round(emotion, _TIE_DECIMALS), -1).argmax(axis=1)
    return np.where(known, best, -1), emotion


def _suiting(
    emotion: NDArray[np.floating], sentiment: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Emotion probabilities (n, 7) given the sentiment's (n, 3): `p(e) · Σ_s P(s) · P(s|e)`."""
    joint = (emotion + _LEAST_EMOTION) * (sentiment @ SENTIMENT_GIVEN_EMOTION.T)
    total: NDArray[np.floating] = joint / joint.sum(axis=1, keepdims=True)
    return total


def _named(names: Sequence[str], index: NDArray[np.intp]) -> list[str | None]:
    return [str(names[i]) if i >= 0 else None for i in index.tolist()]


def _or_none(values: NDArray[np.floating], known: NDArray[np.bool_]) -> list[Any]:
    return [v if k else None for v, k in zip(values.tolist(), known.tolist(), strict=True)]


def _facts(store: Store, videos: Sequence[str], face: str | None) -> dict[str, dict[str, Any]]:
    """By segment the columns of `labels` that come from its segment, its video and who is seen."""
    facts: dict[str, dict[str, Any]] = {}
    for video in videos:
        ref, about = store.find("segments", video), store.find("videos", video)
        if ref is None or ref.rows == 0:
            continue
        if about is None or about.rows == 0:
            raise StoreError(
                f"video {video} has segments but no row in {store.root / 'videos'}: run the same "
                "command again"
            )
        (shared,) = store.read(about, columns=_FROM_VIDEOS).to_pylist()
        for row in store.read(ref, columns=_FROM_SEGMENTS).to_pylist():
            facts[row["segment_id"]] = {**row, **shared, "people": None}
        if face and (looked := store.find("predictions", video, part=store.part_of(face))):
            for row in store.read(looked, columns=["segment_id", "people"]).to_pylist():
                if row["segment_id"] in facts:
                    facts[row["segment_id"]]["people"] = row["people"]
    return facts
