"""Plain residual network with a width factor, an embedding and patch embeddings."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional


class Outputs(NamedTuple):
    """What a cell network says of a batch of N cells.

    Attributes:
        logits: (N, classes).
        embedding: (N, D), the spatial mean of the patch embeddings; not normalised.
        patch_embeddings: (N, h, w, D).
    """

    logits: Tensor
    embedding: Tensor
    patch_embeddings: Tensor


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation and a shortcut (He et al., CVPR 2016)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class PlainResNet(nn.Module):
    """ResNet-18 layout with ``width`` channels in its first stage and a feature map of a sixteenth: 8 x 8 at 128 px.

    The stem keeps the full resolution: chromatin is told by structures of a pixel or two at 128 px.

    The embedding is a linear map without bias of the last feature map, so that the similarity of two cells is
    exactly the sum of the similarities of their patches.

    Args:
        width: channels of the first stage; the following have 2, 4 and 8 times as many.
        classes: number of classes.
        embedding: dimension D of the embedding.
    """

    def __init__(self, width: int = 16, classes: int = 2, embedding: int = 64, dropout: float = 0.2) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        stages: list[nn.Module] = []
        channels = width
        for stage, stride in enumerate((2, 2, 2, 2)):
            for block in range(2):
                stages.append(BasicBlock(channels, width * 2**stage, stride if block == 0 else 1))
                channels = width * 2**stage
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, classes)
        self.embedder = nn.Linear(channels, embedding, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Outputs:
        """Classify and embed normalised images, float32 (N, 3, side, side)."""
        features = self.stages(self.stem(x))
        pooled = features.mean(dim=(2, 3))
        patches = self.embedder(features.permute(0, 2, 3, 1))
        return Outputs(self.classifier(self.dropout(pooled)), patches.mean(dim=(1, 2)), patches)
