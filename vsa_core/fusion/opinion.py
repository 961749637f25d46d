"""What fusion says of segments: a network, loaded with checks and leak-free, times the views."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vsa_core.agree import has_vote
from vsa_core.errors import StoreError
from vsa_core.fusion import MODEL_FILE, one_thread
from vsa_core.fusion.card import read_card, softmax
from vsa_core.fusion.data import Views
from vsa_core.labels import EMOTIONS, SENTIMENTS, Modality
from vsa_core.store import Store

if TYPE_CHECKING:
    from vsa_core.fusion.network import FusionNetwork

# What a view says of a segment counts half of what the network says: views are surer than they
# are right, and the network has learned from them. Of .3, .5, .7 and 1 on made data, .5 and .7
# label sentiments equally well, and .5 emotions better.
VIEW_WEIGHT = 0.5
# The least a view's probability counts as, so that one view's zero is no veto.
_LEAST_PROB = 1e-3
# Combining adds evidence, which must not add confidence: these only flatten.
_TEMPERATURES = np.geomspace(1.0, 10.0, 93)


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
    """The calibrated probabilities and attention of a stored network alone, without the views'.

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
    return judge(_read_network(path, card), card, views, agreeing, path)


def judge(
    network: FusionNetwork,
    card: Mapping[str, Any],
    views: Views,
    agreeing: NDArray[np.bool_],
    path: Path,
) -> Opinion:
    """What `network_opinion` says, of a network already loaded from `path` with its card.

    Raises:
        StoreError: the embeddings are of another width than it was trained on.
    """
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


def with_views(network: Opinion, views: Views, card: Mapping[str, Any]) -> Opinion:
    """A network's opinion together with what the views that vote say themselves.

    `p(k) ∝ (p_network(k) · Π_views p_view(k)^w)^(1/t)`, with w and t from the card; attention is
    the network's. Where no view votes it is the network alone, and where that says nothing
    neither does this.

    Args:
        network: of n segments.
        views: the same segments.
        card: of the network.
    """
    weight, temperature = card["combined"]["view_weight"], card["combined"]["temperature"]
    return Opinion(
        _combined(network.sentiment_probs, views.sentiment_probs, weight, temperature["sentiment"]),
        _combined(network.emotion_probs, views.emotion_probs, weight, temperature["emotion"]),
        network.attention,
    )


def fit_combination(network: Opinion, views: Views, undecided: NDArray[np.bool_]) -> dict[str, Any]:
    """How a network's opinion and the views' are combined: the card's `combined`.

    The temperature makes the combination, on average over the undecided segments on which a view
    votes, no surer than the calibrated network alone. It cannot be fitted to what the views agree
    on: the combination holds their own votes, so it is all but always right there.

    Args:
        network: of n segments.
        views: the same segments.
        undecided: (n,) those whose label it is to decide.
    """

    def temperature(said: NDArray[np.floating], of_views: NDArray[np.floating]) -> float:
        rows = undecided & has_vote(of_views).any(axis=1) & ~np.isnan(said).any(axis=1)
        if not rows.any():
            return 1.0
        most = said[rows].max(axis=1).mean()
        for t in _TEMPERATURES:
            both = _combined(said[rows], of_views[rows], VIEW_WEIGHT, float(t))
            if both.max(axis=1).mean() <= most:
                break
        return float(t)

    return {
        "view_weight": VIEW_WEIGHT,
        "temperature": {
            "sentiment": temperature(network.sentiment_probs, views.sentiment_probs),
            "emotion": temperature(network.emotion_probs, views.emotion_probs),
        },
    }


def _combined(
    network: NDArray[np.floating],
    of_views: NDArray[np.floating],
    weight: float,
    temperature: float,
) -> NDArray[np.floating]:
    """Log-linear pool (n, K) of a network's (n, K) and the views' (n, V, K) probabilities."""
    votes = has_vote(of_views)
    said = np.where(votes[..., None], of_views.astype(np.float64), 1.0)
    evidence = weight * np.log(np.maximum(said, _LEAST_PROB)).sum(axis=1)
    pooled = softmax(np.log(np.maximum(network, 1e-12)) + evidence, temperature)
    return np.where(votes.any(axis=1, keepdims=True), pooled, network)


def build_network(weights: bytes, card: Mapping[str, Any]) -> FusionNetwork:
    """The network of a safetensors file and its card.

    Raises:
        SafetensorError, RuntimeError: the file does not read, or is not what the card says.
    """
    from safetensors.torch import load

    from vsa_core.fusion.network import FusionNetwork

    state = load(weights)
    network = FusionNetwork(
        [view["width"] for view in card["views"]],
        card["settings"]["fusion"]["width"],
        len(card["epochs"]),
        (len(SENTIMENTS), len(EMOTIONS)),
    )
    network.load_state_dict(state)
    return network


def _read_network(path: Path, card: Mapping[str, Any]) -> FusionNetwork:
    from safetensors import SafetensorError

    again = f"remove {path.parent} and run the same command again"
    try:
        weights = path.read_bytes()
        if hashlib.sha256(weights).hexdigest() != card["weights_sha256"]:
            raise StoreError(f"{path} is not the file its card was written for: {again}")
        return build_network(weights, card)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise StoreError(f"{path} does not read ({error}): {again}") from error


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
