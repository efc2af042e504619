"""Residual backbones (He et al., CVPR 2016) with a width factor; the 3x3 convolutions of a block can be replaced."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final

from torch import Tensor, nn
from torch.nn import functional

from training.architectures.network import Features

RESNET18: Final = (2, 2, 2, 2)
RESNET34: Final = (3, 4, 6, 3)
Convolution = Callable[[int, int, int], nn.Module]
"""Makes the layer that replaces a 3x3 convolution, from channels in, channels out and stride."""


class Stem(StrEnum):
    """Layers before the first stage."""

    STANDARD = "standard"
    """7x7 with stride 2 and a maximum over 3x3 with stride 2, as published: a feature map of a thirty-second."""
    FULL_RESOLUTION = "full_resolution"
    """3x3 at stride 1, and the first stage has stride 2, because chromatin has structures of a pixel or two. A sixteenth."""


def convolution(channels_in: int, channels_out: int, stride: int) -> nn.Module:
    """A plain 3x3 convolution."""
    return nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation and a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, conv: Convolution) -> None:
        super().__init__()
        self.conv1 = conv(channels_in, channels_out, stride)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = conv(channels_out, channels_out, 1)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class ResNet(nn.Module):
    """ResNet-18 or -34 without its classifier; parameters are named as in the original programs.

    Args:
        layers: blocks of each of the four stages.
        width: channels of the first stage (published: 64); the following have 2, 4 and 8 times as many.
        conv: what replaces the blocks' 3x3 convolutions.
        stem: what comes before.
    """

    pools_by_mean = True

    def __init__(self, layers: tuple[int, int, int, int], width: int = 64, conv: Convolution = convolution, stem: Stem = Stem.STANDARD) -> None:
        super().__init__()
        self.channels = 8 * width
        full = stem is Stem.FULL_RESOLUTION
        self.conv1 = nn.Conv2d(3, width, 3 if full else 7, 1 if full else 2, 1 if full else 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool: nn.Module = nn.Identity() if full else nn.MaxPool2d(3, 2, 1)
        channels = width
        for stage, count in enumerate(layers):
            stride = 1 if stage == 0 and not full else 2
            blocks = []
            for block in range(count):
                blocks.append(BasicBlock(channels, width * 2**stage, stride if block == 0 else 1, conv))
                channels = width * 2**stage
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.weight.requires_grad:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Features:
        x = self.maxpool(functional.relu(self.bn1(self.conv1(x))))
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            x = self.get_submodule(stage)(x)
        return Features(x.mean(dim=(2, 3)), x.permute(0, 2, 3, 1))
