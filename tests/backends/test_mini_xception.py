"""Keras files of this family: what is in them decides, and numpy says what must come out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from vsa_core.backends import face_mini_xception
from vsa_core.backends.mini_xception import FILE_CLASSES, load_network
from vsa_core.errors import BackendError
from vsa_core.labels import EMOTIONS
from vsa_core.media import probe

Weights = dict[str, dict[str, NDArray[np.float32]]]

# Layer → what it is and its output channels, as big_XCEPTION of oarriaga/face_classification
# creates them; convolutions are numbered on from `first`.
BIG = (
    ("conv2d", 32, 3),
    ("block1_conv1_bn", 32, 0),
    ("conv2d", 64, 3),
    ("block1_conv2_bn", 64, 0),
    ("conv2d", 128, 1),
    ("batch_normalization", 128, 0),
    ("separable_conv2d", 128, 3),
    ("block2_sepconv1_bn", 128, 0),
    ("separable_conv2d", 128, 3),
    ("block2_sepconv2_bn", 128, 0),
    ("conv2d", 256, 1),
    ("batch_normalization", 256, 0),
    ("separable_conv2d", 256, 3),
    ("block3_sepconv1_bn", 256, 0),
    ("separable_conv2d", 256, 3),
    ("block3_sepconv2_bn", 256, 0),
    ("conv2d", 7, 3),
)
# What each separable and shortcut convolution sees.
INPUTS = {"separable_conv2d": [64, 128, 128, 256], "conv2d": [1, 32, 64, 128, 256]}


def big_weights(seed: int = 0, first: int = 1) -> Weights:
    """Random weights of big_XCEPTION by layer name."""
    rng = np.random.default_rng(seed)
    count = dict.fromkeys(("conv2d", "separable_conv2d", "batch_normalization"), 0)
    layers: Weights = {}
    for kind, channels, side in BIG:
        name = kind
        if kind in count:
            name = f"{kind}_{first + count[kind]}"
            seen = INPUTS[kind][count[kind]] if kind in INPUTS else 0
            count[kind] += 1
        if side == 0:
            layers[name] = {
                "gamma": rng.uniform(0.5, 1.5, channels),
                "beta": rng.normal(0, 0.1, channels),
                "moving_mean": rng.normal(0, 0.1, channels),
                "moving_variance": rng.uniform(0.5, 1.5, channels),
            }
        elif kind == "conv2d":
            scale = (2 / (side * side * seen)) ** 0.5
            layers[name] = {"kernel": rng.normal(0, scale, (side, side, seen, channels))}
        else:
            layers[name] = {
                "depthwise_kernel": rng.normal(0, 0.4, (3, 3, seen, 1)),
                "pointwise_kernel": rng.normal(0, (2 / seen) ** 0.5, (1, 1, seen, channels)),
            }
    layers[name]["kernel"] *= 0.1  # so that the probabilities are not all 0 and 1
    layers[name]["bias"] = rng.normal(0, 0.5, 7)
    return {
        layer: {key: value.astype(np.float32) for key, value in arrays.items()}
        for layer, arrays in layers.items()
    }


def saved(path: Path, layers: Weights, side: int, shape_key: str = "batch_input_shape") -> Path:
    """A file as Keras's `model.save` lays it out."""
    config = {
        "class_name": "Model",
        "config": {
            "layers": [
                {"class_name": "InputLayer", "config": {shape_key: [None, side, side, 1]}},
                {"class_name": "Conv2D", "config": {"filters": 32}},
            ]
        },
    }
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config).encode()
        groups = file.create_group("model_weights")
        for layer, arrays in layers.items():
            group = groups.create_group(layer)
            names = [f"{layer}_1/{key}:0" for key in arrays]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, array in zip(names, arrays.values(), strict=True):
                group[name] = array
        groups.create_group("global_average_pooling2d_1").attrs["weight_names"] = []
    return path


# --- the same in numpy, (h, w, channels) as Keras has it ----------------------------------


def same_padding(maps: NDArray[np.float64], size: int, stride: int, fill: float) -> Any:
    """As TensorFlow pads: so that ceil(n / stride) come out, what is odd at the end."""
    margins = []
    for n in maps.shape[:2]:
        total = max((-(-n // stride) - 1) * stride + size - n, 0)
        margins.append((total // 2, total - total // 2))
    return np.pad(maps, (*margins, (0, 0)), constant_values=fill)


def convolved(
    maps: NDArray[np.float64], kernel: NDArray[Any], stride: int = 1, same: bool = True
) -> NDArray[np.float64]:
    size = kernel.shape[0]
    padded = same_padding(maps, size, stride, 0.0) if same else maps
    windows = sliding_window_view(padded, (size, size), (0, 1))[::stride, ::stride]
    return np.einsum("hwcij,ijco->hwo", windows, kernel.astype(np.float64), optimize=True)


def big_in_numpy(layers: Weights, grey: NDArray[np.uint8], first: int = 1) -> Any:
    """Probabilities in the file's order and the mean of the last 256 maps of one crop."""

    def conv(number: int, maps: Any, **how: Any) -> Any:
        return convolved(maps, layers[f"conv2d_{first + number}"]["kernel"], **how)

    def separable(number: int, maps: Any) -> Any:
        layer = layers[f"separable_conv2d_{first + number}"]
        windows = sliding_window_view(same_padding(maps, 3, 1, 0.0), (3, 3), (0, 1))
        deep = np.einsum("hwcij,ijc->hwc", windows, layer["depthwise_kernel"][..., 0])
        return deep @ layer["pointwise_kernel"][0, 0]

    def norm(layer: str, maps: Any) -> Any:
        one = layers[layer]
        scaled = (maps - one["moving_mean"]) / np.sqrt(one["moving_variance"] + 1e-3)
        return scaled * one["gamma"] + one["beta"]

    def relu(maps: Any) -> Any:
        return np.maximum(maps, 0)

    def pooled(maps: Any) -> Any:
        padded = same_padding(maps, 3, 2, -np.inf)
        return sliding_window_view(padded, (3, 3), (0, 1))[::2, ::2].max((-2, -1))

    x = ((grey.astype(np.float64) / 255 - 0.5) * 2)[..., None]
    x = relu(norm("block1_conv1_bn", conv(0, x, stride=2, same=False)))
    x = relu(norm("block1_conv2_bn", conv(1, x, same=False)))
    residual = norm(f"batch_normalization_{first}", conv(2, x, stride=2))
    x = relu(norm("block2_sepconv1_bn", separable(0, x)))
    x = pooled(norm("block2_sepconv2_bn", separable(1, x))) + residual
    residual = norm(f"batch_normalization_{first + 1}", conv(3, x, stride=2))
    x = relu(norm("block3_sepconv1_bn", separable(2, relu(x))))
    x = pooled(norm("block3_sepconv2_bn", separable(3, x))) + residual
    logits = (conv(4, x) + layers[f"conv2d_{first + 4}"]["bias"]).mean((0, 1))
    exps = np.exp(logits - logits.max())
    return exps / exps.sum(), x.mean((0, 1))


@pytest.mark.parametrize(
    ("side", "first", "key"),
    [(48, 1, "batch_input_shape"), (64, 1, "batch_input_shape"), (48, 9, "batch_shape")],
)
def test_big_xception_says_what_its_architecture_says(
    tmp_path: Path, side: int, first: int, key: str
) -> None:
    layers = big_weights(first=first)
    network, _ = load_network(saved(tmp_path / "big.hdf5", layers, side, key))
    assert (network.input_px, network.embedding_dim) == (side, 256)
    noise = np.random.default_rng(1).integers(0, 256, (3, side, side))
    crops = (noise * np.array([1, 0.5, 0.1])[:, None, None]).astype(np.uint8)
    probs, embedding = network.classify(crops)
    order = [FILE_CLASSES.index(emotion) for emotion in EMOTIONS]
    for row, crop in enumerate(crops):
        due_probs, due_embedding = big_in_numpy(layers, crop, first)
        np.testing.assert_allclose(probs[row], due_probs[order], atol=1e-4)
        np.testing.assert_allclose(embedding[row], due_embedding, atol=1e-3)
    assert np.ptp(probs, axis=0).max() > 0.01  # it looks at the crops


def test_the_face_backend_reads_with_it(shared: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "big.hdf5", big_weights(), 48)
    backend = face_mini_xception.load(weights=path)
    faces = backend.watch(probe(shared / "clips" / "pyfeat_single_face.mp4"))
    assert backend.dim == 256
    assert faces.embedding.shape == (len(faces.time_ms), 256)
    assert len(faces.time_ms) >= 5
    np.testing.assert_allclose(faces.emotion_probs.sum(axis=1), 1, atol=1e-5)
    assert backend.id != face_mini_xception.load().id


def without(layer: str) -> Callable[[Weights], None]:
    return lambda layers: layers.pop(layer) and None


def two_classes(layers: Weights) -> None:
    """As the authors' network that tells women from men."""
    layers["conv2d_5"] = {"kernel": np.zeros((3, 3, 256, 2), "f4"), "bias": np.zeros(2, "f4")}


@pytest.mark.parametrize(
    ("change", "side", "reason"),
    [
        (without("separable_conv2d_4"), 48, "5 convolutions and 3 separable ones"),
        (without("block3_sepconv1_bn"), 48, "block3_sepconv1_bn"),
        (two_classes, 48, "index"),
        (lambda _: None, 4096, "not a grey square"),
    ],
)
def test_another_architecture_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[Weights], None], side: int, reason: str
) -> None:
    layers = big_weights()
    change(layers)
    path = saved(tmp_path / "other.hdf5", layers, side)
    with pytest.raises(BackendError, match=rf"other\.hdf5.*{reason}") as refused:
        load_network(path)
    assert "\n" not in str(refused.value)
