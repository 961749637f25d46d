"""One backend over one video's segments: batching, absence, errors and Parquet, once, here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsa_core.backends import Backend, Clip, Faces, FaceWatcher, People, Prediction, load_backend
from vsa_core.config import Settings, fingerprint
from vsa_core.errors import LanguageNotSpoken, VsaError
from vsa_core.labels import EMOTIONS, SENTIMENTS, Modality, Status
from vsa_core.progress import Steps
from vsa_core.schemas import table_from_rows
from vsa_core.store import Store, TableRef
from vsa_core.videos import media_of, read_video

_NOTE_LENGTH = 300


@dataclass(slots=True)
class _Seen:
    """What came of one clip."""

    status: Status
    sentiment_probs: NDArray[np.float32] | None = None
    emotion_probs: NDArray[np.float32] | None = None
    embedding: NDArray[np.float32] | None = None
    note: str | None = None


def predict(
    modality: Modality, video_id: str, settings: Settings, store: Store, steps: Steps
) -> TableRef:
    """Let a modality's backend look at every segment of a video, and store what it says.

    Every segment gets one row in `predictions`: `ok`, `absent` (nothing of this modality there),
    `foreign` (in a language the model does not speak) or `error`, the latter two with a note; what
    one segment breaks costs no other. Embeddings, and the faces of a face backend, are stored
    first, so that a predictions file means that all of it is there.

    Raises:
        BackendError: the backend cannot be loaded.
        StoreError: the video's segments are not in the store.
    """
    model = settings.backends[modality]
    backend = load_backend(model.name, model.options)
    part = store.part_of(backend.id)
    segments_ref = store.find("segments", video_id)
    if segments_ref is None:
        raise VsaError(f"video {video_id} has no segments in {store.location}: run `vsa run` again")
    made_from = made_from_segments(segments_ref.fingerprint, backend.id)
    ref = store.fresh("predictions", video_id, made_from, part=part)
    if ref is not None:
        return ref
    segments = store.read(segments_ref).to_pylist()
    clips, faces, problem = _clips(backend, read_video(store, video_id), segments, steps)
    if faces is not None:
        rows = _face_rows(video_id, backend.id, faces)
        store.commit("faces", video_id, table_from_rows("faces", rows), made_from, part=part)
    if problem is not None:
        seen = [_Seen(Status.ERROR, note=problem) for _ in segments]
    else:
        seen = look(backend, clips, steps)
    rows = _rows(video_id, backend, segments, seen, _people(backend, clips))
    vectors = [
        {
            "video_id": video_id,
            "segment_id": segment["segment_id"],
            "modality": backend.modality,
            "backend": backend.id,
            "embedding": result.embedding,
        }
        for segment, result in zip(segments, seen, strict=True)
        if result.embedding is not None
    ]
    store.commit(
        "embeddings", video_id, table_from_rows("embeddings", vectors), made_from, part=part
    )
    return store.commit(
        "predictions", video_id, table_from_rows("predictions", rows), made_from, part=part
    )


def made_from_segments(segments: str, backend_id: str) -> str:
    """Fingerprint of what a backend says of segments of this fingerprint."""
    return fingerprint("predict/2", segments, backend_id)


def look(backend: Backend, clips: Sequence[Clip], steps: Steps | None = None) -> list[_Seen]:
    """What a backend says of each clip: read one by one, predicted in batches.

    A clip in a language the backend does not speak is `foreign`. One that cannot be read, a sample
    that breaks its batch, or numbers that are no probabilities become that clip's error; the
    others are not touched.
    """
    seen: list[_Seen] = []
    waiting: list[tuple[int, Any]] = []
    for index, clip in enumerate(clips):
        try:
            sample = backend.read(clip)
        except LanguageNotSpoken as error:
            seen.append(_Seen(Status.FOREIGN, note=str(error)))
        except Exception as error:  # noqa: BLE001 - whatever a model or decoder raises is data
            seen.append(_Seen(Status.ERROR, note=_said(error)))
        else:
            seen.append(_Seen(Status.ABSENT))
            if sample is not None:
                waiting.append((index, sample))
        if len(waiting) == backend.batch_size:
            _predict_into(seen, backend, waiting)
            waiting = []
        if steps is not None:
            steps.reach((index + 1) / len(clips))
    if waiting:
        _predict_into(seen, backend, waiting)
    return seen


def _predict_into(seen: list[_Seen], backend: Backend, waiting: list[tuple[int, Any]]) -> None:
    try:
        prediction = backend.predict([sample for _, sample in waiting])
        results = list(_unpacked(prediction, len(waiting)))
    except Exception as error:  # noqa: BLE001 - whatever a model raises is data
        if len(waiting) > 1:  # one of them broke it: each on its own
            for one in waiting:
                _predict_into(seen, backend, [one])
            return
        results = [_Seen(Status.ERROR, note=_said(error))]
    for (index, _), result in zip(waiting, results, strict=True):
        seen[index] = result


def _unpacked(prediction: Prediction, count: int) -> Iterator[_Seen]:
    embedding = np.asarray(prediction.embedding, np.float32)
    if len(embedding) != count:
        raise ValueError(f"{len(embedding)} results for {count} samples")
    for row in range(count):
        if not np.isfinite(embedding[row]).all():
            yield _Seen(Status.ERROR, note="the embedding is not finite")
            continue
        yield _Seen(
            Status.OK,
            _probabilities(prediction.sentiment_probs, row, len(SENTIMENTS)),
            _probabilities(prediction.emotion_probs, row, len(EMOTIONS)),
            embedding[row],
        )


def _probabilities(
    probs: NDArray[np.float32] | None, row: int, width: int
) -> NDArray[np.float32] | None:
    """A row of probabilities; None when the model abstains (no array, or a row of NaN)."""
    if probs is None or np.isnan(probs[row]).all():
        return None
    values = np.asarray(probs[row], np.float32)
    if values.shape != (width,) or not abs(float(values.sum()) - 1) < 1e-3 or (values < 0).any():
        raise ValueError(f"not probabilities: {values.tolist()}")
    return values


def _clips(
    backend: Backend, video: dict[str, Any], segments: Sequence[dict[str, Any]], steps: Steps
) -> tuple[list[Clip], Faces | None, str | None]:
    """The video's clips, the faces seen in it, and why it could not be watched."""
    media = media_of(video, steps)
    faces = problem = None
    if isinstance(backend, FaceWatcher) and media.has_video:
        try:
            faces = backend.watch(media)
        except VsaError as error:
            problem = str(error)
    clips = [
        Clip(
            segment_id=segment["segment_id"],
            start_ms=segment["start_ms"],
            end_ms=segment["end_ms"],
            text=segment["text"],
            language=segment["language"],
            media=media,
            faces=faces,
        )
        for segment in segments
    ]
    return clips, faces, problem


def _people(backend: Backend, clips: Sequence[Clip]) -> list[People | None]:
    """Who is seen in each clip; None where the backend looks at no faces, or could not watch."""
    if not isinstance(backend, FaceWatcher):
        return [None] * len(clips)
    return [backend.people(clip) if clip.faces is not None else None for clip in clips]


def _rows(
    video_id: str,
    backend: Backend,
    segments: Sequence[dict[str, Any]],
    seen: Sequence[_Seen],
    people: Sequence[People | None],
) -> list[dict[str, Any]]:
    return [
        {
            "video_id": video_id,
            "segment_id": segment["segment_id"],
            "modality": backend.modality,
            "backend": backend.id,
            "status": result.status,
            "sentiment_probs": result.sentiment_probs,
            "emotion_probs": result.emotion_probs,
            "people": None if who is None else who.count,
            "track": None if who is None else who.track,
            "speaks": None if who is None or who.track is None else who.speaks,
            "note": result.note,
        }
        for segment, result, who in zip(segments, seen, people, strict=True)
    ]


def _face_rows(video_id: str, backend_id: str, faces: Faces) -> list[dict[str, Any]]:
    return [
        {
            "video_id": video_id,
            "backend": backend_id,
            "time_ms": int(faces.time_ms[i]),
            "track": int(faces.track[i]),
            "x_px": int(faces.box_px[i, 0]),
            "y_px": int(faces.box_px[i, 1]),
            "width_px": int(faces.box_px[i, 2]),
            "height_px": int(faces.box_px[i, 3]),
            "score": float(faces.score[i]),
            "speaking": None if np.isnan(faces.speaking[i]) else float(faces.speaking[i]),
            "emotion_probs": faces.emotion_probs[i],
        }
        for i in range(len(faces.time_ms))
    ]


def _said(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:_NOTE_LENGTH]
