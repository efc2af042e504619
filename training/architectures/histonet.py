"""The PyTorch re-creation of ADP's HistoNet that HistoTNet uses (CIVEMSA 2021)."""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

from training.architectures.network import Features

MIN_SIDE: Final = 194
"""Smallest side in px whose last feature map the final pooling covers; published: 224."""
HIDDEN: Final = 512
_STACK: Final = ((32, 7), (32, 5), (128, 5), (256, 5), (128, 7))


class HistoNetVgg(nn.Module):
    """Six convolutions, each followed by ReLU, batch normalisation and a maximum, in this order; 256 features at one place.

    With ``Network(..., hidden=512)`` it has 2,992,169 parameters for 9 classes.
    """

    channels = 256

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width, kernel in _STACK:
            layers += [nn.Conv2d(channels, width, kernel, padding=1), nn.ReLU(), nn.BatchNorm2d(width), nn.MaxPool2d(2, 2, 1)]
            channels = width
        layers += [nn.Conv2d(channels, 256, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(256), nn.MaxPool2d(7, 4, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Features:
        features = self.layers(x)
        return Features(features.mean(dim=(2, 3)), features.permute(0, 2, 3, 1))


def initialise(network: nn.Module) -> None:
    """Xavier-uniform weights and zero biases of all convolutions and linear layers, as in the original program."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
