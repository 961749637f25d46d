"""The encoders of a supervised model: text, picture and voice to sequences of one width

Each gives a sequence with a mask, and a summary of it. Padding never reaches a summary: it is
masked, and a convolution over the spectrogram sees silence's own value in its place.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vsa_core.errors import BackendError
from vsa_core.supervised.pictures import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    KINETICS_MEAN,
    KINETICS_STD,
    R3D18,
    VGG16,
    ResNet,
    normalised,
)
from vsa_core.supervised.recipe import Audio, Encoders, Video

# Of torchvision's networks: what comes after the features.
_PARAMETERS_OF_CLASSES = ("fc.", "classifier.", "avgpool.")
# A packaged model's card; beside it stand the folders of its encoders.
PACKAGE_CARD = "card.json"


@dataclass(frozen=True, slots=True)
class Encoded:
    """What an encoder makes of B utterances.

    Attributes:
        sequence: (B, L, width).
        mask: (B, L) bool, where the sequence holds something.
        summary: (B, width).
    """

    sequence: Tensor
    mask: Tensor
    summary: Tensor


class _Projection(nn.Module):
    """A width to the common one."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inside, outside)
        self.norm = nn.LayerNorm(outside)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inside) → (..., outside)."""
        return self.norm(nn.functional.gelu(self.linear(x)))


class TextEncoder(nn.Module):
    """A transformers encoder over an utterance and what was said before it.

    The summary joins the state of the first token, which has seen the dialogue, and the mean over
    the utterance's own tokens.

    Args:
        width: of what it gives.
        backbone: the network, as transformers' AutoModel makes it.
    """

    def __init__(self, width: int, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        dim: int = backbone.config.hidden_size  # type: ignore[union-attr,assignment]
        self._types = int(getattr(backbone.config, "type_vocab_size", 0) or 0) > 1
        self.sequence = _Projection(dim, width)
        self.summary = _Projection(2 * dim, width)

    def forward(self, tokens: Tensor, mask: Tensor, own: Tensor) -> Encoded:
        """What B utterances come to.

        Args:
            tokens: (B, L) ids.
            mask: (B, L) bool, where there is a token.
            own: (B, L) bool, which of them are the utterance's own.
        """
        inputs = {"input_ids": tokens, "attention_mask": mask.long()}
        if self._types:
            inputs["token_type_ids"] = own.long()
        states = self.backbone(**inputs).last_hidden_state
        summary = torch.cat([states[:, 0], masked_mean(states, own)], dim=1)
        return Encoded(self.sequence(states), mask, self.summary(summary))

    def blocks(self) -> list[nn.Module]:
        """Its layers, the last one last."""
        return _transformer_blocks(self.backbone)


class ClipEncoder(nn.Module):
    """R3D-18 over all frames at once; the sequence has one place for each eighth of time.

    Args:
        width: of what it gives.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.backbone = R3D18()
        self.sequence = _Projection(R3D18.dim, width)

    def forward(self, frames: Tensor, mask: Tensor) -> Encoded:
        """What B clips come to.

        Args:
            frames: (B, T, 3, H, W) RGB in [0, 1].
            mask: (B, T) bool, where there is a frame: all of a clip's, or none.
        """
        clip = normalised(frames, KINETICS_MEAN, KINETICS_STD).transpose(1, 2)
        net = self.backbone
        x = net.layer4(net.layer3(net.layer2(net.layer1(net.stem(clip)))))
        states = self.sequence(x.mean(dim=(3, 4)).transpose(1, 2))  # (B, T / 8, width)
        there = _shortened(mask, states.shape[1])
        return Encoded(states, there, masked_mean(states, there))

    def blocks(self) -> list[nn.Module]:
        """Its layers, the last one last."""
        return [getattr(self.backbone, n) for n in ("stem", "layer1", "layer2", "layer3", "layer4")]


class FrameEncoder(nn.Module):
    """A network over single frames, and attention over time.

    Args:
        network: `resnet18`, `resnet50` or `vgg16`.
        width: of what it gives.
    """

    def __init__(self, network: str, width: int) -> None:
        super().__init__()
        self.backbone = VGG16() if network == "vgg16" else ResNet(18 if "18" in network else 50)
        self.sequence = _Projection(self.backbone.dim, width)
        self.pool = AttentionPool(width)

    def forward(self, frames: Tensor, mask: Tensor) -> Encoded:
        """As `ClipEncoder.forward`; the sequence has one place for each frame."""
        flat = normalised(frames.flatten(0, 1), IMAGENET_MEAN, IMAGENET_STD)
        found = self.backbone.encode(flat)
        states = self.sequence(found.view(frames.shape[0], frames.shape[1], found.shape[1]))
        return Encoded(states, mask, self.pool(states, mask))

    def blocks(self) -> list[nn.Module]:
        """Its layers, the last one last."""
        if isinstance(self.backbone, VGG16):
            return [layer for layer in self.backbone.features if isinstance(layer, nn.Conv2d)]
        stem = nn.ModuleList([self.backbone.conv1, self.backbone.bn1])
        return [stem, *(getattr(self.backbone, f"layer{n}") for n in range(1, 5))]


class SpectrogramEncoder(nn.Module):
    """Convolutions over a log-mel spectrogram, and attention over time.

    Args:
        mels: bands.
        width: of what it gives.
    """

    _WIDTHS = (32, 64, 128, 192)

    def __init__(self, mels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inside = 1
        for outside in self._WIDTHS:
            layers.append(
                nn.Sequential(
                    nn.Conv2d(inside, outside, 3, stride=2, padding=1, bias=False),
                    nn.BatchNorm2d(outside),
                    nn.ReLU(inplace=True),
                    nn.Conv2d(outside, outside, 3, padding=1, bias=False),
                    nn.BatchNorm2d(outside),
                    nn.ReLU(inplace=True),
                )
            )
            inside = outside
        self.layers = nn.ModuleList(layers)
        bands = mels
        for _ in self._WIDTHS:
            bands = (bands + 1) // 2
        self.sequence = _Projection(inside * bands, width)
        self.pool = AttentionPool(width)

    def forward(self, mel: Tensor, mask: Tensor) -> Encoded:
        """What B spectrograms come to.

        Args:
            mel: (B, M, F) log-mel frames, standardised; 0 where there is none.
            mask: (B, M) bool, where there is a frame.
        """
        x, there = mel.unsqueeze(1), mask
        for layer in self.layers:
            # What biases put into padding goes no further, or a row would hear its neighbours'
            # length; a place at half the rate is centred on every other frame.
            there = there[:, ::2]
            shown = there[:, None, :, None]
            x = layer[:3](x) * shown  # type: ignore[index]
            x = layer[3:](x) * shown  # type: ignore[index]
        states = self.sequence(x.transpose(1, 2).flatten(2))
        return Encoded(states, there, self.pool(states, there))

    def blocks(self) -> list[nn.Module]:
        """Its layers, the last one last."""
        return list(self.layers)


class WaveEncoder(nn.Module):
    """wav2vec 2.0 (or a relative) over the waveform, and attention over time.

    Args:
        width: of what it gives.
        backbone: the network, as transformers' AutoModel makes it.
    """

    def __init__(self, width: int, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        dim: int = backbone.config.hidden_size  # type: ignore[union-attr,assignment]
        # Its own hides stretches that an utterance may be too short for; ours has been done before.
        backbone.config.apply_spec_augment = False  # type: ignore[union-attr]
        self.sequence = _Projection(dim, width)
        self.pool = AttentionPool(width)

    def forward(self, wave: Tensor, mask: Tensor) -> Encoded:
        """What B waveforms come to.

        Args:
            wave: (B, N) samples at 16 kHz of mean 0 and variance 1; 0 where there is none.
            mask: (B, N) bool, where there is a sample; all of a row's come first.
        """
        samples = mask.sum(dim=1)
        if getattr(self.backbone.config, "feat_extract_norm", "layer") == "group":
            states = self._encoded(wave, samples)
        else:
            states = self.backbone(wave, attention_mask=mask.long()).last_hidden_state
        there = _first(self._places(samples), states.shape[1])
        states = self.sequence(states)
        return Encoded(states, there, self.pool(states, there))

    def _encoded(self, wave: Tensor, samples: Tensor) -> Tensor:
        """(B, N) and (B,) → (B, L, D), as the backbone has it, for one that has a norm over time.

        The backbone's own takes padding into the norm, so that a row would hear how long its
        neighbours are.
        """
        net: Any = self.backbone
        x = wave.unsqueeze(1)
        first, *others = net.feature_extractor.conv_layers
        x = first.conv(x)
        there = _first(self._places(samples, layers=1), x.shape[2])
        x = first.activation(_norm_over_time(x, there, first.layer_norm).to(x.dtype))
        for layer in others:
            x = layer(x)
        projected = net.feature_projection(x.transpose(1, 2))
        states = projected[0] if isinstance(projected, tuple) else projected
        there = _first(self._places(samples), states.shape[1])
        return net.encoder(states, attention_mask=there).last_hidden_state

    def _places(self, samples: Tensor, layers: int | None = None) -> Tensor:
        """(B,) samples → (B,) states that convolutions make of them; None for all of these."""
        config: Any = self.backbone.config
        for kernel, stride in zip(config.conv_kernel[:layers], config.conv_stride, strict=False):
            samples = torch.div(samples - kernel, stride, rounding_mode="floor") + 1
        return samples

    def blocks(self) -> list[nn.Module]:
        """Its layers, the last one last."""
        return _transformer_blocks(self.backbone)


class AttentionPool(nn.Module):
    """A weighted mean over a sequence, the weights learned.

    Args:
        width: of the sequence.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Sequential(
            nn.Linear(width, width // 2), nn.Tanh(), nn.Linear(width // 2, 1)
        )

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(B, L, width) and (B, L) bool → (B, width); 0 where nothing is there."""
        scores = self.score(states).squeeze(-1).float()
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        weights = (scores.softmax(dim=1) * mask).to(states.dtype)
        return (weights.unsqueeze(1) @ states).squeeze(1)


def _first(counts: Tensor, length: int) -> Tensor:
    """(B,) → (B, length) bool, the first so many places of each row."""
    return torch.arange(length, device=counts.device) < counts[:, None]


def _norm_over_time(x: Tensor, there: Tensor, norm: nn.GroupNorm) -> Tensor:
    """(B, C, T) and (B, T) bool → (B, C, T): each channel by what is there of it."""
    shown = there.unsqueeze(1)
    count = shown.sum(dim=2, keepdim=True).clamp(min=1)
    x = x.float() * shown
    mean = x.sum(dim=2, keepdim=True) / count
    away = (x - mean) * shown
    scale = (away.square().sum(dim=2, keepdim=True) / count + norm.eps).rsqrt()
    return away * scale * norm.weight[:, None] + norm.bias[:, None]


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """(B, L, D) and (B, L) bool → (B, D), the mean where the mask is; 0 where it is nowhere."""
    weights = mask.to(states.dtype)
    total = (states * weights.unsqueeze(-1)).sum(dim=1)
    return total / weights.sum(dim=1, keepdim=True).clamp(min=1)


def make_encoders(settings: Encoders, *, pretrained: bool = True) -> nn.ModuleDict:
    """The encoders of a recipe, by modality.

    Args:
        settings: of the recipe.
        pretrained: load the weights the recipe names; otherwise their networks begin at random, to
            be filled from a model's own file.

    Raises:
        BackendError: a checkpoint or a file of weights is missing, damaged or of another network.
    """
    found = nn.ModuleDict()
    if settings.text is not None:
        backbone = _transformer(settings.text.checkpoint, pretrained)
        found["text"] = TextEncoder(settings.width, backbone)
    if settings.video is not None:
        found["video"] = _video(settings.video, settings.width, pretrained)
    if settings.audio is not None:
        found["audio"] = _audio(settings.audio, settings.width, pretrained)
    return found


def checkpoint_folder(name: str) -> Path:
    """Where the checkpoint of that name lies: `minilm` in its package, others where they are kept.

    What stands in a packaged model's folder is settings and a tokenizer without weights.

    Raises:
        BackendError: it is not here.
    """
    from vsa_core.backends.checkpoints import find_checkpoint
    from vsa_core.backends.text_minilm import encoder_folder

    if name == "minilm":
        return encoder_folder()
    if (Path(name).parent / PACKAGE_CARD).is_file():
        return Path(name)
    return find_checkpoint(name).folder


def _video(settings: Video, width: int, pretrained: bool) -> nn.Module:
    encoder: ClipEncoder | FrameEncoder
    if settings.network == "r3d18":
        encoder = ClipEncoder(width)
    else:
        encoder = FrameEncoder(settings.network, width)
    if pretrained and settings.weights is not None:
        load_weights(encoder.backbone, settings.weights)
    return encoder


def _audio(settings: Audio, width: int, pretrained: bool) -> nn.Module:
    if settings.network == "spectrogram":
        return SpectrogramEncoder(settings.mels, width)
    assert settings.checkpoint is not None
    return WaveEncoder(width, _transformer(settings.checkpoint, pretrained))


def _transformer(name: str, pretrained: bool) -> nn.Module:
    """A transformers encoder in float32, trainable; at random where it is not to be loaded."""
    from vsa_core.backends.checkpoints import Network, find_checkpoint, quiet_transformers

    if pretrained and name != "minilm":
        network = Network(find_checkpoint(name), "AutoModel", device="cpu", precision="float32")
        return network.module()
    with quiet_transformers():
        from transformers import AutoConfig, AutoModel

        folder = checkpoint_folder(name)
        if pretrained:
            found: nn.Module = AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            )
        else:
            config = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            # One that names a kernel on the Hub would have it fetched and run.
            config._attn_implementation = None
            found = AutoModel.from_config(config)
        return found


def load_weights(network: nn.Module, file: Path) -> None:
    """Fill a picture network from a file of torchvision's weights, safetensors or `.pth`.

    The last layers, which say classes of another data set, are passed over.

    Raises:
        BackendError: the file cannot be read, or is not of this network.
    """
    try:
        weights: Any
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            weights = load_file(file)
        else:
            weights = torch.load(file, map_location="cpu", weights_only=True)
        weights = {n: w for n, w in weights.items() if not n.startswith(_PARAMETERS_OF_CLASSES)}
        network.load_state_dict(weights)
    except Exception as error:  # whatever a damaged file makes the readers raise
        line = str(error).strip().splitlines() or [type(error).__name__]
        reason = " ".join(part.strip() for part in line[:2])[:300]
        raise BackendError(
            f"{file} holds no weights of this {type(network).__name__} ({reason}): give a file of "
            "torchvision's state_dict"
        ) from error


def _transformer_blocks(backbone: nn.Module) -> list[nn.Module]:
    """What comes before the layers as one, then the layers of a transformers encoder."""
    layers = _layers(backbone)
    inside = {id(parameter) for layer in layers for parameter in layer.parameters()}
    before = nn.ParameterList(p for p in backbone.parameters() if id(p) not in inside)
    return [before, *layers]


def _layers(backbone: nn.Module) -> list[nn.Module]:
    for name in ("layer", "layers", "h", "block"):
        for module in backbone.modules():
            found = getattr(module, name, None)
            if isinstance(found, nn.ModuleList):
                return list(found)
    return [backbone]


def _shortened(mask: Tensor, length: int) -> Tensor:
    """(B, L) bool → (B, length): a place is there where any it stands for is."""
    count = mask.shape[1]
    if count == length:
        return mask
    # What torch's adaptive pooling does, which ONNX has no operation for.
    places = torch.arange(length, device=mask.device)
    starts, ends = places * count // length, ((places + 1) * count + length - 1) // length
    before = nn.functional.pad(mask.long().cumsum(dim=1), (1, 0))
    return before[:, ends] > before[:, starts]


def parameters_of(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """All parameters of some modules, each once, in order."""
    found = {id(p): p for module in modules for p in module.parameters()}
    return list(found.values())
