"""Whether a new fusion model is better than late fusion and than the model that labels now."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vsa_core.config import Settings
from vsa_core.evaluate import confusion_by_video, f1_of, interval_by_video
from vsa_core.fusion import FusionModel, late
from vsa_core.fusion.card import check_widths, read_model
from vsa_core.fusion.data import (
    CLASSES,
    EMOTION,
    SENTIMENT,
    in_order,
    read_views,
    standing_refs,
)
from vsa_core.fusion.draw import draw
from vsa_core.fusion.judging import ENOUGH_REVIEWS
from vsa_core.fusion.registry import known_since
from vsa_core.fusion.strategies import Model, fuse
from vsa_core.fusion.telling import Asked, answers, hidden_votes, without
from vsa_core.fusion.verdict import (
    CANDIDATE,
    CONSENSUS,
    CURRENT,
    LATE,
    LEVEL,
    REVIEWS,
    Comparison,
    Row,
    verdict,
)
from vsa_core.fusion.views import Views
from vsa_core.labels import Modality
from vsa_core.store import Store

# A comparison reads so many segments of a store of any size, in whole videos drawn by their hash:
# others than a candidate learned from, where it learned from a part.
_MOST_SEGMENTS, _DRAW = 20_000, 1

_Say = Callable[[int | None], NDArray[np.floating]]


def compare(
    store: Store,
    candidate: FusionModel,
    current: FusionModel | None,
    video_ids: Iterable[str],
    backends: Mapping[Modality, str],
    settings: Settings,
) -> Comparison:
    """Whether a candidate labels the sentiment of some videos better than what they have.

    Two judges, both of labels that a contender was not given:

    - *held-out consensus*: each view that votes is hidden in turn, vote and embedding, and what a
      contender says of the rest is held against the hidden vote (`telling`);
    - *reviews*, where there are 30: what people said, by the labels that contenders give. The
      candidate is learned once more without reviews, if it learned from any; a review that the
      current model may have learned from is left out.

    A model that learned from a video judges it by the experts that never saw it, as in `resolve`.
    The candidate is better where

    1. it tells more of the hidden votes than late fusion and than the current model, by a lower
       bound (95 %, one-sided, over whole videos) above 0;
    2. and by 2 % of what each of them tells: two models as good as each other do not take turns;
    3. of the classes it would give not clearly fewer are right, by macro-F1 against either;
    4. before reviews it tells on average no less than either, with macro-F1 not clearly lower.

    With fewer than 100 hidden votes or 5 videos a current model stays. What hidden votes cannot
    see is a mistake that all models make together: only reviews can.

    Args:
        store: holds what the backends said of the videos, and the models.
        candidate: what `train_fusion` returned.
        current: the model that labels now; None for none. One of other backends cannot label
            these videos, and is no rival.
        video_ids: whose; of very many some drawn by their hash, and reviewed ones beside these.
        backends: modality → backend id.
        settings: those the candidate was learned with.

    Raises:
        StoreError: a table or a model does not read.
    """
    if candidate.card is None or candidate.reason is not None:
        why = candidate.reason or f"{candidate.model_id} learns nothing"
        return Comparison(False, f"late fusion would decide in it: {why}")
    if current is not None and current.model_id == candidate.model_id:
        return Comparison(False, "it is the current model")
    videos, notes = set(video_ids), list[str]()
    rival = None
    if current is not None and current.card is not None:
        if _fits(current.card, backends):
            rival = (current.model_id, current.card)
        else:
            notes.append(f"the current model {current.model_id} is of other backends: no rival")
    reviews = _reviews(store, videos)
    drawn, reviewed = _drawn(store, videos, {review["video_id"] for review in reviews})
    views = read_views(store, [*drawn, *reviewed], backends, targets=[SENTIMENT, EMOTION])
    own_views = _on(views, candidate.card)
    learned = _stored(store, candidate.model_id, backends, views)
    contenders: dict[str, _Say] = {
        LATE: lambda view: late.product(without(views, view).probs[SENTIMENT]),
        CANDIDATE: _opinion(learned, own_views),
    }
    fair = reviews
    if rival is not None:
        model_id, card = rival
        unseated = _stored(store, model_id, backends, views)
        contenders[CURRENT] = _opinion(unseated, _on(views, card))
        if card["data"]["reviewed"]:
            fair = _unlearned(reviews, unseated.folds or {}, known_since(store).get(model_id))
    # Videos come in the order they were asked for: those drawn, then the others reviewed.
    among = views.video < len(drawn)
    asked = hidden_votes(views, SENTIMENT, settings.agree.min_confidence, among)
    rows = _rows(CONSENSUS, views, asked, contenders)
    said = _asked_of(fair, views)
    if left_out := len(reviews) - len(fair):
        notes.append(f"{left_out} reviews that the current model may have learned from count not")
    if len(said.rows) >= ENOUGH_REVIEWS:
        if candidate.card["data"]["reviewed"]:
            contenders[CANDIDATE] = _opinion(_unreviewed(own_views, learned, settings), own_views)
        rows += _rows(REVIEWS, views, [said], contenders)
    elif len(said.rows):
        notes.append(f"{len(said.rows)} reviews are too few to judge by: it takes {ENOUGH_REVIEWS}")
    better, reason = verdict(rows)
    return Comparison(better, reason, tuple(rows), len(views.videos), len(views), tuple(notes))


def _rows(
    judge: str, views: Views, asked: list[Asked], contenders: Mapping[str, _Say]
) -> list[Row]:
    if not asked:
        return []
    labels = np.concatenate([question.labels for question in asked])
    at = views.video[np.concatenate([question.rows for question in asked])]
    videos, video = np.unique(at, return_inverse=True)
    found = {name: answers(asked, say) for name, say in contenders.items()}
    own = found[CANDIDATE][0]
    counts = np.bincount(video)
    rows = []
    for name, (nats, given) in found.items():
        gain = interval = None
        if name != CANDIDATE:
            gain = float((own - nats).mean())
            sums = np.column_stack([np.bincount(video, own - nats), counts])
            interval = interval_by_video(sums, _mean, level=LEVEL)
        confusion = confusion_by_video(labels, given, video, len(CLASSES[SENTIMENT]))
        rows.append(
            Row(
                judge,
                name,
                len(labels),
                len(videos),
                float(nats.mean()),
                f1_of(confusion.sum(axis=0)),
                float((given == labels).mean()),
                gain,
                *(interval or (None, None)),
            )
        )
    return rows


def _mean(total: NDArray[np.number]) -> float:
    return float(total[0] / total[1])


def _on(views: Views, card: Mapping[str, Any]) -> Views:
    """The same segments with the targets that a model knows."""
    known = {target: views.classes[target] for target in card["targets"]}
    return replace(views, classes=known, probs={target: views.probs[target] for target in known})


def _opinion(model: Model, views: Views) -> _Say:
    """What a model says of the sentiment when a view is hidden."""
    network = model.network if model.strategy == "tf-mvsa" else None

    def say(view: int | None) -> NDArray[np.floating]:
        seen = without(views, view)
        # It takes a vote that is left alone as it is; where votes differ its network decides.
        if network is not None and view is not None:
            return network.infer(seen, model.member(seen))[0][SENTIMENT]
        return model.opinion(seen).probs[SENTIMENT]

    return say


def _stored(store: Store, model_id: str, backends: Mapping[Modality, str], views: Views) -> Model:
    model, card = read_model(store, model_id, backends)
    check_widths(card, views, f"models/{model_id}")
    return model


def _unreviewed(views: Views, learned: Model, settings: Settings) -> Model:
    """The candidate as it would be without anybody's reviews, learned from the same segments."""
    return fuse(
        views,
        learned.strategy,
        settings=settings.fusion,
        min_confidence=settings.agree.min_confidence,
    ).model


def _fits(card: Mapping[str, Any], backends: Mapping[Modality, str]) -> bool:
    return bool(card["backends"] == {m.value: b for m, b in in_order(backends).items()})


def _drawn(
    store: Store, video_ids: Iterable[str], reviewed: set[str]
) -> tuple[list[str], list[str]]:
    """The videos to look at, and the reviewed ones that are not among them."""
    videos = sorted(video_ids)
    refs = standing_refs(store, "segments", videos)
    sizes = {video: refs[video].rows for video in videos if video in refs and refs[video].rows}
    drawn = draw(sizes, _MOST_SEGMENTS, _DRAW)
    others = {video: sizes[video] for video in reviewed.difference(drawn) if video in sizes}
    return drawn, draw(others, _MOST_SEGMENTS, _DRAW)


def _reviews(store: Store, videos: set[str]) -> list[dict[str, Any]]:
    """Of each segment the sentiment that people gave last, and when they first gave one."""
    columns = ["video_id", "segment_id", "sentiment", "reviewed_at", "review_id"]
    given: list[dict[str, Any]] = []
    for table in store.scan("reviews", columns=columns):
        given += table.filter(pc.is_valid(table["sentiment"])).to_pylist()
    given.sort(key=lambda review: (review["reviewed_at"], review["review_id"]))
    first: dict[str, datetime] = {}
    last: dict[str, dict[str, Any]] = {}
    for review in given:
        if review["video_id"] in videos:
            since = first.setdefault(review["segment_id"], review["reviewed_at"])
            last[review["segment_id"]] = {**review, "first_at": since}
    return list(last.values())


def _unlearned(
    reviews: Sequence[dict[str, Any]], learned_from: Container[str], since: datetime | None
) -> list[dict[str, Any]]:
    """Reviews that a model cannot have learned from: of other videos, or given when it stood."""
    return [
        review
        for review in reviews
        if review["video_id"] not in learned_from
        or (since is not None and review["first_at"] > since)
    ]


def _asked_of(reviews: Sequence[Mapping[str, Any]], views: Views) -> Asked:
    """The reviewed segments, and what people said of them."""
    ids = pa.array([review["segment_id"] for review in reviews], pa.string())
    names = CLASSES[SENTIMENT]
    known = [
        (row, names.index(review["sentiment"]))
        for row, review in zip(
            pc.index_in(ids, views.segment_ids).to_pylist(), reviews, strict=True
        )
        if row is not None and review["sentiment"] in names
    ]
    found = np.array(sorted(known), np.intp).reshape(-1, 2)
    return Asked(None, found[:, 0], found[:, 1])
