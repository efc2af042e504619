"""Convolutional orthogonality (Wang et al., CVPR 2020) as DSS-XAI and ALL-IDB Patches add it to their loss: kernels that do not repeat each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.architectures.resnet import BasicBlock


def convolutional_orthogonality(network: nn.Module, *, legacy: bool = False) -> Tensor:
    """Sum over the shortcut convolutions and the first convolution of every block of a residual network.

    Args:
        network: holds ``BasicBlock`` with plain convolutions; others have none of this loss.
        legacy: measure a strided convolution at the lags -1 and +1, as the original program does by a padding of 1; else at the
            lags -2, 0 and +2 that a stride of 2 needs.

    Returns:
        0-d, at least 0; zero where there is nothing to measure.
    """
    terms = []
    for block in network.modules():
        if not isinstance(block, BasicBlock):
            continue
        if isinstance(block.conv1, nn.Conv2d):
            stride = block.conv1.stride[0]
            terms.append(_overlap(block.conv1.weight, stride, 1 if legacy else stride))
        if isinstance(block.downsample, nn.Sequential):
            weight = block.downsample[0].weight
            assert isinstance(weight, Tensor)
            terms.append(_columns(weight))
    return torch.stack(terms).sum() if terms else next(network.parameters()).sum() * 0.0


def _columns(weight: Tensor) -> Tensor:
    """``||W'W - I||`` of a 1x1 convolution, its matrix transposed if it is wider than high."""
    matrix = weight.flatten(1)
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    return torch.linalg.norm(tall.T @ tall - torch.eye(tall.shape[1], device=weight.device))


def _overlap(kernels: Tensor, stride: int, padding: int) -> Tensor:
    """Similarity of kernels (out, in, k, k) to each other and to their shifted copies: distance from an identity at the middle lag."""
    plain = kernels.contiguous()  # channels-last kernels as both input and weight crash the backward pass on the CPU
    found = functional.conv2d(plain, plain, stride=stride, padding=padding)
    wanted = torch.zeros_like(found)
    middle = found.shape[-1] // 2
    wanted[:, :, middle, middle] = torch.eye(found.shape[0], device=kernels.device)
    return torch.linalg.norm(found - wanted)
