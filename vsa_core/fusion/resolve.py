"""Give every segment its label: consensus and single votes as they are, the rest by fusion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsa_core import config
from vsa_core.agree import Votes, agreement, has_unique_top, has_vote
from vsa_core.config import Settings
from vsa_core.errors import StoreError
from vsa_core.fusion import FusionModel
from vsa_core.fusion.data import Views, in_order, input_fingerprints, read_views
from vsa_core.fusion.opinion import Opinion, network_opinion, with_views
from vsa_core.labels import (
    EMOTIONS,
    MODALITIES,
    SENTIMENT_GIVEN_EMOTION,
    SENTIMENTS,
    Agreement,
    Modality,
    Origin,
)
from vsa_core.schemas import attention_column, table_from_rows, vote_column
from vsa_core.store import Store, TableRef

# Raised whenever the same inputs and settings would give another table.
_VERSION = 2
# Keeps an emotion no view thought of possible where the sentiment excludes all the others.
_LEAST_EMOTION = 1e-6
_FROM_SEGMENTS = ("video_id", "segment_id", "start_ms", "end_ms", "text", "text_source")
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

    Who decides: where votes agree, the agreeing views (origin `consensus`, the mean of their
    probabilities); where a single view votes, that view (`single`); where they disagree or are
    unsure, the network and what the views themselves say (`fusion`, see `with_views`), or the
    mean of the views' probabilities where there is no network; where nothing votes, or these are
    torn between sentiments, nobody (`none`, the sentiment null). Emotions suit the sentiment:
    `P(e) ∝ p(e) · Σ_s P(s) · P(s|e)`, and the label is the likeliest that the sentiment allows.

    Args:
        store: holds videos, segments, predictions and embeddings.
        run_id: the part of the labels table.
        shard: number of this set of videos within the run; the key, four digits.
        video_ids: the set; one that repeats counts once, one without segments adds no row.
        backends: modality → backend id.
        model: what `train_fusion` returned.
        settings: `agree` counts, and the fingerprint of all.

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
    views = read_views(store, videos, backends)
    votes = agreement(views.sentiment_probs, settings.agree.min_confidence)
    opinion = late_mean(views)
    if model.card is not None:
        agreeing = votes.states == Agreement.AGREE.value
        network = network_opinion(store, model.model_id, backends, views, agreeing)
        opinion = _where_known(with_views(network, views, model.card), opinion)
    lineage = {
        "run_id": run_id,
        "backends": list(in_order(backends).values()),
        "model_id": model.model_id,
        "config_id": settings.fingerprint(),
    }
    facts = _facts(store, videos)
    rows = [
        {**facts[segment], **decision, **lineage}
        for segment, decision in zip(
            views.segment_ids.tolist(), _decisions(views, votes, opinion), strict=True
        )
    ]
    return store.commit("labels", key, table_from_rows("labels", rows), made_from, part=run_id)


def late_fusion(views: Views) -> NDArray[np.floating]:
    """Mean (n, 3) of the voting views' probabilities; NaN where no view votes."""
    return _mean_over_views(views.sentiment_probs, has_vote(views.sentiment_probs))


def late_mean(views: Views) -> Opinion:
    """Fusion without a network: means of probabilities, equal shares for the views that vote."""
    voting = has_vote(views.sentiment_probs)
    count = voting.sum(axis=1, keepdims=True)
    return Opinion(
        late_fusion(views),
        _mean_over_views(views.emotion_probs, has_vote(views.emotion_probs)),
        np.where(views.present & (count > 0), voting / np.maximum(count, 1), np.nan),
    )


def _mean_over_views(
    probs: NDArray[np.floating], counted: NDArray[np.bool_]
) -> NDArray[np.floating]:
    """Mean (n, K) of (n, V, K) over the views counted (n, V), summing to 1; NaN without any."""
    total = np.where(counted[..., None], probs, 0).sum(axis=1, dtype=np.float64)
    mass = total.sum(axis=1, keepdims=True)
    return np.where(mass > 0, total / np.where(mass > 0, mass, 1), np.nan)


def _where_known(first: Opinion, second: Opinion) -> Opinion:
    """The first opinion, and the second where it says nothing."""

    def known(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
        return np.where(np.isnan(a).all(axis=1, keepdims=True), b, a)

    return Opinion(
        known(first.sentiment_probs, second.sentiment_probs),
        known(first.emotion_probs, second.emotion_probs),
        known(first.attention, second.attention),
    )


def _decisions(views: Views, votes: Votes, opinion: Opinion) -> list[dict[str, Any]]:
    """Of each segment the columns of `labels` that are decided here."""
    agreeing = (votes.ballots & votes.agreed[:, None]).sum(axis=2) > 0  # (n, V)
    is_agree = votes.states == Agreement.AGREE.value
    is_single = votes.states == Agreement.SINGLE.value
    by_votes = late_mean(views)
    sentiment = np.where(
        is_agree[:, None],
        _mean_over_views(views.sentiment_probs, agreeing),
        np.where(is_single[:, None], by_votes.sentiment_probs, opinion.sentiment_probs),
    )
    emotion = np.where(
        (is_agree | is_single)[:, None], by_votes.emotion_probs, opinion.emotion_probs
    )
    voted = votes.states != Agreement.ABSENT.value
    decided = voted & has_unique_top(sentiment)
    emotion = _suiting(emotion, sentiment)
    has_emotion = voted & ~np.isnan(emotion).any(axis=1)
    best = _best(sentiment, decided)
    allowed = np.where(decided[:, None], SENTIMENT_GIVEN_EMOTION.T[best] > 0, True)
    felt = _best(np.where(allowed, emotion, -1), has_emotion)
    origins = np.select(
        [~decided, is_agree, is_single],
        [Origin.NONE.value, Origin.CONSENSUS.value, Origin.SINGLE.value],
        Origin.FUSION.value,
    )
    columns: dict[str, Sequence[Any]] = {
        "sentiment": _named(SENTIMENTS, best, decided),
        "emotion": _named(EMOTIONS, felt, has_emotion),
        "sentiment_probs": _or_none(sentiment, decided),
        "emotion_probs": _or_none(emotion, has_emotion),
        "confidence": _or_none(sentiment.max(axis=1), decided),
        "origin": origins.tolist(),
        "agreement": votes.states.tolist(),
    }
    for modality in MODALITIES:
        voted_for: Sequence[Any] = [None] * len(views)
        attention = voted_for
        if modality in views.modalities:
            view = views.modalities.index(modality)
            ballots = votes.ballots[:, view]
            voted_for = _named(SENTIMENTS, ballots.argmax(axis=1), ballots.sum(axis=1) > 0)
            weight = opinion.attention[:, view]
            attention = _or_none(weight, ~np.isnan(weight))
        columns[vote_column(modality)] = voted_for
        columns[attention_column(modality)] = attention
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _suiting(
    emotion: NDArray[np.floating], sentiment: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Emotion probabilities (n, 7) given the sentiment's (n, 3): `p(e) · Σ_s P(s) · P(s|e)`."""
    joint = (emotion + _LEAST_EMOTION) * (sentiment @ SENTIMENT_GIVEN_EMOTION.T)
    total: NDArray[np.floating] = joint / joint.sum(axis=1, keepdims=True)
    return total


def _best(probs: NDArray[np.floating], known: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Index (n,) of the highest of (n, K); 0 where nothing is known."""
    best: NDArray[np.intp] = np.where(known[:, None], probs, 0).argmax(axis=1)
    return best


def _named(
    names: Sequence[str], index: NDArray[np.intp], known: NDArray[np.bool_]
) -> list[str | None]:
    return [
        str(names[i]) if k else None for i, k in zip(index.tolist(), known.tolist(), strict=True)
    ]


def _or_none(values: NDArray[np.floating], known: NDArray[np.bool_]) -> list[Any]:
    return [v if k else None for v, k in zip(values.tolist(), known.tolist(), strict=True)]


def _facts(store: Store, videos: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By segment the columns of `labels` that come from its segment and its video."""
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
            facts[row["segment_id"]] = {**row, **shared}
    return facts
