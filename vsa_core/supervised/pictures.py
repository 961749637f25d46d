"""Picture encoders in plain torch: R3D-18 over clips, ResNet and VGG16 over frames.

Parameter names are torchvision's, so that its published weights load; torchvision itself is not
needed, and does not import beside a CPU build of torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

# What torchvision's Kinetics-400 weights expect of RGB in [0, 1] (R3D_18_Weights.KINETICS400_V1).
KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_STD = (0.22803, 0.22145, 0.216989)
# And its ImageNet weights.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class _Block3d(nn.Module):
    """Two 3×3×3 convolutions around a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv3d(inside, outside, 3, stride, padding=1, bias=False),
            nn.BatchNorm3d(outside),
            nn.ReLU(inplace=True),
        )
        self.conv2 = nn.Sequential(
            nn.Conv3d(outside, outside, 3, padding=1, bias=False), nn.BatchNorm3d(outside)
        )
        self.downsample = (
            nn.Sequential(
                nn.Conv3d(inside, outside, 1, stride, bias=False), nn.BatchNorm3d(outside)
            )
            if stride != 1 or inside != outside
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) → (B, C', T', H', W')."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return (self.conv2(self.conv1(x)) + shortcut).relu()


class R3D18(nn.Module):
    """ResNet-18 with 3D convolutions; `state_dict` has the names of torchvision's r3d_18.

    Args:
        classifier: whether to make the last layer too, to Kinetics-400's classes.

    Attributes:
        dim: width of what `encode` gives, 512.

    Source: Tran et al. 2018, A Closer Look at Spatiotemporal Convolutions for Action Recognition
    (R3D), Table 1.
    """

    dim = 512

    def __init__(self, classifier: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
            nn.BatchNorm3d(64),
            nn.ReLU(inplace=True),
        )
        self.layer1 = nn.Sequential(_Block3d(64, 64, 1), _Block3d(64, 64, 1))
        self.layer2 = nn.Sequential(_Block3d(64, 128, 2), _Block3d(128, 128, 1))
        self.layer3 = nn.Sequential(_Block3d(128, 256, 2), _Block3d(256, 256, 1))
        self.layer4 = nn.Sequential(_Block3d(256, 512, 2), _Block3d(512, 512, 1))
        if classifier:
            self.fc = nn.Linear(512, 400)

    def encode(self, clip: Tensor) -> Tensor:
        """(B, 3, T, H, W) normalised → (B, 512) before the classes."""
        x = self.stem(clip)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean(dim=(2, 3, 4))

    def forward(self, clip: Tensor) -> Tensor:
        """(B, 3, T, H, W) normalised → (B, 400) logits of Kinetics-400; needs the last layer."""
        return self.fc(self.encode(clip))


class _Block2d(nn.Module):
    """Two 3×3 convolutions around a shortcut."""

    expansion = 1

    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inside, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', H', W')."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return (self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + shortcut).relu()


class _Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions around a shortcut; the stride lies in the second."""

    expansion = 4

    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(inside, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', H', W')."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return (self.bn3(self.conv3(x)) + shortcut).relu()


class ResNet(nn.Module):
    """ResNet over single frames; `state_dict` has the names of torchvision's resnet18 and 50.

    Args:
        depth: 18 or 50.
        classifier: whether to make the last layer too, to ImageNet's classes.

    Attributes:
        dim: width of what `encode` gives, 512 or 2048.

    Source: He et al. 2016, Deep Residual Learning for Image Recognition, Table 1; the stride of a
    bottleneck lies in its 3×3 convolution, as in torchvision's.
    """

    def __init__(self, depth: int, classifier: bool = False) -> None:
        super().__init__()
        block: type[_Block2d] | type[_Bottleneck] = _Block2d if depth == 18 else _Bottleneck
        counts = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth]
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        inside = 64
        for number, (count, width) in enumerate(zip(counts, (64, 128, 256, 512), strict=True), 1):
            blocks: list[nn.Module] = []
            for at in range(count):
                blocks.append(block(inside, width, 2 if number > 1 and at == 0 else 1))
                inside = width * block.expansion
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.dim = inside
        if classifier:
            self.fc = nn.Linear(inside, 1000)

    def encode(self, frames: Tensor) -> Tensor:
        """(B, 3, H, W) normalised → (B, dim) before the classes."""
        x = self.maxpool(self.bn1(self.conv1(frames)).relu())
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
        return x.mean(dim=(2, 3))

    def forward(self, frames: Tensor) -> Tensor:
        """(B, 3, H, W) normalised → (B, 1000) logits of ImageNet; needs the last layer."""
        return self.fc(self.encode(frames))


class VGG16(nn.Module):
    """VGG16 over single frames; `state_dict` has the names of torchvision's vgg16.

    Attributes:
        dim: width of what `encode` gives, 512: the mean over places of the last convolutions. The
            three dense layers have nine tenths of the weights and are made only for `forward`.

    Args:
        classifier: whether to make the dense layers too.

    Source: Simonyan and Zisserman 2015, Very Deep Convolutional Networks, Table 1, column D.
    """

    dim = 512

    def __init__(self, classifier: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inside = 3
        for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(count):
                layers += [nn.Conv2d(inside, width, 3, padding=1), nn.ReLU(inplace=True)]
                inside = width
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        if classifier:
            self.avgpool = nn.AdaptiveAvgPool2d(7)
            self.classifier = nn.Sequential(
                nn.Linear(512 * 49, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(),
                nn.Linear(4096, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(),
                nn.Linear(4096, 1000),
            )

    def encode(self, frames: Tensor) -> Tensor:
        """(B, 3, H, W) normalised → (B, 512)."""
        return self.features(frames).mean(dim=(2, 3))

    def forward(self, frames: Tensor) -> Tensor:
        """(B, 3, H, W) normalised → (B, 1000) logits of ImageNet; needs the dense layers."""
        return self.classifier(self.avgpool(self.features(frames)).flatten(1))


def _shortcut(inside: int, outside: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inside == outside:
        return None
    return nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))


def normalised(frames: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Frames as published weights expect them.

    Args:
        frames: (..., 3, H, W) RGB in [0, 1].
        mean, std: by channel.
    """
    shape = (3, 1, 1)
    return (frames - frames.new_tensor(mean).view(shape)) / frames.new_tensor(std).view(shape)
