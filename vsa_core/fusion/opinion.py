"""What a stored fusion network says of segments: loaded with checks, calibrated, leak-free."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vsa_core.errors import StoreError
from vsa_core.fusion import MODEL_FILE, one_thread
from vsa_core.fusion.card import read_card, softmax
from vsa_core.fusion.data import Views
from vsa_core.labels import EMOTIONS, SENTIMENTS, Modality
from vsa_core.store import Store

if TYPE_CHECKING:
    from vsa_core.fusion.network import FusionNetwork


@dataclass(frozen=True, slots=True)
class Opinion:
    """What fusion says of n segments, agreeing ones too.

    Attributes:
        sentiment_probs: (n, 3), NaN where it can say nothing.
        emotion_probs: (n, 7), NaN where it knows nothing of emotions.
        attention: (n, V), summing to 1 over the views present; NaN where a view is absent, and
            for all views where none is used.
    """

    sentiment_probs: NDArray[np.floating]
    emotion_probs: NDArray[np.floating]
    attention: NDArray[np.floating]


def network_opinion(
    store: Store,
    model_id: str,
    backends: Mapping[Modality, str],
    views: Views,
    agreeing: NDArray[np.bool_],
) -> Opinion:
    """The calibrated probabilities and attention of a stored network.

    A segment it was trained on is judged by the member that never saw its video, every other by
    the mean of all members. Nothing is said where no view the network knows is present.

    Args:
        store: holds the model.
        model_id: its folder in `models/`.
        backends: modality → backend id, of the views.
        views: n segments.
        agreeing: (n,) those it was trained on, if their video was in the training set.

    Raises:
        StoreError: the model is not there, was altered, or was trained on other backends.
    """
    card = read_card(store, model_id)
    path = store.root / "models" / model_id / MODEL_FILE
    for view in card["views"]:
        if backends.get(Modality(view["modality"])) != view["backend"]:
            raise StoreError(
                f"{path} was trained on {view['backend']}, not on "
                f"{backends.get(Modality(view['modality']))}: run the whole job again"
            )
    network = _read_network(path, card)
    columns = [views.modalities.index(Modality(view["modality"])) for view in card["views"]]
    present = views.present[:, columns]
    embeddings = [
        _as_wide(views.embeddings[column], view["width"], path)
        for column, view in zip(columns, card["views"], strict=True)
    ]
    with one_thread():
        sentiment, emotion, attention = network.infer(embeddings, present)
    metrics = card["metrics"]
    member = np.array([card["folds"].get(video, -1) for video in views.video_ids.tolist()], int)
    member[~agreeing] = -1
    weights = np.where(member >= 0, np.arange(len(sentiment))[:, None] == member, 1.0)  # (F, n)
    weights = (weights / weights.sum(axis=0))[..., None]
    unknown = present.sum(axis=1) == 0
    shares = np.where(views.present, 0.0, np.nan)
    shares[:, columns] = np.where(present, (weights * attention).sum(axis=0), np.nan)
    shares[unknown] = np.nan
    return Opinion(
        _calibrated(sentiment, weights, metrics["sentiment"], unknown),
        _calibrated(emotion, weights, metrics["emotion"], unknown),
        shares,
    )


def _read_network(path: Path, card: dict[str, Any]) -> FusionNetwork:
    from safetensors import SafetensorError
    from safetensors.torch import load

    from vsa_core.fusion.network import FusionNetwork

    again = f"remove {path.parent} and run the same command again"
    try:
        weights = path.read_bytes()
        if hashlib.sha256(weights).hexdigest() != card["weights_sha256"]:
            raise StoreError(f"{path} is not the file its card was written for: {again}")
        state = load(weights)
        network = FusionNetwork(
            [view["width"] for view in card["views"]],
            card["settings"]["fusion"]["width"],
            len(card["epochs"]),
            (len(SENTIMENTS), len(EMOTIONS)),
        )
        network.load_state_dict(state)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise StoreError(f"{path} does not read ({error}): {again}") from error
    return network


def _as_wide(embedding: NDArray[np.float32], width: int, path: Path) -> NDArray[np.float32]:
    """The embeddings (n, d) of a view; zeros where it is absent from all n and d is not known."""
    if embedding.shape[1] == width:
        return embedding
    if embedding.shape[1]:
        raise StoreError(
            f"{path} takes embeddings {width} wide, these are {embedding.shape[1]}: remove "
            f"{path.parent} and run the same command again"
        )
    return np.zeros((len(embedding), width), np.float32)


def _calibrated(
    logits: NDArray[np.float32],
    weights: NDArray[np.floating],
    metrics: dict[str, Any] | None,
    unknown: NDArray[np.bool_],
) -> NDArray[np.floating]:
    """Weighted mean of the members' probabilities (n, K); NaN where nothing is known."""
    if metrics is None:
        return np.full(logits.shape[1:], np.nan)
    probs = (weights * softmax(logits, metrics["temperature"])).sum(axis=0)
    return np.where(unknown[:, None], np.nan, probs)
