"""Networks by name, from their configuration."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import partial

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from training.architectures import efficientnet_lite, histonet, vit
from training.architectures.lbp import Kernel, LbpConvolution
from training.architectures.network import Network
from training.architectures.resnet import RESNET18, RESNET34, Convolution, ResNet, Stem, convolution
from training.errors import RecipeError


class Architecture(StrEnum):
    """The known backbones."""

    RESNET18 = "resnet18"
    RESNET34 = "resnet34"
    RESNET18_LBP = "resnet18_lbp"
    RESNET34_LBP = "resnet34_lbp"
    HISTONET_VGG = "histonet_vgg"
    VIT_B16 = "vit_b16"
    VIT_SMALL = "vit_small"
    EFFICIENTNET_LITE0 = "efficientnet_lite0"


class NetworkConfig(BaseModel):
    """A network without its classes.

    Attributes:
        architecture: the backbone.
        width: channels of the first stage of a ResNet, dimension of a small transformer's tokens; to be trained it needs ``least_trainable_width``.
        stem: of a ResNet.
        kernel: fixed kernels of local binary convolution.
        lbp_relu: whether a ReLU follows them; the released program has none.
        embedding: dimension of the embedding; 0 for the pooled features.
        dropout: before the heads.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Architecture
    width: int = Field(default=64, ge=4, le=1024)
    stem: Stem = Stem.STANDARD
    kernel: Kernel = Kernel.BINARY
    lbp_relu: bool = True
    embedding: int = Field(default=0, ge=0, le=4096)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)


def least_trainable_width(config: NetworkConfig) -> int:
    """The least width with which a network can be trained. It runs with any width.

    With fewer channels of a ResNet in channels-last memory the convolutions of torch 2.13 write where they must not, on some CPUs, and the
    process ends in the middle of a training.
    """
    if not config.architecture.startswith("resnet"):
        return 1
    return 16 if config.stem is Stem.FULL_RESOLUTION else 8


def build_network(config: NetworkConfig, classes: Mapping[str, int], side: int) -> Network:
    """Build a network with fresh weights from torch's global generator.

    Args:
        config: what to build.
        classes: number of classes of each head by name.
        side: side of the input in px.

    Raises:
        RecipeError: the architecture cannot take this side.
    """
    hidden = histonet.HIDDEN if config.architecture is Architecture.HISTONET_VGG else 0
    network = Network(_backbone(config, side), classes, config.embedding, hidden, config.dropout)
    if config.architecture is Architecture.HISTONET_VGG:
        histonet.initialise(network)
    return network


def _backbone(config: NetworkConfig, side: int) -> nn.Module:
    match config.architecture:
        case Architecture.RESNET18 | Architecture.RESNET34 | Architecture.RESNET18_LBP | Architecture.RESNET34_LBP:
            layers = RESNET18 if "18" in config.architecture else RESNET34
            conv: Convolution = convolution
            if config.architecture.endswith("_lbp"):
                conv = partial(LbpConvolution, kernel=config.kernel, relu=config.lbp_relu)
            return ResNet(layers, config.width, conv, config.stem)
        case Architecture.HISTONET_VGG:
            if side < histonet.MIN_SIDE:
                raise RecipeError(f"{config.architecture.value} needs at least {histonet.MIN_SIDE} px, not {side}; a ResNet takes less.")
            return histonet.HistoNetVgg()
        case Architecture.VIT_B16 | Architecture.VIT_SMALL:
            if side % 16:
                raise RecipeError(f"{config.architecture.value} needs a side that is a multiple of 16 px, not {side}.")
            return vit.vit_b16(side) if config.architecture is Architecture.VIT_B16 else vit.vit_small(side, config.width)
        case Architecture.EFFICIENTNET_LITE0:
            if side % efficientnet_lite.SIDE_STEP:
                raise RecipeError(f"{config.architecture.value} needs a side that is a multiple of {efficientnet_lite.SIDE_STEP} px, not {side}.")
            return efficientnet_lite.EfficientNetLite0()
