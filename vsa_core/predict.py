"""One backend over one video's segments: batching, absence, errors and Parquet, once, here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vsa_core.backends import Backend, Clip, Faces, FaceWatcher, People, Prediction, load_backend
from vsa_core.config import Settings, fingerprint
from vsa_core.errors import (
    LanguageNotSpoken,
    MediaError,
    SegmentsError,
    VsaError,
    is_failure,
    said,
)
from vsa_core.labels import EMOTIONS, SENTIMENTS, Modality, Status
from vsa_core.progress import Steps
from vsa_core.schemas import table_from_rows
from vsa_core.store import Store, TableRef
from vsa_core.videos import media_of, read_video

_T = TypeVar("_T")
# Stands between the fingerprint of rows and that of those among them that are errors.
_BROKEN = ":"
_NO_MEMORY = ("out of memory", "allocate memory", "insufficient memory", "failed to allocate")
_OF_GPU = ("CUDA", "cuDNN", "CUBLAS", "NCCL", "HIP error", "MPS")
# Their words may be those of what was looked at.
_OF_VALUES = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError)


@dataclass(slots=True)
class _Seen:
    """What came of one clip.

    Attributes:
        doubtful: an error of which nobody knows whether the clip or the model is at fault.
        machine: of these, one of the machine's for sure: its memory, a GPU, what is installed.
    """

    status: Status
    sentiment_probs: NDArray[np.float32] | None = None
    emotion_probs: NDArray[np.float32] | None = None
    embedding: NDArray[np.float32] | None = None
    note: str | None = None
    doubtful: bool = False
    machine: bool = False


def predict(
    modality: Modality, video_id: str, settings: Settings, store: Store, steps: Steps
) -> TableRef:
    """Let a modality's backend look at every segment of a video, and store what it says.

    Every segment gets one row in `predictions`: `ok`, `absent` (nothing of this modality there),
    `foreign` (in a language the model does not speak) or `error`, the latter two with a note; what
    one segment breaks costs no other. Rows that are errors make the fingerprint another one, so
    that they never stand: the next call looks at those segments again, and keeps the other rows.
    Embeddings, and the faces of a face backend, are stored first, so that a predictions file means
    that all of it is there.

    Raises:
        BackendError: the backend cannot be loaded.
        SegmentsError: the machine failed it, or it broke on all that it was given; rows stand.
        VsaError: the video's segments are not in the store.
    """
    model = settings.backends[modality]
    backend = load_backend(model.name, model.options)
    part = store.part_of(backend.id)
    segments_ref = store.find("segments", video_id)
    if segments_ref is None:
        raise VsaError(f"video {video_id} has no segments in {store.location}: run `vsa run` again")
    made_from = made_from_segments(segments_ref.fingerprint, backend.id)
    ref = store.find("predictions", video_id, part=part)
    if ref is not None and ref.fingerprint == made_from:
        return ref
    segments = store.read(segments_ref).to_pylist()
    rows: dict[str, dict[str, Any]] = {}
    vectors: dict[str, dict[str, Any]] = {}
    if ref is not None and ref.fingerprint.partition(_BROKEN)[0] == made_from:
        rows, vectors = _kept(store, ref)
    again = [segment for segment in segments if segment["segment_id"] not in rows]
    clips, faces, problem = _clips(backend, read_video(store, video_id), again, steps)
    if faces is not None:
        found = table_from_rows("faces", _face_rows(video_id, backend.id, faces))
        store.commit("faces", video_id, found, made_from, part=part)
    if problem is not None:
        seen = [_Seen(Status.ERROR, note=problem) for _ in again]
    else:
        seen = look(backend, clips, steps)
    new = _rows(video_id, backend, again, seen, _people(backend, clips))
    rows |= {row["segment_id"]: row for row in new}
    vectors |= {
        row["segment_id"]: {
            "video_id": video_id,
            "segment_id": row["segment_id"],
            "modality": backend.modality,
            "backend": backend.id,
            "embedding": result.embedding,
        }
        for row, result in zip(new, seen, strict=True)
        if result.embedding is not None
    }
    order = [segment["segment_id"] for segment in segments]
    made_from = made_from_rows(made_from, rows.values())
    said_all = table_from_rows("predictions", [rows[one] for one in order])
    embedded = table_from_rows("embeddings", [vectors[one] for one in order if one in vectors])
    store.commit("embeddings", video_id, embedded, made_from, part=part)
    ref = store.commit("predictions", video_id, said_all, made_from, part=part)
    failed = [one for one in seen if one.doubtful]
    if any(one.machine for one in failed) or (failed and not vectors):
        raise SegmentsError(
            f"{backend.id} failed at {len(failed)} of {len(segments)} segments: {failed[0].note}",
            worked=bool(vectors),
        )
    return ref


def made_from_segments(segments: str, backend_id: str) -> str:
    """Fingerprint of what a backend says of segments of this fingerprint, if none is an error."""
    return fingerprint("predict/2", segments, backend_id)


def made_from_rows(made_from: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """Fingerprint of rows of `predictions`: as given, but another one where some are errors."""
    broken = sorted(row["segment_id"] for row in rows if row["status"] == Status.ERROR)
    return f"{made_from}{_BROKEN}{fingerprint(broken)}" if broken else made_from


def has_errors(made_from: str) -> bool:
    """Whether some of the rows of this fingerprint are errors."""
    return _BROKEN in made_from


def _kept(
    store: Store, ref: TableRef
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """The rows behind a ref that are no errors, and their embeddings, by segment."""
    embedded = store.find("embeddings", ref.key, part=ref.part)
    vectors = {} if embedded is None else _by_segment(store, embedded)
    rows = {
        segment: row
        for segment, row in _by_segment(store, ref).items()
        if row["status"] != Status.ERROR and (row["status"] != Status.OK or segment in vectors)
    }
    return rows, {segment: row for segment, row in vectors.items() if segment in rows}


def _by_segment(store: Store, ref: TableRef) -> dict[str, dict[str, Any]]:
    return {row["segment_id"]: row for row in store.read(ref).to_pylist()}


def look(backend: Backend, clips: Sequence[Clip], steps: Steps | None = None) -> list[_Seen]:
    """What a backend says of each clip: read one by one, predicted in batches.

    A clip in a language the backend does not speak is `foreign`. One that does not decode, or that
    breaks its batch and then twice the model alone, and numbers that are no probabilities, become
    that clip's error; the others are not touched. Batches that memory is too short for are made
    smaller.

    Raises:
        BackendError: the network, which is loaded at its first use, cannot be loaded.
    """
    seen: list[_Seen] = []
    waiting: list[tuple[int, Any]] = []
    size = backend.batch_size
    for index, clip in enumerate(clips):
        found = _tried(partial(backend.read, clip))
        seen.append(found if isinstance(found, _Seen) else _Seen(Status.ABSENT))
        if found is not None and not isinstance(found, _Seen):
            waiting.append((index, found))
        if len(waiting) >= size or index + 1 == len(clips):
            size = _predict_into(seen, backend, waiting, size)
            waiting = []
        if steps is not None:
            steps.reach((index + 1) / len(clips))
    return seen


def _predict_into(
    seen: list[_Seen], backend: Backend, waiting: Sequence[tuple[int, Any]], size: int
) -> int:
    """Predict in batches of at most `size`; returns the size that memory was enough for."""
    at = 0
    while at < len(waiting):
        batch = waiting[at : at + size]
        try:
            results = _answers(backend, [sample for _, sample in batch])
        except BaseException as error:
            if not is_failure(error):
                raise
            results = []
            if len(batch) > 1 and _out_of_memory(error):
                size = len(batch) // 2
                continue
        # Here, not above: an error that is being handled keeps what fills the memory.
        results = results or [_alone(backend, sample) for _, sample in batch]
        for (index, _), result in zip(batch, results, strict=True):
            seen[index] = result
        at += len(batch)
    return size


def _answers(backend: Backend, samples: Sequence[Any]) -> list[_Seen]:
    return list(_unpacked(backend.predict(samples), len(samples)))


def _alone(backend: Backend, sample: Any) -> _Seen:
    """What a backend says of one sample, or what is wrong with it."""
    return _tried(lambda: _answers(backend, [sample])[0])


def _tried(attempt: Callable[[], _T]) -> _T | _Seen:
    """What an attempt at a clip gives, at the second try too, or what is wrong with it."""
    for _ in range(2):
        try:
            return attempt()
        except LanguageNotSpoken as error:
            return _Seen(Status.FOREIGN, note=str(error))
        except MediaError as error:
            return _Seen(Status.ERROR, note=str(error))
        except VsaError:
            raise
        except BaseException as error:
            if not is_failure(error):
                raise
            broke = _broke(error)
    return broke


def _broke(error: BaseException) -> _Seen:
    """The row of a clip at which something broke, with what may help."""
    if _out_of_memory(error):
        help_, machine = ": fewer run.workers or a smaller model need less memory", True
    elif machine := _of_machine(error):
        help_ = ": see to what the model needs on this machine"
    else:
        help_ = ""
    return _Seen(Status.ERROR, note=f"{said(error)}{help_}", doubtful=True, machine=machine)


def _out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the machine or of a GPU is full; each library has words of its own."""
    return isinstance(error, MemoryError) or _says(error, _NO_MEMORY)


def _of_machine(error: BaseException) -> bool:
    """Whether an error tells of the machine or what is installed, not of what was looked at."""
    if isinstance(error, OSError):
        return error.errno is not None  # the system's; what a decoder thinks of a file has none
    return isinstance(error, ImportError) or _says(error, _OF_GPU)


def _says(error: BaseException, words: Iterable[str]) -> bool:
    text = str(error).lower()
    return not isinstance(error, _OF_VALUES) and any(word.lower() in text for word in words)


def _unpacked(prediction: Prediction, count: int) -> Iterator[_Seen]:
    embedding = np.asarray(prediction.embedding, np.float32)
    if len(embedding) != count:
        raise ValueError(f"{len(embedding)} results for {count} samples")
    for row in range(count):
        if not np.isfinite(embedding[row]).all():
            yield _broke(ValueError("the embedding is not finite"))
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
        except MediaError as error:
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
