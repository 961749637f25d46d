"""Give every segment its label: what the run's strategy says, and how that sits with the votes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vsa_core import config
from vsa_core.config import Settings
from vsa_core.errors import StoreError
from vsa_core.fusion import FusionModel
from vsa_core.fusion.card import check_widths, read_model
from vsa_core.fusion.data import (
    EMOTION,
    SENTIMENT,
    in_order,
    input_fingerprints,
    read_views,
    standing_refs,
)
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
    total_variation,
)
from vsa_core.schemas import (
    EMOTION_PROBS,
    SENTIMENT_PROBS,
    TABLES,
    attention_column,
    vote_column,
)
from vsa_core.store import Store, TableRef

# Raised whenever the same inputs and settings would give another table.
_VERSION = 5
# Keeps an emotion no view thought of possible where the sentiment excludes all the others.
_LEAST_EMOTION = 1e-6
_TIE_DECIMALS = 5
_FROM_SEGMENTS = ("video_id", "segment_id", "start_ms", "end_ms", "text", "text_source", "language")
_FROM_VIDEOS = ("video_id", "channel_id", "title", "published_at")


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
    about = standing_refs(store, "videos", videos)
    made_from = config.fingerprint(
        "labels",
        _VERSION,
        run_id,
        list(in_order(backends).items()),
        model.model_id,
        settings.fingerprint(),
        [about[video].fingerprint if video in about else None for video in videos],
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
        check_widths(card, views, f"{store.location}/models/{model.model_id}")
        opinion = learned.opinion(views)
    columns = {
        **_facts(store, videos, views.segment_ids, backends.get(Modality.FACE)),
        **_decisions(views, opinion, settings),
        "run_id": _repeated(run_id, len(views)),
        "backends": _repeated(list(in_order(backends).values()), len(views)),
        "model_id": _repeated(model.model_id, len(views)),
        "config_id": _repeated(settings.fingerprint(), len(views)),
    }
    schema = TABLES["labels"].schema
    rows = pa.Table.from_arrays(
        [columns[field.name].cast(field.type) for field in schema], schema=schema
    )
    return store.commit("labels", key, rows, made_from, part=run_id)


def _decisions(views: Views, opinion: Opinion, settings: Settings) -> dict[str, pa.Array]:
    """The columns of `labels` that are decided here."""
    sentiment = opinion.probs[SENTIMENT]
    said = decide(
        views.probs[SENTIMENT],
        sentiment,
        settings.agree.min_confidence,
        settings.fusion.min_label_confidence,
    )
    decided = said.label >= 0
    felt, emotion = _emotions(views, opinion, said.label, said.agreement)
    columns = {
        "sentiment": _named(SENTIMENTS, said.label),
        "emotion": _named(EMOTIONS, felt),
        "sentiment_probs": _lists(said.probs, SENTIMENT_PROBS, decided),
        "emotion_probs": _lists(emotion, EMOTION_PROBS, felt >= 0),
        "confidence": pa.array(said.confidence, mask=~decided),
        "origin": pa.array(said.origin.tolist(), pa.string()),
        "agreement": pa.array(said.agreement.tolist(), pa.string()),
    }
    for modality in MODALITIES:
        vote, weight = pa.nulls(len(views)), pa.nulls(len(views))
        if modality in views.names:
            view = views.names.index(modality)
            vote = _named(SENTIMENTS, said.votes[:, view])
            attention = opinion.attention[:, view]
            weight = pa.array(attention, mask=np.isnan(attention))
        columns[vote_column(modality)] = vote
        columns[attention_column(modality)] = weight
    apart = np.full(len(views), np.nan, np.float32)
    if {Modality.FACE, Modality.TEXT} <= set(views.names):
        seen, read = (views.names.index(m) for m in (Modality.FACE, Modality.TEXT))
        probs = views.probs[SENTIMENT]
        apart = total_variation(probs[:, seen], probs[:, read])
    columns["face_text_distance"] = pa.array(apart, mask=np.isnan(apart))
    return columns


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


def _named(names: Sequence[str], index: NDArray[np.intp]) -> pa.StringArray:
    return pa.array([str(name) for name in names]).take(pa.array(index, mask=index < 0))


def _lists(
    values: NDArray[np.floating], kind: pa.FixedSizeListType, known: NDArray[np.bool_]
) -> pa.FixedSizeListArray:
    """Rows (n, K) as lists, null where not known."""
    flat = np.where(known[:, None], values, 0).astype(np.float32).ravel()
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=kind, mask=pa.array(~known))


def _repeated(value: Any, n: int) -> pa.Array:
    return pa.array([value]).take(pa.array(np.zeros(n, np.int64)))


def _facts(
    store: Store, videos: Sequence[str], ids: pa.StringArray, face: str | None
) -> dict[str, pa.Array]:
    """The columns of `labels` that come from each segment, its video and who is seen."""
    segments = _gathered(store, "segments", _FROM_SEGMENTS, videos)
    segments = segments.take(pc.index_in(ids, value_set=segments["segment_id"]))
    about = _gathered(store, "videos", _FROM_VIDEOS, videos)
    of_video = pc.index_in(segments["video_id"], value_set=about["video_id"])
    if of_video.null_count:
        stray = segments["video_id"].filter(of_video.is_null())[0]
        raise StoreError(
            f"video {stray} has segments but no row in {store.location}/videos: run the same "
            "command again"
        )
    about = about.take(of_video)
    people = pa.nulls(len(ids))
    if face is not None:
        columns, part = ("segment_id", "people"), store.part_of(face)
        looked = _gathered(store, "predictions", columns, videos, part=part)
        people = looked["people"].take(pc.index_in(ids, value_set=looked["segment_id"]))
    found = {name: about[name] for name in _FROM_VIDEOS}
    found |= {name: segments[name] for name in _FROM_SEGMENTS}
    return {name: _whole(column) for name, column in {**found, "people": people}.items()}


def _gathered(
    store: Store, table: str, columns: Sequence[str], videos: Sequence[str], part: str = ""
) -> pa.Table:
    none = TABLES[table].schema.empty_table().select(list(columns))
    return pa.concat_tables(
        [none, *store.scan(table, part=part, keys=videos, columns=columns)]
    ).combine_chunks()


def _whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
