"""Made segments put into a store, as the stages before fusion would leave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vsa_core.config import Agree, Fusion, NamedModel, Settings
from vsa_core.labels import EMOTIONS, SENTIMENTS, Modality
from vsa_core.schemas import TABLES, table_from_rows
from vsa_core.store import Store

TEXT, FACE, AUDIO = Modality.TEXT, Modality.FACE, Modality.AUDIO
BACKENDS = {m: f"made-{m}@0123" for m in (TEXT, FACE, AUDIO)}


@dataclass
class View:
    """What one backend says of n segments; NaN rows of probabilities do not vote."""

    embedding: NDArray[np.float32]
    sentiment: NDArray[np.float32] | None = None
    emotion: NDArray[np.float32] | None = None
    present: NDArray[np.bool_] | None = None


@dataclass
class Made:
    """n segments of some videos (in order of video), with what nobody but the test knows."""

    videos: list[str]
    views: dict[Modality, View]
    truth: NDArray[np.intp]

    @property
    def segment_ids(self) -> list[str]:
        seen: dict[str, int] = {}
        ids = []
        for video in self.videos:
            k = seen[video] = seen.get(video, -1) + 1
            ids.append(f"{video}-{k * 1000}-{k * 1000 + 900}")
        return ids

    @property
    def video_ids(self) -> list[str]:
        return sorted(set(self.videos))

    @property
    def backends(self) -> dict[Modality, str]:
        return {m: BACKENDS[m] for m in self.views}

    def first(self, n: int) -> Made:
        """The first n segments only."""

        def cut(a: Any) -> Any:
            return None if a is None else a[:n]

        views = {
            m: View(v.embedding[:n], cut(v.sentiment), cut(v.emotion), cut(v.present))
            for m, v in self.views.items()
        }
        return Made(self.videos[:n], views, self.truth[:n])


def settings(**fusion: Any) -> Settings:
    """Settings whose fusion learns quickly: without a network, or with a small one."""
    quick = {
        "strategy": "crossview",
        "width": 16,
        "max_epochs": 40,
        "patience": 6,
        "learning_rate": 1e-2,
        "batch_size": 256,
        "dropout": 0.2,
    }
    quick.update(fusion)
    backends = {m: NamedModel(name=f"made-{m}") for m in BACKENDS}
    return Settings(backends=backends, agree=Agree(), fusion=Fusion(**quick))


def confident(labels: NDArray[np.intp], rng: np.random.Generator, classes: int = 3) -> NDArray:
    """Probabilities (n, K) that vote for these labels, each with its own confidence over .5."""
    top = rng.uniform(0.55, 0.9, len(labels))
    probs = np.repeat((1 - top)[:, None] / (classes - 1), classes, axis=1)
    probs[np.arange(len(labels)), labels] = top
    return probs.astype(np.float32)


def noisy(truth: NDArray[np.intp], right: float, rng: np.random.Generator) -> NDArray[np.intp]:
    """Labels that are right with this probability, else any."""
    return np.where(rng.random(len(truth)) < right, truth, rng.integers(0, 3, len(truth)))


def planted(n: int = 600, videos: int = 7, seed: int = 0, missing: float = 0.0) -> Made:
    """Text and face vote with independent errors; only the embedding of audio shows the class."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, n)
    emotion_of = np.array([5, 4, 3])  # sadness, neutral, joy
    views = {}
    for modality, dim in ((TEXT, 8), (FACE, 6)):
        said = noisy(truth, 0.6, rng)
        views[modality] = View(
            rng.normal(size=(n, dim)).astype(np.float32),
            confident(said, rng),
            confident(emotion_of[said], rng, len(EMOTIONS)),
            rng.random(n) >= missing,
        )
    class_means = 2.5 * np.eye(3, 10)
    heard = class_means[truth] + rng.normal(size=(n, 10))
    views[AUDIO] = View(heard.astype(np.float32), None, None, rng.random(n) >= missing)
    return Made(sorted(f"v{i % videos:02d}" for i in range(n)), views, truth)


def with_votes(made: Made, **sentiment: NDArray[np.intp]) -> Made:
    """The same segments with other votes, all confident."""
    rng = np.random.default_rng(99)
    views = {
        m: replace(v, sentiment=confident(sentiment[m], rng) if m in sentiment else v.sentiment)
        for m, v in made.views.items()
    }
    return Made(made.videos, views, made.truth)


def put(root: Path, made: Made, fingerprint: str = "made") -> Store:
    """A store that holds these segments and predictions."""
    store = Store(root)
    ids = made.segment_ids
    for video in made.video_ids:
        rows = [i for i, v in enumerate(made.videos) if v == video]
        _put(store, "videos", video, [_video_row(video)], fingerprint)
        segments = [_segment_row(video, ids[i], k) for k, i in enumerate(rows)]
        _put(store, "segments", video, segments, fingerprint)
        for modality, view in made.views.items():
            part = store.part_of(BACKENDS[modality])
            here = [i for i in rows if view.present is None or view.present[i]]
            said = [_prediction_row(video, ids[i], modality, view, i, i in here) for i in rows]
            seen = [_embedding_row(video, ids[i], modality, view, i) for i in here]
            _put(store, "predictions", video, said, fingerprint, part)
            _put(store, "embeddings", video, seen, fingerprint, part)
    return store


def regime(shared: Path, name: str) -> Made:
    """A table of the study behind the label engine."""
    truth = {
        row["segment_id"]: row["label"]
        for row in pq.read_table(shared / "regimes" / f"{name}.truth.parquet").to_pylist()
    }
    place = {segment: i for i, segment in enumerate(truth)}
    videos = [""] * len(truth)
    found: dict[Modality, list[dict[str, Any]]] = {}
    for row in pq.read_table(shared / "regimes" / f"{name}.parquet").to_pylist():
        videos[place[row["segment_id"]]] = row["video_id"]
        if row["status"] == "ok":
            found.setdefault(Modality(row["modality"]), []).append(row)
    views = {}
    for modality, rows in found.items():
        at = [place[row["segment_id"]] for row in rows]
        embedding = np.zeros((len(truth), len(rows[0]["embedding"])), np.float32)
        sentiment = np.full((len(truth), 3), np.nan, np.float32)
        present = np.zeros(len(truth), bool)
        embedding[at] = [row["embedding"] for row in rows]
        sentiment[at] = [row["probs"] for row in rows]
        present[at] = True
        views[modality] = View(embedding, sentiment, None, present)
    classes = [str(s) for s in SENTIMENTS]
    return Made(videos, views, np.array([classes.index(label) for label in truth.values()]))


def _put(
    store: Store, table: str, key: str, rows: Sequence[Mapping[str, Any]], made: str, part: str = ""
) -> None:
    store.commit(table, key, table_from_rows(table, rows), made, part=part)


def _video_row(video: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(TABLES["videos"].schema.names)
    row.update(video_id=video, status="ok", source_url="file:///made", title=f"About {video}")
    row.update(channel_id="c1", media_path="/made.mp4", has_video=True, has_audio=True)
    return row


def _segment_row(video: str, segment: str, k: int) -> dict[str, Any]:
    return {
        "video_id": video,
        "segment_id": segment,
        "index": k,
        "start_ms": k * 1000,
        "end_ms": k * 1000 + 900,
        "text": f"line {k}",
        "speaker": None,
        "text_source": "captions",
        "language": None,
    }


def _prediction_row(
    video: str, segment: str, modality: Modality, view: View, i: int, present: bool
) -> dict[str, Any]:
    def probs(of: NDArray[np.float32] | None) -> list[float] | None:
        return None if of is None or not present or np.isnan(of[i]).any() else of[i].tolist()

    return {
        "video_id": video,
        "segment_id": segment,
        "modality": modality.value,
        "backend": BACKENDS[modality],
        "status": "ok" if present else "absent",
        "sentiment_probs": probs(view.sentiment),
        "emotion_probs": probs(view.emotion),
        "people": int(present) if modality is Modality.FACE else None,
        "track": 0 if present and modality is Modality.FACE else None,
        "speaks": False if present and modality is Modality.FACE else None,
        "note": None,
    }


def _embedding_row(
    video: str, segment: str, modality: Modality, view: View, i: int
) -> dict[str, Any]:
    return {
        "video_id": video,
        "segment_id": segment,
        "modality": modality.value,
        "backend": BACKENDS[modality],
        "embedding": view.embedding[i].tolist(),
    }
