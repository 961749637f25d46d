"""`vsa predict`: the models on bare text or pictures, one JSON object per line."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vsa_core.cli import OK, SOME_FAILED, there
from vsa_core.errors import ConfigError, LanguageNotSpoken, MediaError, SourceError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vsa_core.backends import Backend, Faces

# Whoever sends a longer line sends no line of speech; what is beyond is not read.
_MAX_LINE_BYTES = 1 << 20
_READ_BYTES = 1 << 16
# No EPS, PDF or the like: those run programs or other files.
_IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")


def run(args: argparse.Namespace) -> int:
    """Carry out the chosen action."""
    if args.action == "text":
        return _predict_text(args)
    return _predict_images(args)


def _predict_text(args: argparse.Namespace) -> int:
    from vsa_core.language import tag_of

    if args.language is not None and tag_of(args.language) is None:
        raise UsageError(f"--language is {args.language!r}: give a tag, as en or pt-BR")
    backend = _backend(args, "text")
    if args.file == "-":
        _write_texts(backend, sys.stdin.buffer, args.language)
        return OK
    try:
        with Path(args.file).open("rb") as file:
            _write_texts(backend, file, args.language)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise SourceError(f"{args.file} cannot be read: {error.strerror or error}") from error
    return OK


def _write_texts(backend: Backend, file: BinaryIO, language: str | None) -> None:
    for batch in _batches(file, backend.batch_size):
        for result in _of_texts(backend, batch, language):
            _write_line(result)
        sys.stdout.flush()


def _batches(file: BinaryIO, size: int) -> Iterator[list[str]]:
    """Lines that are not empty, at most `size` at once, as soon as they come in."""
    held = bytearray()
    # `read1` gives what is there, so that a person or a program that waits gets its answer.
    while block := file.read1(_READ_BYTES):  # type: ignore[attr-defined]
        held += block
        *lines, rest = held.split(b"\n")
        held = rest[:_MAX_LINE_BYTES]
        texts = [text for line in lines if (text := _decoded(line))]
        for start in range(0, len(texts), size):
            yield texts[start : start + size]
    if text := _decoded(held):
        yield [text]


def _decoded(line: bytearray) -> str:
    return bytes(line).decode("utf-8", errors="replace").lstrip("\ufeff").strip()


def _of_texts(backend: Backend, texts: list[str], language: str | None) -> list[dict[str, Any]]:
    from vsa_core.backends import Clip
    from vsa_core.language import detect

    clips = [
        Clip(f"line-{n}", start_ms=0, end_ms=0, text=text, language=language or detect(text))
        for n, text in enumerate(texts)
    ]
    results = [{"text": text, **_named(None, None)} for text in texts]
    samples: dict[int, Any] = {}
    for n, clip in enumerate(clips):
        try:
            sample = backend.read(clip)
        except LanguageNotSpoken as error:
            results[n]["note"] = str(error)
        else:
            if sample is not None:
                samples[n] = sample
    present = list(samples)
    if present:
        said = backend.predict(list(samples.values()))
        for row, n in enumerate(present):
            sentiment = None if said.sentiment_probs is None else said.sentiment_probs[row]
            emotion = None if said.emotion_probs is None else said.emotion_probs[row]
            results[n] |= _named(sentiment, emotion)
    return results


def _predict_images(args: argparse.Namespace) -> int:
    from vsa_core.backends import FaceWatcher

    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # our own errors say what is wrong
    backend = _backend(args, "face")
    if not isinstance(backend, FaceWatcher):
        raise ConfigError(f"the face model {backend.id} looks at videos only: choose another")
    there(*args.files)
    code = OK
    for path in args.files:
        try:
            rgb = _read_image(path)
        except MediaError as error:
            _write_line({"image": str(path), "error": str(error)})
            code = SOME_FAILED
        else:
            height, width = rgb.shape[:2]
            faces = list(_of_faces(backend.look(rgb)))
            _write_line({"image": str(path), "width": width, "height": height, "faces": faces})
        sys.stdout.flush()
    return code


def _read_image(path: Path) -> NDArray[np.uint8]:
    """The first picture of a file, upright.

    Returns:
        (height, width, 3) RGB.

    Raises:
        MediaError: no file, no picture in it, or one too large.
    """
    import warnings

    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    from vsa_core.media import MAX_FRAME_PX

    Image.init()
    formats = [name for name in _IMAGE_FORMATS if name in Image.OPEN]  # as Pillow was built
    try:
        # Pillow's warnings are of bombs, which are refused below, and of odd metadata.
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(path, formats=formats) as image,
        ):
            width, height = image.size
            if width * height > MAX_FRAME_PX:
                raise MediaError(
                    f"{path} has {width}×{height} px, over the limit of "
                    f"{MAX_FRAME_PX // 1_000_000} megapixels: make it smaller"
                )
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):  # 16 bits of grey, which `convert` would cut off
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            return np.asarray(upright.convert("RGB"))
    except MediaError:
        raise
    except UnidentifiedImageError as error:
        raise MediaError(f"{path} is no picture of a kind that is known") from error
    except Exception as error:  # on a torn file Pillow's decoders raise anything
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"{path} cannot be read: {reason}") from error


def _of_faces(faces: Faces) -> Iterator[dict[str, Any]]:
    from vsa_core.labels import sentiment_from_emotion

    sentiment_probs = sentiment_from_emotion(faces.emotion_probs)
    for row in range(len(faces.score)):
        yield {
            "box": faces.box_px[row].tolist(),
            "score": _rounded(faces.score[row]),
            **_named(sentiment_probs[row], faces.emotion_probs[row]),
        }


def _backend(args: argparse.Namespace, modality: str) -> Backend:
    from vsa_core.backends import load_backend
    from vsa_core.config import load_config
    from vsa_core.labels import Modality

    settings = load_config(args.config, args.profile)
    model = settings.backends.get(Modality(modality))
    if model is None:
        raise ConfigError(
            f"profile {settings.profile} has no {modality} model: choose one with --profile"
        )
    return load_backend(model.name, model.options)


def _named(
    sentiment_probs: NDArray[np.float32] | None, emotion_probs: NDArray[np.float32] | None
) -> dict[str, Any]:
    """Labels and probabilities by name; null where the model abstains."""
    from vsa_core.labels import EMOTIONS, SENTIMENTS

    sentiment, sentiments = _decided(SENTIMENTS, sentiment_probs)
    emotion, emotions = _decided(EMOTIONS, emotion_probs)
    return {
        "sentiment": sentiment,
        "sentiment_probs": sentiments,
        "emotion": emotion,
        "emotion_probs": emotions,
    }


def _decided(
    labels: Iterable[str], probs: NDArray[np.float32] | None
) -> tuple[str | None, dict[str, float] | None]:
    import numpy as np

    if probs is None or not np.isfinite(probs).all():
        return None, None
    by_name = {str(label): _rounded(p) for label, p in zip(labels, probs, strict=True)}
    return max(by_name, key=lambda name: by_name[name]), by_name


def _rounded(number: Any) -> float:
    return round(float(number), 6)


def _write_line(result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(result, ensure_ascii=False, allow_nan=False) + "\n")
