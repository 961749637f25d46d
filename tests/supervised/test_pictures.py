"""Picture encoders against the published definitions, computed here from torchvision's names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vsa_core.errors import BackendError
from vsa_core.supervised.encoders import load_weights
from vsa_core.supervised.pictures import R3D18, VGG16, ResNet

State = dict[str, Tensor]


def conv(state: State, name: str, shape: tuple[int, ...], bias: bool = False) -> None:
    fan = torch.tensor(shape[1:]).prod().item()
    state[f"{name}.weight"] = torch.randn(shape) * (2 / fan) ** 0.5
    if bias:
        state[f"{name}.bias"] = 0.1 * torch.randn(shape[0])


def norm(state: State, name: str, width: int) -> None:
    state[f"{name}.weight"] = 1 + 0.1 * torch.randn(width)
    state[f"{name}.bias"] = 0.1 * torch.randn(width)
    state[f"{name}.running_mean"] = 0.1 * torch.randn(width)
    state[f"{name}.running_var"] = 1 + torch.rand(width)
    state[f"{name}.num_batches_tracked"] = torch.tensor(7)


def normed(state: State, name: str, x: Tensor) -> Tensor:
    of = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(x, *of)


# --- R3D-18: Tran et al. 2018, Table 1; names of torchvision.models.video.r3d_18 ------------


def r3d_state() -> State:
    state: State = {}
    conv(state, "stem.0", (64, 3, 3, 7, 7))
    norm(state, "stem.1", 64)
    inside = 64
    for layer, width in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            name = f"layer{layer}.{block}"
            conv(state, f"{name}.conv1.0", (width, inside, 3, 3, 3))
            norm(state, f"{name}.conv1.1", width)
            conv(state, f"{name}.conv2.0", (width, width, 3, 3, 3))
            norm(state, f"{name}.conv2.1", width)
            if inside != width:
                conv(state, f"{name}.downsample.0", (width, inside, 1, 1, 1))
                norm(state, f"{name}.downsample.1", width)
            inside = width
    conv(state, "fc", (400, 512), bias=True)
    return state


def r3d(state: State, clip: Tensor) -> Tensor:
    x = F.conv3d(clip, state["stem.0.weight"], stride=(1, 2, 2), padding=(1, 3, 3))
    x = normed(state, "stem.1", x).relu()
    for layer in range(1, 5):
        for block in range(2):
            name = f"layer{layer}.{block}"
            stride = 2 if layer > 1 and block == 0 else 1
            y = F.conv3d(x, state[f"{name}.conv1.0.weight"], stride=stride, padding=1)
            y = normed(state, f"{name}.conv1.1", y).relu()
            y = F.conv3d(y, state[f"{name}.conv2.0.weight"], padding=1)
            y = normed(state, f"{name}.conv2.1", y)
            if f"{name}.downsample.0.weight" in state:
                x = F.conv3d(x, state[f"{name}.downsample.0.weight"], stride=stride)
                x = normed(state, f"{name}.downsample.1", x)
            x = (x + y).relu()
    pooled = F.adaptive_avg_pool3d(x, 1).flatten(1)
    return F.linear(pooled, state["fc.weight"], state["fc.bias"])


def test_r3d18_takes_torchvisions_weights_and_computes_the_published_network() -> None:
    torch.manual_seed(0)
    state, clip = r3d_state(), torch.randn(2, 3, 8, 48, 40)
    network = R3D18(classifier=True).eval()
    network.load_state_dict(state)
    with torch.inference_mode():
        assert torch.allclose(network(clip), r3d(state, clip), rtol=1e-4, atol=1e-4)


# --- ResNet: He et al. 2016, Table 1; names of torchvision.models.resnet18 and resnet50 -----


def resnet_state(depth: int) -> State:
    state: State = {}
    conv(state, "conv1", (64, 3, 7, 7))
    norm(state, "bn1", 64)
    inside = 64
    counts = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth]
    for layer, (count, width) in enumerate(zip(counts, (64, 128, 256, 512), strict=True), 1):
        outside = width if depth == 18 else 4 * width
        for block in range(count):
            name = f"layer{layer}.{block}"
            shapes = (
                [(width, inside, 3, 3), (width, width, 3, 3)]
                if depth == 18
                else [(width, inside, 1, 1), (width, width, 3, 3), (outside, width, 1, 1)]
            )
            for number, shape in enumerate(shapes, 1):
                conv(state, f"{name}.conv{number}", shape)
                norm(state, f"{name}.bn{number}", shape[0])
            if block == 0 and inside != outside:
                conv(state, f"{name}.downsample.0", (outside, inside, 1, 1))
                norm(state, f"{name}.downsample.1", outside)
            inside = outside
    conv(state, "fc", (1000, inside), bias=True)
    return state


def resnet(state: State, frames: Tensor, depth: int) -> Tensor:
    x = normed(state, "bn1", F.conv2d(frames, state["conv1.weight"], stride=2, padding=3)).relu()
    x = F.max_pool2d(x, 3, 2, padding=1)
    for layer, count in enumerate({18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth], 1):
        for block in range(count):
            name = f"layer{layer}.{block}"
            stride = 2 if layer > 1 and block == 0 else 1
            strides = (stride, 1) if depth == 18 else (1, stride, 1)
            y = x
            for number, by in enumerate(strides, 1):
                weight = state[f"{name}.conv{number}.weight"]
                y = F.conv2d(y, weight, stride=by, padding=weight.shape[-1] // 2)
                y = normed(state, f"{name}.bn{number}", y)
                y = y.relu() if number < len(strides) else y
            if f"{name}.downsample.0.weight" in state:
                x = F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride)
                x = normed(state, f"{name}.downsample.1", x)
            x = (x + y).relu()
    return F.linear(x.mean(dim=(2, 3)), state["fc.weight"], state["fc.bias"])


@pytest.mark.parametrize("depth", [18, 50])
def test_resnet_takes_torchvisions_weights_and_computes_the_published_network(depth: int) -> None:
    torch.manual_seed(0)
    state, frames = resnet_state(depth), torch.randn(2, 3, 64, 48)
    network = ResNet(depth, classifier=True).eval()
    network.load_state_dict(state)
    with torch.inference_mode():
        assert torch.allclose(network(frames), resnet(state, frames, depth), rtol=1e-4, atol=1e-3)


# --- VGG16: Simonyan and Zisserman 2015, column D; names of torchvision.models.vgg16 --------


def vgg_state() -> State:
    state: State = {}
    at, inside = 0, 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            conv(state, f"features.{at}", (width, inside, 3, 3), bias=True)
            at, inside = at + 2, width
        at += 1
    return state


def test_vgg16_takes_torchvisions_weights_and_computes_the_published_network() -> None:
    torch.manual_seed(0)
    state, x = vgg_state(), torch.randn(1, 3, 64, 64)
    assert "features.28.weight" in state  # the last one of torchvision's
    network = VGG16().eval()
    network.load_state_dict(state)
    with torch.inference_mode():
        said = network.encode(x)
        at = 0
        for count in (2, 2, 3, 3, 3):
            for _ in range(count):
                of = state[f"features.{at}.weight"], state[f"features.{at}.bias"]
                x, at = F.conv2d(x, *of, padding=1).relu(), at + 2
            x, at = F.max_pool2d(x, 2), at + 1
        assert torch.allclose(said, x.mean(dim=(2, 3)), rtol=1e-4, atol=1e-4)


# --- files --------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_torchvisions_weights_fills_the_encoder(suffix: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    state, file = r3d_state(), tmp_path / f"r3d_18{suffix}"
    torch.save(state, file) if suffix == ".pth" else save_file(state, file)
    network = R3D18()
    load_weights(network, file)
    assert all(torch.equal(x, state[name]) for name, x in network.state_dict().items())


@pytest.mark.parametrize("content", [b"", b"no weights at all", None])
def test_a_file_that_holds_other_things_is_one_line(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "r3d_18.pth"
    torch.save(vgg_state(), file) if content is None else file.write_bytes(content)
    with pytest.raises(BackendError, match=r"holds no weights of this R3D18 .*torchvision") as told:
        load_weights(R3D18(), file)
    assert "\n" not in str(told.value)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(tmp_path / "ran"),)

    torch.save({"stem.0.weight": Bomb()}, tmp_path / "r3d.pth")
    with pytest.raises(BackendError, match="holds no weights"):
        load_weights(R3D18(), tmp_path / "r3d.pth")
    assert not (tmp_path / "ran").exists()
