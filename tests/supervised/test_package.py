"""A model's folder: what is written is what is loaded, and nothing else is."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.small_supervised import network
from vsa_core.backends.int8 import quantise
from vsa_core.errors import BackendError
from vsa_core.supervised.exporting import made_batch, prune
from vsa_core.supervised.model import MultimodalNet
from vsa_core.supervised.package import load_package, save_package
from vsa_core.supervised.recipe import Recipe


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[MultimodalNet, Recipe, Path]:
    """A network, its recipe and its package, of which the checkpoint is gone."""
    folder = tmp_path_factory.mktemp("package")
    net, recipe = network(folder / "checkpoint")
    save_package(folder / "model", net, recipe, {"data": "a test", "metrics": {"f1": 0.5}})
    shutil.rmtree(folder / "checkpoint")
    return net, recipe, folder / "model"


@pytest.fixture
def copy(trained: tuple[MultimodalNet, Recipe, Path], tmp_path: Path) -> Path:
    return shutil.copytree(trained[2], tmp_path / "copy")


def _logits(net: MultimodalNet, recipe: Recipe) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat(list(net(made_batch(net, recipe, 4, 12, 80)).values()), dim=1)


def _edited(folder: Path, name: str, **changed: Any) -> None:
    """Change a JSON file, and the card as somebody would who hands on a model of his own."""
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    if name != "card.json":
        files = json.loads((folder / "card.json").read_text())["files"]
        files[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        _edited(folder, "card.json", files=files)


def test_what_was_saved_is_loaded_without_the_checkpoint(
    trained: tuple[MultimodalNet, Recipe, Path],
) -> None:
    net, recipe, folder = trained
    loaded, found, card = load_package(folder)
    assert torch.equal(_logits(loaded, found), _logits(net, recipe))
    assert not loaded.training
    assert found.fusion == recipe.fusion
    assert card["about"]["metrics"] == {"f1": 0.5}
    assert card["targets"]["sentiment"] == ["negative", "neutral", "positive"]
    assert {"model.safetensors", "recipe.json", "text/config.json"} < set(card["files"])
    told = (folder / "recipe.json").read_text() + (folder / "text/config.json").read_text()
    assert str(folder.parent) not in told  # no place of the machine it was trained on


def test_saved_again_from_the_package_it_is_the_same(
    trained: tuple[MultimodalNet, Recipe, Path], tmp_path: Path
) -> None:
    net, recipe, card = load_package(trained[2])
    again = save_package(tmp_path / "again", net, recipe, card["about"])
    same = ("model.safetensors", "text/config.json", "text/vocab.txt")
    assert all(again["files"][name] == card["files"][name] for name in same)


def test_int8_is_what_quantising_gives_and_smaller(
    trained: tuple[MultimodalNet, Recipe, Path], tmp_path: Path
) -> None:
    net, recipe = load_package(trained[2])[:2]
    save_package(tmp_path, net, recipe, {}, stored="int8")
    loaded, found, _ = load_package(tmp_path)
    quantise(net.encoders)
    torch.testing.assert_close(_logits(loaded, found), _logits(net, recipe), atol=1e-4, rtol=0)
    assert not torch.equal(_logits(loaded, found), _logits(trained[0], trained[1]))
    assert _size(tmp_path) < _size(trained[2])


def test_pruned_comes_back_bit_for_bit_and_smaller(
    trained: tuple[MultimodalNet, Recipe, Path], tmp_path: Path
) -> None:
    net, recipe = load_package(trained[2])[:2]
    zeros = prune(net, 0.5)
    assert 0.45 < zeros < 0.55
    save_package(tmp_path, net, recipe, {}, stored="sparse")
    loaded, found, _ = load_package(tmp_path)
    assert torch.equal(_logits(loaded, found), _logits(net, recipe))
    assert _size(tmp_path) < 0.6 * _size(trained[2])


def _size(folder: Path) -> int:
    return (folder / "model.safetensors").stat().st_size


@pytest.mark.parametrize("name", ["model.safetensors", "recipe.json", "text/config.json"])
def test_an_altered_file_is_refused(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[-3] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BackendError, match=f"{name} is not the file the card describes"):
        load_package(copy)


def test_what_is_missing_or_of_another_format_is_refused(copy: Path) -> None:
    (copy / "text/vocab.txt").unlink()
    with pytest.raises(BackendError, match=r"lacks its file 'text/vocab.txt'"):
        load_package(copy)
    _edited(copy, "card.json", format_version=99)
    with pytest.raises(BackendError, match="version 99"):
        load_package(copy)
    (copy / "card.json").unlink()
    with pytest.raises(BackendError, match="no model"):
        load_package(copy)


def test_files_outside_the_folder_are_refused(copy: Path) -> None:
    outside = copy.parent / "outside"
    outside.write_text("x")
    _edited(copy, "card.json", files={"../outside": hashlib.sha256(b"x").hexdigest()})
    with pytest.raises(BackendError, match="lacks its file"):
        load_package(copy)


def test_weights_of_another_network_are_refused(copy: Path) -> None:
    recipe = json.loads((copy / "recipe.json").read_text())
    _edited(copy, "recipe.json", fusion=recipe["fusion"] | {"width": 24})
    with pytest.raises(BackendError, match=r"is \(16.*, not \(24"):
        load_package(copy)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"auto_map": {"AutoModel": "a--b.C"}}, "code of its own"),
        ({"vocab_size": 10**12}, "word_embeddings"),
    ],
)
def test_settings_that_no_encoder_has_are_refused(
    copy: Path, changed: dict[str, Any], said: str
) -> None:
    _edited(copy, "text/config.json", **changed)
    with pytest.raises(BackendError, match=said):
        load_package(copy)
