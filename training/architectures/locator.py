"""The locator: a small fully convolutional network that says per position where nucleated cells are.

An encoder to an eighth of the working image and a decoder back to a half of it, with skip connections (Ronneberger et al., U-Net, 2015).
Centres are peaks of a heat map (Zhou et al., Objects as Points, 2019); pixels of a cell point at its centre (Cheng et al., Panoptic-DeepLab, 2020).
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from services.patching.locator_maps import CHANNELS, KINDS

PRIOR: Final = 0.02
"""Share of positions that are a centre, at the beginning."""


class LocatorNetwork(nn.Module):
    """Maps of half the side of the working image.

    Args:
        width: channels at half of the image; twice as many at a quarter, four times at an eighth.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        half, quarter, eighth = width, 2 * width, 4 * width
        self.to_half = _Convolution(3, half, stride=2)
        self.at_half = _Block(half)
        self.to_quarter = _Convolution(half, quarter, stride=2)
        self.at_quarter = nn.Sequential(_Block(quarter), _Block(quarter))
        self.to_eighth = _Convolution(quarter, eighth, stride=2)
        self.at_eighth = nn.Sequential(_Block(eighth), _Block(eighth, dilation=2), _Block(eighth, dilation=4))
        self.from_eighth = _Convolution(eighth, quarter, kernel=1)
        self.back_at_quarter = _Block(quarter)
        self.from_quarter = _Convolution(quarter, half, kernel=1)
        self.back_at_half = _Block(half)
        self.last = _Convolution(half, 2 * half)
        self.heads = nn.Conv2d(2 * half, CHANNELS, 1)
        nn.init.zeros_(self.heads.weight)
        beginning = torch.zeros(CHANNELS)
        beginning[: KINDS + 2] = torch.logit(torch.tensor(PRIOR))
        self.heads.bias = nn.Parameter(beginning)

    def forward(self, images: Tensor) -> Tensor:
        """Say where cells are.

        Args:
            images: float32 (B, 3, H, W), 0..1, sides multiples of 8.

        Returns:
            float32 (B, CHANNELS, H / 2, W / 2): logits of the heat maps, of the whole cell and of the nucleus, and offsets.
        """
        half = self.at_half(self.to_half(images - 0.5))
        quarter = self.at_quarter(self.to_quarter(half))
        eighth = self.at_eighth(self.to_eighth(quarter))
        quarter = self.back_at_quarter(quarter + _twice(self.from_eighth(eighth)))
        half = self.back_at_half(half + _twice(self.from_quarter(quarter)))
        return self.heads(self.last(half))


class _Convolution(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class _Block(nn.Module):
    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.first_normal = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_normal = nn.BatchNorm2d(channels)

    def forward(self, maps: Tensor) -> Tensor:
        inner = functional.relu(self.first_normal(self.first(maps)))
        return functional.relu(maps + self.second_normal(self.second(inner)))


def _twice(maps: Tensor) -> Tensor:
    return functional.interpolate(maps, scale_factor=2, mode="nearest")
