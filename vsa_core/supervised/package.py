"""A trained model as a folder: weights, recipe, encoders' settings, tokenizer, and a card

    model.safetensors    all weights, as `stored` in the card says
    recipe.json          the recipe; checkpoints and weights by their last names
    text/, audio/        settings of a transformer, and the text's tokenizer
    card.json            what the model is, what it learned from, and the hash of every file; last

Nothing else is needed to load it, and no code or pickle is in it. It is untrusted: whoever loads it
checks every file against the card, and the weights against what the recipe describes, before a
network is made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vsa_core import __version__
from vsa_core.errors import BackendError, ConfigError
from vsa_core.supervised.encoders import PACKAGE_CARD, checkpoint_folder, make_encoders
from vsa_core.supervised.model import MultimodalNet
from vsa_core.supervised.recipe import Recipe, recipe_of
from vsa_core.supervised.utterances import TARGETS
from vsa_core.supervised.weight_file import STORED, packed, unpacked
from vsa_core.weights.hashes import digest
from vsa_core.weights.hub import BESIDE
from vsa_core.whole_files import put_whole

FORMAT, FORMAT_VERSION = "vsa-supervised", 1
WEIGHTS, RECIPE, CONFIG = "model.safetensors", "recipe.json", "config.json"
# A card or a configuration that is larger describes no model of ours.
_MOST_BYTES = 8_000_000
_MOST_LAYERS = 256


def save_package(
    folder: Path,
    net: MultimodalNet,
    recipe: Recipe,
    about: Mapping[str, Any],
    *,
    stored: str = "float32",
    tokenizer: Path | None = None,
) -> dict[str, Any]:
    """Write a model's folder; a model that stands there is replaced.

    Args:
        folder: made if it is not there.
        net: in float32; it stays as it is.
        recipe: that made it.
        about: what is said of it in the card, such as `data` and `metrics`; JSON-able.
        stored: how weights are written, one of `STORED`.
        tokenizer: the folder that holds the text's tokenizer; None for the recipe's checkpoint.

    Returns:
        The card.

    Raises:
        BackendError: the folder cannot be written, or the tokenizer is not here.
    """
    from safetensors.torch import save

    linear = _linear_weights(net)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PACKAGE_CARD).unlink(missing_ok=True)
        weights = {name: x.detach().cpu() for name, x in net.state_dict().items()}
        put_whole(folder / WEIGHTS, save(packed(weights, stored, linear), {"format": "pt"}))
        files = [WEIGHTS, *write_settings(folder, net, recipe, tokenizer)]
        return write_card(folder, FORMAT, net, recipe, about, files, stored=stored)
    except OSError as error:
        raise BackendError(
            f"model {folder} cannot be written: {error.strerror or error}: choose another folder"
        ) from error


def load_package(folder: Path) -> tuple[MultimodalNet, Recipe, dict[str, Any]]:
    """The network in evaluation mode on the CPU, its recipe, and its card.

    In the recipe checkpoints are the folders in the package, and weights of pictures are null.

    Raises:
        BackendError: it is no model, of a format that is not known, or a file is missing, altered
            or does not fit the others.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    card = read_card(folder, FORMAT)
    stored = card.get("stored")
    if stored not in STORED:
        raise BackendError(f"model {folder}: weights are stored as {stored!r}: update vsa")
    recipe = packaged_recipe(folder)
    files = card["files"]
    if WEIGHTS not in files:
        raise BackendError(f"model {folder}: the card names no {WEIGHTS}: get the model again")
    try:
        # Where a tensor is only a shape, what the recipe describes takes no memory.
        with torch.device("meta"):
            described = MultimodalNet(recipe, make_encoders(recipe.encoders, pretrained=False))
        weights = unpacked(load_file(folder / WEIGHTS), described.state_dict(), stored)
        net = MultimodalNet(recipe, make_encoders(recipe.encoders, pretrained=False))
        net.load_state_dict(weights)
    except BackendError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BackendError(f"model {folder} cannot be loaded: {reason}: get it again") from error
    if stored == "int8":
        from vsa_core.backends.int8 import quantise

        quantise(net.encoders)
    return net.eval(), recipe, card


def read_card(folder: Path, expected: str) -> dict[str, Any]:
    """The card of a folder, after every file was checked against it.

    Args:
        folder: of a model.
        expected: the format.

    Raises:
        BackendError: as `load_package`.
    """
    values = _read(folder / PACKAGE_CARD, folder)
    found, version = values.get("format"), values.get("format_version")
    if found != expected or version != FORMAT_VERSION:
        raise BackendError(
            f"model {folder} is of format {found!r}, version {version!r}, not {expected} "
            f"{FORMAT_VERSION}: use a vsa that knows it, or another model"
        )
    files = values.get("files")
    if not isinstance(files, dict) or not files:
        raise BackendError(f"model {folder}: the card names no files: get the model again")
    root = folder.resolve()
    for name, sha256 in files.items():
        file = folder / name
        if not file.resolve().is_relative_to(root) or not file.is_file():
            raise BackendError(f"model {folder} lacks its file {name!r}: get the model again")
        if digest(file) != sha256:
            raise BackendError(
                f"model {folder}: {name} is not the file the card describes (SHA-256 differs): "
                "get the model again"
            )
    return values


def write_settings(
    folder: Path, net: MultimodalNet, recipe: Recipe, tokenizer: Path | None
) -> list[str]:
    """Write what stands beside the weights, whatever these are; returns the names of the files.

    Args:
        folder, net, recipe, tokenizer: as `save_package` has them.

    Raises:
        BackendError: the tokenizer is not here.
        OSError: the folder cannot be written.
    """
    put_whole(folder / RECIPE, _json(_portable(recipe)))
    files = [RECIPE]
    for name, backbone in _transformers(net).items():
        (folder / name).mkdir(exist_ok=True)
        put_whole(folder / name / CONFIG, _json(_settings(backbone)))
        files.append(f"{name}/{CONFIG}")
    if recipe.encoders.text is not None:
        source = tokenizer or checkpoint_folder(recipe.encoders.text.checkpoint)
        for name in sorted(BESIDE - {CONFIG}):
            if (source / name).is_file():
                put_whole(folder / "text" / name, (source / name).read_bytes())
                files.append(f"text/{name}")
    return files


def write_card(
    folder: Path,
    kind: str,
    net: MultimodalNet,
    recipe: Recipe,
    about: Mapping[str, Any],
    files: Sequence[str],
    **more: Any,
) -> dict[str, Any]:
    """Put the card in its place, the last of all files; returns it.

    Args:
        folder: of the model.
        kind: its format.
        net, recipe, about: as `save_package` has them.
        files: names of all others.
        **more: what only this format says.

    Raises:
        OSError: the folder cannot be written.
    """
    card = {
        "format": kind,
        "format_version": FORMAT_VERSION,
        "vsa_version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **more,
        "modalities": list(net.modalities),
        "targets": {target: list(TARGETS[target]) for target in recipe.targets},
        "parameters": sum(p.numel() for p in net.parameters()),
        "about": dict(about),
        "files": {name: digest(folder / name) for name in files},
    }
    put_whole(folder / PACKAGE_CARD, _json(card))
    return card


def packaged_recipe(folder: Path) -> Recipe:
    """The recipe of a checked folder, its checkpoints being the folders in it.

    Raises:
        BackendError: it does not read, or asks for an encoder the folder has no settings of.
    """
    recipe = recipe_as_named(folder)
    encoders = recipe.encoders
    changed: dict[str, Any] = {}
    if encoders.text is not None:
        place = _checked(folder, "text")
        changed["text"] = encoders.text.model_copy(update={"checkpoint": place})
    if encoders.video is not None:
        changed["video"] = encoders.video.model_copy(update={"weights": None})
    if encoders.audio is not None and encoders.audio.network == "wav2vec2":
        place = _checked(folder, "audio")
        changed["audio"] = encoders.audio.model_copy(update={"checkpoint": place})
    return recipe.model_copy(update={"encoders": encoders.model_copy(update=changed)})


def recipe_as_named(folder: Path) -> Recipe:
    """The recipe of a folder as it is written, checkpoints by their names.

    Raises:
        BackendError: it does not read.
    """
    try:
        return recipe_of(_read(folder / RECIPE, folder), str(folder / RECIPE))
    except ConfigError as error:
        raise BackendError(f"{error}: get the model again") from error


def _checked(folder: Path, name: str) -> str:
    """The folder of an encoder's settings, which describe a network one can make."""
    place = folder.resolve() / name
    values = _read(place / CONFIG, folder)
    for key in ("num_hidden_layers", "n_layers"):
        layers = values.get(key, 1)
        if not isinstance(layers, int) or not 1 <= layers <= _MOST_LAYERS:
            raise BackendError(
                f"model {folder}: {name}/{CONFIG}: {key} is {layers!r}: get it again"
            )
    if "auto_map" in values:
        raise BackendError(f"model {folder}: {name}/{CONFIG} asks for code of its own: refused")
    return str(place)


def _transformers(net: MultimodalNet) -> dict[str, nn.Module]:
    """Networks of transformers among the encoders, by modality."""
    found = {name: getattr(encoder, "backbone", None) for name, encoder in net.encoders.items()}
    return {name: x for name, x in found.items() if x is not None and hasattr(x, "config")}


def _linear_weights(net: MultimodalNet) -> set[str]:
    """Names of the weights that `quantise` brings to 8 bits."""
    return {
        f"encoders.{name}.weight"
        for name, module in net.encoders.named_modules()
        if type(module) is nn.Linear
    }


def _settings(backbone: nn.Module) -> dict[str, Any]:
    values: dict[str, Any] = backbone.config.to_dict()  # type: ignore[union-attr,operator]
    return {key: value for key, value in values.items() if key not in ("_name_or_path", "auto_map")}


def _portable(recipe: Recipe) -> dict[str, Any]:
    """The recipe without the places of a machine."""
    values = recipe.model_dump(mode="json")
    for encoder, key in (("text", "checkpoint"), ("video", "weights"), ("audio", "checkpoint")):
        settings = values["encoders"][encoder]
        if settings and settings[key] and Path(settings[key]).exists():
            settings[key] = Path(settings[key]).name
    return values


def _read(path: Path, folder: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has {path.stat().st_size:,} bytes")
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it holds no settings")
    except FileNotFoundError as error:
        raise BackendError(
            f"{folder} is no model, or not a whole one: {path} is missing: get the model again"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise BackendError(f"{path} cannot be read ({error}): get the model again") from error
    return values


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False, default=str) + "\n").encode()
