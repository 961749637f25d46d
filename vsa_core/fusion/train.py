"""Train the fusion network on the segments whose models agree, cross-fitted by whole videos."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsa_core import config
from vsa_core.agree import agreement, cast_ballots
from vsa_core.config import Settings
from vsa_core.fusion import CARD_FILE, LATE_MEAN, MODEL_FILE, FusionModel, one_thread
from vsa_core.fusion.card import make_card, read_card
from vsa_core.fusion.data import Consensus, Views, in_order, input_fingerprints, read_views
from vsa_core.fusion.opinion import build_network, fit_combination, judge
from vsa_core.labels import SENTIMENT_GIVEN_EMOTION, SENTIMENTS, Agreement, Modality
from vsa_core.store import Store

# Raised whenever the same inputs and settings would train another network.
_VERSION = 2


def train_fusion(
    store: Store,
    video_ids: Iterable[str],
    backends: Mapping[Modality, str],
    settings: Settings,
    *,
    progress: Callable[[float], None] | None = None,
) -> FusionModel:
    """The fusion model of a run: the one that stands in the store, else trained and put there.

    One network per fold of whole videos, each trained without that fold's videos and stopped
    early on other whole videos; together they are the model. Too little consensus, or a network
    that does no better than chance on videos it never saw, gives `LATE_MEAN` and the reason.

    Args:
        store: holds segments, predictions and embeddings of the videos.
        video_ids: the run's videos, in any order.
        backends: modality → backend id.
        settings: `fusion` and `agree` count.
        progress: told the share of the work done, 0 to 1.

    Raises:
        StoreError: a table or the stored model's card does not read, the disk is full.

    Source: consensus as pseudo-labels and attention fusion as in TF-MVSA.
    """
    report = progress or _ignore
    videos = sorted(set(video_ids))
    model_id = _model_id(store, videos, backends, settings)
    if store.folder("models", model_id) is not None:
        card = read_card(store, model_id)
    else:
        views = read_views(store, videos, backends)
        consensus = find_consensus(views, settings)
        reason = _too_little(views, consensus, settings)
        if reason is not None:
            report(1.0)
            return FusionModel(LATE_MEAN, None, reason)
        card = _train(store, model_id, backends, views, consensus, settings, report)
    report(1.0)
    if card["refused"] is not None:
        return FusionModel(LATE_MEAN, None, card["refused"])
    return FusionModel(model_id, card, None)


def find_consensus(views: Views, settings: Settings) -> Consensus:
    """The agreeing segments, what they agree on, and folds by whole videos."""
    votes = agreement(views.sentiment_probs, settings.agree.min_confidence)
    rows = np.flatnonzero(votes.agreed.any(axis=1))
    sentiment = votes.agreed[rows].argmax(axis=1)
    # Confidence was asked for in the sentiment; over seven classes the floor would leave little.
    tally = cast_ballots(views.emotion_probs[rows], 0.0).sum(axis=1)  # (c, 7)
    emotion = tally.argmax(axis=1)
    votes_cast = tally.sum(axis=1)
    unanimous = (votes_cast >= 2) & (tally.max(axis=1) == votes_cast)
    suits = SENTIMENT_GIVEN_EMOTION[emotion, sentiment] > 0
    fold_of = _fold_videos(views.video_ids[rows], settings.fusion.folds, settings.fusion.seed)
    folds = np.array([fold_of[v] for v in views.video_ids[rows].tolist()], np.intp)
    return Consensus(rows, sentiment, emotion, unanimous & suits, folds, fold_of)


def _ignore(_share: float) -> None:
    """Progress nobody asked for."""


def _model_id(
    store: Store, videos: list[str], backends: Mapping[Modality, str], settings: Settings
) -> str:
    return config.fingerprint(
        "fusion",
        _VERSION,
        list(in_order(backends).items()),
        list(zip(videos, input_fingerprints(store, videos, backends), strict=True)),
        settings.fusion.model_dump(mode="json"),
        settings.agree.model_dump(mode="json"),
    )


def _fold_videos(video_ids: NDArray[np.str_], folds: int, seed: int) -> dict[str, int]:
    """Folds of about as many segments each, a video wholly in one; fewer with fewer videos."""
    videos, counts = np.unique(video_ids, return_counts=True)
    shuffled = np.random.default_rng(seed).permutation(len(videos))
    largest_first = shuffled[np.argsort(-counts[shuffled], kind="stable")]
    load = np.zeros(max(min(folds, len(videos)), 1), np.int64)
    fold_of = {}
    for i in largest_first:
        lightest = int(load.argmin())
        fold_of[str(videos[i])] = lightest
        load[lightest] += counts[i]
    return dict(sorted(fold_of.items()))


def _too_little(views: Views, consensus: Consensus, settings: Settings) -> str | None:
    """Why there is not enough agreement to train on; None when there is."""
    wanted = settings.fusion
    if len(consensus) < wanted.min_consensus:
        return (
            f"{len(consensus)} of {len(views)} segments agree, a network needs "
            f"{wanted.min_consensus} (fusion.min_consensus)"
        )
    if len(consensus.fold_of) < 2:
        return f"all {len(consensus)} agreeing segments are of one video, none can be held out"
    counts = np.bincount(consensus.sentiment, minlength=len(SENTIMENTS))
    if (counts >= max(wanted.min_per_class, 1)).sum() < 2:
        found = ", ".join(f"{c} {s}" for s, c in zip(SENTIMENTS, counts, strict=True))
        return (
            f"fewer than two sentiments are agreed on {wanted.min_per_class} times "
            f"(fusion.min_per_class): {found}"
        )
    for fold in range(int(consensus.folds.max()) + 1):
        if len(np.unique(consensus.sentiment[consensus.folds != fold])) < 2:
            return "with some videos held out, the agreeing segments hold a single sentiment"
    return None


def _train(
    store: Store,
    model_id: str,
    backends: Mapping[Modality, str],
    views: Views,
    consensus: Consensus,
    settings: Settings,
    report: Callable[[float], None],
) -> dict[str, Any]:
    """Fit a network and put it in the store with its card, which is returned."""
    from vsa_core.fusion.fit import fit  # torch: not needed to reuse a model

    with one_thread():
        fitted = fit(views, consensus, settings.fusion, report)
    card = make_card(
        model_id, backends, views, consensus, settings, fitted.sentiment, fitted.emotion
    )
    card["epochs"] = fitted.epochs
    card["views"] = [
        {"modality": m.value, "backend": backends[m], "width": width}
        for m, width in zip(fitted.modalities, fitted.dims, strict=True)
    ]
    card["weights_sha256"] = hashlib.sha256(fitted.weights).hexdigest()
    states = agreement(views.sentiment_probs, settings.agree.min_confidence).states
    agreeing = states == Agreement.AGREE.value
    undecided = np.isin(states, [Agreement.DISAGREE.value, Agreement.UNCERTAIN.value])
    path = store.root / "models" / model_id / MODEL_FILE
    alone = judge(build_network(fitted.weights, card), card, views, agreeing, path)
    card["combined"] = fit_combination(alone, views, undecided)
    text = json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False)
    files = {MODEL_FILE: fitted.weights, CARD_FILE: text.encode()}
    store.commit_folder("models", model_id, files)
    return card
