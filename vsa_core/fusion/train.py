"""Learn how to fuse a run's videos: any strategy, kept in the store with its card."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc

from vsa_core import config
from vsa_core.config import Settings
from vsa_core.fusion import FusionModel, knowing
from vsa_core.fusion.card import make_card, read_card
from vsa_core.fusion.checks import listed
from vsa_core.fusion.crossview import ASSOCIATED
from vsa_core.fusion.data import (
    CLASSES,
    SENTIMENT,
    in_order,
    input_fingerprints,
    read_views,
    standing_refs,
)
from vsa_core.fusion.draw import draw
from vsa_core.fusion.memory import MEMORY_FILE, remember
from vsa_core.fusion.strategies import UNTRAINED, Fused, Known, fuse
from vsa_core.fusion.views import Views
from vsa_core.labels import Modality
from vsa_core.store import CARD, Store

# Raised whenever the same inputs and settings would learn something else.
_VERSION = 5
# What decides where there is nothing to learn from: what the engine itself falls back to.
_FALLBACK = "late-product"
# The limit counts by the videos it leaves.
_NOT_LEARNED_FROM = {"min_label_confidence", "max_segments"}


def train_fusion(
    store: Store,
    video_ids: Iterable[str],
    backends: Mapping[Modality, str],
    settings: Settings,
    *,
    progress: Callable[[float], None] | None = None,
) -> FusionModel:
    """The fusion model of a run: the one that stands in the store, else learned and put there.

    It is learned from the videos themselves, without a label, and, but for `tf-mvsa`, from what
    humans said of their segments (`reviews`), where they did. A strategy that learns nothing is
    its own model. Of more than `fusion.max_segments` segments it is learned from a part, in whole
    videos, and the others are labelled as new ones are: the card says of how many.

    Args:
        store: holds segments, predictions, embeddings and reviews of the videos.
        video_ids: the run's videos, in any order.
        backends: modality → backend id.
        settings: `fusion` and `agree` count.
        progress: told the share of the work done, 0 to 1; may raise to stop it.

    Raises:
        StoreError: a table or the stored model's card does not read, the disk is full.
    """
    report = progress or _ignore
    strategy = settings.fusion.strategy
    if strategy in UNTRAINED:
        report(1.0)
        return FusionModel(strategy, None, None)
    asked = sorted(set(video_ids))
    reviews = _reviews(store, asked) if strategy != "tf-mvsa" else {}
    videos, given = _drawn(store, asked, reviews, settings.fusion)
    model_id = _model_id(store, videos, backends, settings, reviews)
    if store.folder("models", model_id) is not None:
        card = read_card(store, model_id)
    else:
        views = read_views(store, videos, backends)
        if not len(views):
            report(1.0)
            return FusionModel(_FALLBACK, None, "there is no segment to learn from")
        known = _known(views, reviews)
        fused = fuse(
            views,
            strategy,
            settings=settings.fusion,
            min_confidence=settings.agree.min_confidence,
            known=known,
            progress=report,
        )
        fused.report["knowing"] = knowing.report(views, fused)
        memory = remember(views, fused.opinion, seed=settings.fusion.seed)
        files = {**fused.model.to_files(), MEMORY_FILE: memory.to_bytes()}
        reason = _late_because(views, fused)
        card = make_card(model_id, backends, views, given, settings, fused, files, known, reason)
        text = json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False)
        store.commit_folder("models", model_id, {**files, CARD: text.encode()})
    report(1.0)
    return FusionModel(model_id, card, card["reason"])


def _ignore(_share: float) -> None:
    """Progress nobody asked for."""


def _drawn(
    store: Store, videos: Sequence[str], reviews: Mapping[str, str], settings: config.Fusion
) -> tuple[Sequence[str], tuple[int, int]]:
    """The videos to learn from, and how many videos with speech and segments there are in all."""
    refs = standing_refs(store, "segments", videos)
    sizes = {video: refs[video].rows for video in videos if video in refs and refs[video].rows}
    total = sum(sizes.values())
    given = len(sizes), total
    if total <= settings.max_segments:
        return videos, given  # videos without segments too, which are part of the model's id
    reviewed = {segment.rsplit("-", 2)[0] for segment in reviews}
    return draw(sizes, settings.max_segments, settings.seed, always=reviewed), given


def _model_id(
    store: Store,
    videos: Sequence[str],
    backends: Mapping[Modality, str],
    settings: Settings,
    reviews: Mapping[str, str],
) -> str:
    return config.fingerprint(
        "fusion",
        _VERSION,
        list(in_order(backends).items()),
        list(zip(videos, input_fingerprints(store, videos, backends), strict=True)),
        settings.fusion.model_dump(mode="json", exclude=_NOT_LEARNED_FROM),
        settings.agree.model_dump(mode="json"),
        sorted(reviews.items()),
    )


def _reviews(store: Store, videos: Sequence[str]) -> dict[str, str]:
    """By segment the sentiment that a human gave last; a review that gives none leaves it."""
    wanted = set(videos)
    columns = ["video_id", "segment_id", "sentiment", "reviewed_at", "review_id"]
    given: list[dict[str, Any]] = []
    for table in store.scan("reviews", columns=columns):
        given += table.filter(pc.is_valid(table["sentiment"])).to_pylist()
    given.sort(key=lambda review: (review["reviewed_at"], review["review_id"]))
    return {r["segment_id"]: r["sentiment"] for r in given if r["video_id"] in wanted}


def _known(views: Views, reviews: Mapping[str, str]) -> Known | None:
    at = pc.index_in(views.segment_ids, pc.cast(list(reviews), "string")) if reviews else None
    if at is None or at.null_count == len(at):
        return None
    rows = np.flatnonzero(at.is_valid().to_numpy(zero_copy_only=False))
    said = [reviews[views.segment_ids[int(row)].as_py()] for row in rows]
    return Known(SENTIMENT, rows, np.array([CLASSES[SENTIMENT].index(s) for s in said], np.intp))


def _late_because(views: Views, fused: Fused) -> str | None:
    """Why late fusion decides though a strategy was to learn; None where it did."""
    if fused.model.strategy == "tf-mvsa":
        return None if fused.model.network is not None else str(fused.report["notes"][-1])
    if fused.report["targets"][SENTIMENT]["decides"] != "product":
        return None
    tied = fused.report["targets"][SENTIMENT]["votes_association_z"]
    if len(views.videos) < 2:
        if len(views) == 1:
            return "there is one segment, so none can be held out: add videos"
        return f"all {len(views)} segments are of one video, so none can be held out: add videos"
    if not views.embedded.any():
        return "no model gave an embedding to learn from"
    if tied <= ASSOCIATED:
        return (
            f"the votes of {listed(views.voters(SENTIMENT))} are not correlated beyond chance "
            f"(z = {tied:.1f}), so they cannot teach one another"
        )
    together = (views.present.sum(axis=1) > 1).sum()
    return f"{together} of {len(views)} segments were seen by two models, in too few videos"
