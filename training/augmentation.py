"""Random changes of registered cells during training: position, stain, light, focus. All on tensors, seeded."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Change a batch at random.

    Args:
        images: float32 (N, 3, side, side) in 0..1.
        generator: source of all randomness.

    Returns:
        The same shape and range: any rotation, flips, scale 0.85..1.15, shift up to 4 %, stain strength and hue per
        channel of optical density, brightness, contrast, Gaussian blur of up to 1.2 px for a third, sensor noise.
    """
    return _noise(_blur(_stain(_place(images, generator), generator), generator), generator)


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def _place(images: Tensor, generator: torch.Generator) -> Tensor:
    count = images.shape[0]
    angle = _uniform(count, -math.pi, math.pi, generator)
    scale = _uniform(count, 0.85, 1.15, generator)
    flip = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    shift = _uniform(2 * count, -0.08, 0.08, generator).view(2, count)
    rows = [torch.stack([cosine * flip, -sine, shift[0]], 1), torch.stack([sine * flip, cosine, shift[1]], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _stain(images: Tensor, generator: torch.Generator) -> Tensor:
    count = images.shape[0]
    density = -torch.log(images.clamp_min(1 / 255))
    strength = _uniform(count, 0.8, 1.25, generator).view(count, 1, 1, 1)
    hue = 1.0 + _uniform(3 * count, -0.1, 0.1, generator).view(count, 3, 1, 1)
    light = 1.0 + _uniform(3 * count, -0.06, 0.04, generator).view(count, 3, 1, 1)
    return (torch.exp(-density * strength * hue) * light).clamp(0.0, 1.0)


def _blur(images: Tensor, generator: torch.Generator) -> Tensor:
    chosen = torch.rand(images.shape[0], generator=generator) < 0.33
    if not bool(chosen.any()):
        return images
    sigma = float(_uniform(1, 0.4, 1.2, generator))
    taps = torch.exp(-0.5 * (torch.arange(-4, 5) / sigma) ** 2)
    taps = (taps / taps.sum()).to(images)
    part = functional.pad(images[chosen], (4, 4, 4, 4), mode="reflect")
    part = functional.conv2d(part, taps.view(1, 1, 9, 1).repeat(3, 1, 1, 1), groups=3)
    part = functional.conv2d(part, taps.view(1, 1, 1, 9).repeat(3, 1, 1, 1), groups=3)
    result = images.clone()
    result[chosen] = part
    return result


def _noise(images: Tensor, generator: torch.Generator) -> Tensor:
    deviation = _uniform(images.shape[0], 0.0, 0.02, generator).view(-1, 1, 1, 1)
    return (images + deviation * torch.randn(images.shape, generator=generator)).clamp(0.0, 1.0)
