"""A transformers checkpoint on disk: its files, the names of its classes, and what is refused.

A checkpoint is a folder in the layout of the Hugging Face Hub: `config.json`, the tokenizer's or
the feature extractor's files, and `model.safetensors` or `pytorch_model.bin`. It is untrusted.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsa_core.errors import BackendError
from vsa_core.weights import hub, resolve
from vsa_core.weights.hashes import digest

_CONFIG = "config.json"
_SAFETENSORS = "model.safetensors"
_PICKLE = "pytorch_model.bin"
# A larger configuration describes no network that anybody published; building one would hang.
_MOST = {
    "hidden_size": 16_384,
    "dim": 16_384,
    "intermediate_size": 131_072,
    "num_hidden_layers": 256,
    "n_layers": 256,
    "vocab_size": 2_000_000,
    "max_position_embeddings": 1_000_000,
    "num_labels": 10_000,
}
_MOST_CONFIG_BYTES = 8_000_000


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A transformers checkpoint on disk, checked; nothing of it is loaded.

    Attributes:
        folder: where it lies.
        weights: its weight files: one, or its shards.
        sha256: over the names and contents of configuration, tokenizer or feature extractor, and
            weights; the same wherever the folder lies.
        config: `config.json`.
        labels: the checkpoint's own names of its classes, by index; `LABEL_0`, `LABEL_1`, … where
            it names none; empty for an encoder without classes.
    """

    folder: Path
    weights: tuple[Path, ...]
    sha256: str
    config: Mapping[str, Any]
    labels: tuple[str, ...]


def find_checkpoint(reference: str) -> Checkpoint:
    """The checkpoint that an option `model:` names.

    Args:
        reference: a catalogue name, a folder, or `hf:ORG/NAME[@REVISION]`, as `weights.resolve`
            has them.

    Raises:
        BackendError: it is not here, a file is missing or broken, it wants code of its own run, or
            it is an adapter or quantised by another tool.
    """
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise BackendError(f"checkpoint {reference} needs {package}: pip install {package}")
    folder = resolve(reference)
    if not folder.is_dir():
        raise BackendError(
            f"checkpoint {folder} is no folder: give the one that holds {_CONFIG} and the weights"
        )
    config = _config(folder)
    files = _weight_files(folder)
    beside = [folder / name for name in sorted(hub.BESIDE) if (folder / name).is_file()]
    whole = hashlib.sha256()
    for file in (*beside, *files):
        whole.update(f"{digest(file)}  {file.name}\n".encode())
    return Checkpoint(folder, files, whole.hexdigest(), config, _labels(folder, config))


def _config(folder: Path) -> dict[str, Any]:
    if not (folder / _CONFIG).is_file():
        raise BackendError(
            f"checkpoint {folder} has no {_CONFIG}: it is no transformers checkpoint"
        )
    config = _json(folder / _CONFIG)
    if not isinstance(config.get("model_type"), str):
        raise BackendError(f"checkpoint {folder}: {_CONFIG} names no model_type: pull it again")
    for name in (
        _CONFIG,
        "tokenizer_config.json",
        "preprocessor_config.json",
        "processor_config.json",
    ):
        if (folder / name).is_file() and "auto_map" in _json(folder / name):
            raise BackendError(
                f"checkpoint {folder}: {name} asks for code of its own (auto_map), and a "
                "checkpoint's code is never run: use a checkpoint of a family transformers knows"
            )
    if "quantization_config" in config:
        raise BackendError(
            f"checkpoint {folder} is quantised by another tool: use the unquantised one, with "
            "precision: int8"
        )
    if (folder / "adapter_config.json").exists():
        raise BackendError(f"checkpoint {folder} is an adapter: merge it into its model first")
    for key, most in _MOST.items():
        value = config.get(key, 1)
        if not isinstance(value, int) or not 1 <= value <= most:
            raise BackendError(
                f"checkpoint {folder}: {key} is {value!r}, not 1 to {most}: pull it again"
            )
    return config


def _weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors file or its shards; where there is none, the pickle and its shards."""
    for name in (_SAFETENSORS, _PICKLE):
        if (folder / name).is_file():
            return (folder / name,)
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = _json(index).get("weight_map")
            names = sorted(set(map(str, shards.values()))) if isinstance(shards, dict) else []
            for shard in names:
                if Path(shard).name != shard or not (folder / shard).is_file():
                    raise BackendError(f"checkpoint {folder} lacks its shard {shard!r}: pull again")
            if names:
                return (index, *(folder / shard for shard in names))
    raise BackendError(
        f"checkpoint {folder} has no weights: put {_SAFETENSORS} (or {_PICKLE}) beside {_CONFIG}"
    )


def _labels(folder: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    named = config.get("id2label")
    if named is None:
        classifies = any(
            "Classification" in str(name) for name in config.get("architectures") or ()
        )
        return tuple(f"LABEL_{i}" for i in range(config.get("num_labels", 2) if classifies else 0))
    indices = [str(i) for i in range(len(named))] if isinstance(named, dict) else []
    if not indices or set(named) != set(indices):
        raise BackendError(f"checkpoint {folder}: id2label is not numbered from 0: pull it again")
    return tuple(str(named[index]).strip() for index in indices)


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_CONFIG_BYTES and path.name == _CONFIG:
            raise ValueError(f"of {path.stat().st_size} bytes")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BackendError(f"{path} cannot be read ({error}): pull it again") from error
    if not isinstance(values, dict):
        raise BackendError(f"{path} holds no settings: pull it again")
    return values
