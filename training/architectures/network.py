"""A network: one backbone, and heads, an embedding and place embeddings on its features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import torch
from torch import Tensor, nn

HEAD: Final = "classes"
"""Name of the only head of a network; of the target's head, the first, in a network with two heads."""
SOURCE_HEAD: Final = "source"
"""Name of the head of the source in a network that learns source and target at once."""


class Features(NamedTuple):
    """Output of a backbone for a batch of N images.

    Attributes:
        pooled: (N, C), input of the heads.
        by_place: (N, h, w, C), features of each place of the feature map.
    """

    pooled: Tensor
    by_place: Tensor


class Outputs(NamedTuple):
    """Output of a network for a batch of N images.

    Attributes:
        logits: (N, classes).
        embedding: (N, D), the mean of the place embeddings; not normalised.
        place_embeddings: (N, h, w, D), the embedding of each place of the feature map.
    """

    logits: Tensor
    embedding: Tensor
    place_embeddings: Tensor


class Backbone(Protocol):
    """Maps normalised images, float32 (N, 3, side, side), to ``Features`` of ``channels`` channels.

    ``pools_by_mean`` says whether the pooled features are the mean of those of the places; absent where they are not.
    """

    channels: int

    def __call__(self, x: Tensor) -> Features: ...


class Network(nn.Module):
    """Backbone, linear heads and embedder.

    The embedding is a linear map without bias of the features of each place, averaged over places, so that the similarity of
    two cells is exactly the sum of the similarities of their places.

    Args:
        backbone: a module that is a ``Backbone``.
        classes: number of classes of each head by name.
        embedding: dimension D of the embedding; 0 for the features themselves (no parameters).
        hidden: width of a hidden layer (linear, ReLU, batch normalisation) between features and heads; 0 for none.
        dropout: share of pooled features dropped before the heads in training.
    """

    def __init__(self, backbone: nn.Module, classes: Mapping[str, int], embedding: int = 0, hidden: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        channels: int = backbone.channels  # type: ignore[assignment]
        self.backbone = backbone
        self.hidden = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.BatchNorm1d(hidden)) if hidden else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleDict({name: nn.Linear(hidden or channels, count) for name, count in classes.items()})
        self.embedder = nn.Linear(channels, embedding, bias=False) if embedding else nn.Identity()

    def forward(self, x: Tensor, head: str = "") -> Outputs:
        """Judge normalised images with a head, the first if none is named."""
        features = self.backbone(x)
        places = self.embedder(features.by_place)
        return Outputs(self._heads(features)[head or next(iter(self.heads))], places.mean(dim=(1, 2)), places)

    @property
    def logits_are_means(self) -> bool:
        """Whether the logits are the mean of class activations over places: the features are pooled by the mean, and only a head follows."""
        return isinstance(self.hidden, nn.Identity) and bool(getattr(self.backbone, "pools_by_mean", False))

    def class_activations(self, features: Tensor) -> Tensor:
        """Class activations: the first head at each place, (N, h, w, classes), of features (N, h, w, C)."""
        activations: Tensor = next(iter(self.heads.values()))(features)
        return activations

    def _heads(self, features: Features) -> dict[str, Tensor]:
        hidden = self.dropout(self.hidden(features.pooled))
        return {name: head(hidden) for name, head in self.heads.items()}


class MergedClasses(nn.Module):
    """A network that merges several classes into one in its output: their probabilities are added.

    Args:
        network: returns ``Outputs``.
        groups: columns of its logits that become one column each, in this order.
    """

    def __init__(self, network: nn.Module, groups: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.network = network
        self.groups = tuple(list(columns) for columns in groups)

    def forward(self, x: Tensor) -> Outputs:
        """Judge normalised images."""
        outputs: Outputs = self.network(x)
        return outputs._replace(logits=merged_logits(outputs.logits, self.groups))


def merged_logits(logits: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """Logits (N, len(groups)) of logits (N, K): the probabilities of the columns of each group are added."""
    return torch.stack([logits[:, list(columns)].logsumexp(dim=1) for columns in groups], dim=1)


def parameter_count(network: nn.Module, *, trainable: bool = True) -> int:
    """Number of trained parameters, or of all."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad or not trainable)
