"""One step on a batch of the source and a batch of the target, by variant (DL4ALL, IEEE Access 2023): rules without data or networks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

SHARE: Final = 0.5
"""Of each of the two losses."""
LEGACY_BAR: Final = 1e6
"""Bar of the first target loss by the literal rule."""
OPEN_BAR: Final = math.inf
"""Bar of the first target loss by the repaired rule."""


class Pair(Protocol):
    """The two batches of a step; every call is a forward pass in training mode and gives a loss, 0-d, with its graph."""

    def both(self) -> tuple[Tensor, Tensor]:
        """Loss of the source, then loss of the target, from the same weights."""

    def source(self) -> Tensor:
        """Loss of the source."""

    def target(self) -> Tensor:
        """Loss of the target, after its batch has refreshed the batch normalisation."""


@dataclass(frozen=True)
class Learner:
    """What a step changes.

    Attributes:
        network: all weights and buffers.
        optimiser: of the network's weights.
        source_head, target_head: the layers that only one of the two losses sees.
        source_batch, target_batch: images of the two batches.
    """

    network: nn.Module
    optimiser: Optimizer
    source_head: nn.Module
    target_head: nn.Module
    source_batch: int
    target_batch: int

    def rescale(self) -> None:
        """Multiply the gradients of a head by (b1 + b2) / b, b being the size of the batch that it saw; heads without gradients stay so."""
        whole = self.source_batch + self.target_batch
        for head, batch in ((self.source_head, self.source_batch), (self.target_head, self.target_batch)):
            for parameter in head.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(whole / batch)

    def descend(self, loss: Tensor, *, rescaled: bool) -> None:
        """Backward pass of a loss and one step of the optimiser."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if rescaled:
            self.rescale()
        self.optimiser.step()


class Greedy(NamedTuple):
    """Outcome of a greedy step.

    Attributes:
        loss: of the step, 0-d, without its graph.
        target_loss: of the target batch after the source step, which was compared.
        kept: whether the source step was kept.
    """

    loss: Tensor
    target_loss: float
    kept: bool


class Snapshot:
    """A copy of a network's weights and buffers and of an optimiser's state."""

    def __init__(self, network: nn.Module, optimiser: Optimizer) -> None:
        self._weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        self._states = {parameter: _copied(state) for parameter, state in optimiser.state.items()}

    def restore(self, network: nn.Module, optimiser: Optimizer) -> None:
        """Restore all of it to the bit. State that the optimiser did not have then is dropped. Call it once only: the state is passed on."""
        network.load_state_dict(self._weights)
        optimiser.state.clear()
        optimiser.state.update(self._states)


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()}


def regular_step(learner: Learner, pair: Pair) -> Tensor:
    """One optimiser step of 0.5 L1 + 0.5 L2, the heads' gradients rescaled; ``regular`` and ``self`` of DL4ALL.

    Returns:
        The loss, 0-d, without its graph.
    """
    source, target = pair.both()
    loss = SHARE * source + SHARE * target
    learner.descend(loss, rescaled=True)
    return loss.detach()


def greedy_step(learner: Learner, pair: Pair, bar: float) -> Greedy:
    """A step of 0.5 L1, kept only if the target loss L2 after it is below a bar; ``greedy`` and ``greedy_legacy``.

    If it is, a step of 0.5 L2 follows, the head's gradients rescaled. If not, weights, buffers and optimiser go back to what they
    were and a step of L2 follows.

    Args:
        learner: what is changed.
        pair: the two batches.
        bar: what L2 is compared with; see ``lowest`` and ``recent``.
    """
    before = Snapshot(learner.network, learner.optimiser)
    source = pair.source()
    learner.descend(SHARE * source, rescaled=False)
    target = pair.target()
    compared = float(target.detach())
    if compared < bar:
        learner.descend(SHARE * target, rescaled=True)
        return Greedy((SHARE * source + SHARE * target).detach(), compared, True)
    del target
    before.restore(learner.network, learner.optimiser)
    target = pair.target()
    learner.descend(target, rescaled=False)
    return Greedy(target.detach(), compared, False)


def lowest(bar: float, target_loss: float) -> float:
    """The next bar by the literal rule: the lowest target loss of any batch so far. It is never reset, so in time no step passes it."""
    return min(bar, target_loss)


def recent(bar: float, target_loss: float, memory: float) -> float:
    """The next bar by the repaired rule: the moving average of the target losses, so that about half of the steps pass it.

    Args:
        bar: the last one; ``OPEN_BAR`` before the first step.
        target_loss: of the last step, kept or not.
        memory: share of the last bar in the next, 0 to 1.
    """
    return target_loss if math.isinf(bar) else memory * bar + (1.0 - memory) * target_loss


def batch_sizes(source_images: int, target_images: int, batch: int, *, proportional: bool) -> tuple[int, int]:
    """Images of the source's and of the target's batch.

    Args:
        source_images, target_images: how many there are to learn from.
        batch: of the larger data set.
        proportional: give the smaller one ceil(batch / ratio), ratio being that of the numbers of images, so that both last as long.
    """
    if not proportional:
        return batch, batch
    smaller, larger = sorted((source_images, target_images))
    reduced = -(-batch * smaller // larger)
    return (batch, reduced) if source_images >= target_images else (reduced, batch)


def normalises_batches(network: nn.Module) -> bool:
    """Whether a network has batch normalisation, whose statistics a forward pass in training mode moves."""
    return any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in network.modules())


def refresh(network: nn.Module, pixels: Tensor) -> None:
    """Move the statistics of the batch normalisation by a batch, normalised (N, 3, side, side), without learning from it."""
    was_training = network.training
    network.train()
    with torch.no_grad():
        network(pixels)
    network.train(was_training)
