"""Tests of convolutional orthogonality."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from training.architectures.resnet import RESNET18, BasicBlock, ResNet, convolution
from training.learning.orthogonality import convolutional_orthogonality


def _block(stride: int = 1) -> Any:
    return BasicBlock(4, 4 if stride == 1 else 8, stride, convolution)


def _set_deltas(convolved: nn.Conv2d) -> None:
    with torch.no_grad():
        convolved.weight.zero_()
        for i in range(min(convolved.weight.shape[:2])):
            convolved.weight[i, i, 1, 1] = 1.0


def test_kernels_that_are_orthogonal_cost_nothing() -> None:
    block = _block()
    _set_deltas(block.conv1)
    assert convolutional_orthogonality(block).item() == pytest.approx(0.0, abs=1e-6)


def test_a_kernel_that_is_there_twice_costs_by_hand() -> None:
    block = _block()
    _set_deltas(block.conv1)
    with torch.no_grad():
        block.conv1.weight[1] = block.conv1.weight[0]
    assert convolutional_orthogonality(block).item() == pytest.approx(math.sqrt(2))


def test_the_original_program_misses_the_middle_lag_of_strided_kernels() -> None:
    """At the lags -1 and +1 a kernel of one pixel never meets itself: the identity that is asked for is missing in full."""
    block: Any = BasicBlock(8, 8, 2, convolution)
    _set_deltas(block.conv1)
    shortcut = block.downsample[0].weight
    with torch.no_grad():
        shortcut.copy_(torch.eye(8)[:, :, None, None])
    assert convolutional_orthogonality(block).item() == pytest.approx(0.0, abs=1e-6)
    assert convolutional_orthogonality(block, legacy=True).item() == pytest.approx(math.sqrt(8))


def test_the_shortcut_by_hand() -> None:
    block = _block(stride=2)
    assert isinstance(block.downsample, nn.Sequential)
    shortcut: Any = block.downsample[0]
    with torch.no_grad():
        block.conv1.weight.zero_()
        shortcut.weight.zero_()
    assert convolutional_orthogonality(block).item() == pytest.approx(math.sqrt(8) + math.sqrt(4))


def test_every_block_of_a_network_counts_and_has_a_gradient() -> None:
    network = ResNet(RESNET18, 4)
    loss = convolutional_orthogonality(network)
    loss.backward()
    found = [name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert sum(name.endswith("conv1.weight") for name in found) == 8
    assert sum("downsample.0" in name for name in found) == 3


def test_nothing_to_measure_is_zero() -> None:
    assert convolutional_orthogonality(nn.Linear(2, 2)).item() == 0.0
