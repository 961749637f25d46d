"""openai-whisper's `.pt` files, read without trust: no code runs, no false size is allocated."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vsa_core.errors import BackendError

# Smallest and largest value of each dimension; published models are well inside. The encoder
# cannot have another context: 30 s are 3000 frames, and a convolution halves them.
_DIMENSIONS = {
    "n_mels": (80, 128),
    "n_audio_ctx": (1500, 1500),
    "n_audio_state": (8, 2048),
    "n_audio_head": (1, 64),
    "n_audio_layer": (1, 64),
    "n_vocab": (51_864, 51_866),
    "n_text_ctx": (16, 448),
    "n_text_state": (8, 2048),
    "n_text_head": (1, 64),
    "n_text_layer": (1, 64),
}
_ENGLISH_VOCABULARY = 51_864
_NOT_LANGUAGES = 51_766  # tokens of the multilingual vocabulary
# The published models by layers of encoder and decoder, and mel bands.
_PUBLISHED = {
    (4, 4, 80): "tiny",
    (6, 6, 80): "base",
    (12, 12, 80): "small",
    (24, 24, 80): "medium",
    (32, 32, 80): "large-v2",
    (32, 32, 128): "large-v3",
    (32, 4, 128): "large-v3-turbo",
}


def read_dimensions(path: Path) -> dict[str, int]:
    """openai-whisper's record of a checkpoint's dimensions, after a look at all its weights.

    Raises:
        BackendError: not a Whisper checkpoint, or one with weights missing or of other shapes.
    """
    return read_checkpoint(path)[0]


def read_checkpoint(path: Path) -> tuple[dict[str, int], dict[str, Any]]:
    """Dimensions and state of a checkpoint that is sound.

    The state's tensors are mapped from the file: nothing of the size that the file tells of
    itself is allocated.

    Raises:
        BackendError: not a Whisper checkpoint, or one with weights missing or of other shapes.
    """
    found = _read(path)
    dims, state = (
        (found.get("dims"), found.get("model_state_dict"))
        if isinstance(found, dict)
        else (None, None)
    )
    if not isinstance(dims, dict) or not isinstance(state, dict):
        raise _unfit(path, "it has no dims and model_state_dict")
    _check_dimensions(path, dims)
    _check_state(path, dims, state)
    return dims, state


def _read(path: Path) -> Any:
    import torch

    if not path.is_file():
        raise _unfit(path, "no file")
    try:
        archive = zipfile.is_zipfile(path)
        if archive:
            with zipfile.ZipFile(path) as file:
                packed = sum(entry.file_size for entry in file.infolist()) > path.stat().st_size
            if packed:  # torch packs nothing; what unpacks may be of any size
                raise ValueError("packed")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except Exception as error:  # a broken pickle can raise anything
        raise _unfit(path, f"{type(error).__name__} in reading it") from error


def _check_dimensions(path: Path, dims: Mapping[str, Any]) -> None:
    if dims.keys() != _DIMENSIONS.keys():
        raise _unfit(path, "its dims are not Whisper's")
    for name, (least, most) in _DIMENSIONS.items():
        if type(dims[name]) is not int or not least <= dims[name] <= most:
            raise _unfit(path, f"its {name} is {dims[name]!r:.40}, not {least} to {most}")
    width, audio, text = (dims[f"n_{name}"] for name in ("audio_state", "audio_head", "text_head"))
    if (
        dims["n_mels"] not in _DIMENSIONS["n_mels"]
        or dims["n_text_state"] != width
        or any(width % divisor for divisor in (2, audio, text))
    ):
        raise _unfit(path, "its dims contradict one another")


def _check_state(path: Path, dims: Mapping[str, int], state: Mapping[Any, Any]) -> None:
    import torch
    from whisper.model import AudioEncoder, TextDecoder

    def sizes(first: str, part: str) -> list[int]:
        return [dims[first], *(dims[f"n_{part}_{n}"] for n in ("ctx", "state", "head", "layer"))]

    with torch.device("meta"):  # shapes without numbers
        parts = {
            "encoder": AudioEncoder(*sizes("n_mels", "audio")),
            "decoder": TextDecoder(*sizes("n_vocab", "text")),
        }
    expected = {
        f"{part}.{name}": value.shape
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }
    for name, shape in expected.items():
        value = state.get(name)
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            raise _unfit(path, f"it has no {name}")
        if value.shape != shape:
            raise _unfit(path, f"its {name} is {list(value.shape)}, not {list(shape)}")
    if extra := state.keys() - expected.keys():
        raise _unfit(path, f"it has what Whisper has not: {min(map(repr, extra)):.60}")
    # A view can show one number a billion times; an honest file has them all.
    if sum(shape.numel() for shape in expected.values()) > path.stat().st_size:
        raise _unfit(path, "it is smaller than its weights")


def _unfit(path: Path, reason: str) -> BackendError:
    return BackendError(
        f"{path} is no Whisper checkpoint ({reason}): give a .pt file of openai-whisper, or a "
        "name that `vsa models list` shows"
    )


def languages(dims: Mapping[str, int]) -> tuple[str, ...]:
    """Whisper's codes of the languages that a model of those dimensions speaks."""
    from whisper.tokenizer import LANGUAGES

    if dims["n_vocab"] == _ENGLISH_VOCABULARY:
        return ("en",)
    return tuple(LANGUAGES)[: dims["n_vocab"] - _NOT_LANGUAGES]


def alignment_heads(dims: Mapping[str, int]) -> bytes | None:
    """The heads that follow the words, as `Whisper.set_alignment_heads` takes them.

    The package tells a published model's by its name. The dimensions tell as much, and of a model
    trained on from one too; of large-v1, which they do not tell from large-v2, they tell the
    latter's. None for other models, of which the package takes the upper half of all heads.
    """
    import whisper

    name = _PUBLISHED.get((dims["n_audio_layer"], dims["n_text_layer"], dims["n_mels"]), "")
    if dims["n_vocab"] == _ENGLISH_VOCABULARY:
        name += ".en"
    heads: bytes | None = whisper._ALIGNMENT_HEADS.get(name)
    return heads
