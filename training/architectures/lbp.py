"""Local binary convolution (Juefei-Xu et al., CVPR 2017) in residual blocks, as ALLNet uses it (CIVEMSA 2022)."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final

import torch
from torch import Tensor, nn

FIXED_CHANNELS: Final = 16
SPARSITY: Final = 0.5


class Kernel(StrEnum):
    """How the fixed kernels are drawn; they are never trained."""

    BINARY = "binary"
    """+1 or -1 with probability 1/4 each, else 0: the method as described."""
    GAUSSIAN = "gaussian"
    """Dense normal deviates, std sqrt(2 / (16 * 9)): what the published weights hold, because the original program initialised
    every convolution once more after the fixed ones were drawn."""


class LbpConvolution(nn.Sequential):
    """Replaces a 3x3 convolution: normalise, fixed 3x3 to 16 channels, ReLU, trained 1x1, maximum over 3x3.

    The modules keep the positions 0 (normalisation), 1 (fixed), 2 (trained) of the original program's parameters, so the ReLU is
    not a module of its own.

    Args:
        channels_in, channels_out: channels.
        stride: of the maximum, which is taken at stride 1 too.
        kernel: how the fixed kernels are drawn.
        relu: whether the ReLU of the LBCNN papers stands between fixed and trained convolution; the released program has none.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, kernel: Kernel = Kernel.BINARY, *, relu: bool = True) -> None:
        fixed = nn.Conv2d(channels_in, FIXED_CHANNELS, 3, 1, 1, bias=False)
        fixed.weight.requires_grad_(False)
        super().__init__(nn.BatchNorm2d(channels_in), fixed, nn.Conv2d(FIXED_CHANNELS, channels_out, 1), nn.MaxPool2d(3, stride, 1))
        self.relu = relu
        with torch.no_grad():
            fixed.weight.copy_(draw_kernels(kernel, fixed.weight.shape))

    def forward(self, x: Tensor) -> Tensor:
        normalise, fixed, trained, maximum = self
        differences = fixed(normalise(x))
        return maximum(trained(torch.relu(differences) if self.relu else differences))


def draw_kernels(kernel: Kernel, shape: torch.Size) -> Tensor:
    """Fixed kernels, float32 of the shape (16, in, 3, 3), from torch's global generator."""
    if kernel is Kernel.GAUSSIAN:
        return torch.randn(shape) * math.sqrt(2.0 / (shape[0] * shape[2] * shape[3]))
    signs = torch.randint(0, 2, shape).float() * 2 - 1
    return signs * (torch.rand(shape) < SPARSITY)
