"""Tests of the steps on source and target, computed by hand: gradients, what is kept and what is undone, bars, batch sizes."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.small import small_network
from training.architectures.build import Architecture, NetworkConfig, build_network
from training.architectures.network import HEAD
from training.learning.interleaved_step import (
    LEGACY_BAR,
    OPEN_BAR,
    Learner,
    Snapshot,
    batch_sizes,
    greedy_step,
    lowest,
    normalises_batches,
    recent,
    refresh,
    regular_step,
)


class Toy(nn.Module):
    """L1 = w + 3 s, L2 = 2 w + 5 t, all weights 1 at first; a buffer counts the forward passes."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))
        self.s, self.t = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        for head in (self.s, self.t):
            nn.init.ones_(head.weight)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    @property
    def values(self) -> tuple[float, float, float]:
        return float(self.w.detach()), float(self.s.weight.detach()), float(self.t.weight.detach())

    def both(self) -> tuple[Tensor, Tensor]:
        return self.source(), self.target()

    def source(self) -> Tensor:
        self.calls += 1
        return (self.w + 3 * self.s.weight).sum()

    def target(self) -> Tensor:
        self.calls += 1
        return (2 * self.w + 5 * self.t.weight).sum()


def _learner(momentum: float = 0.0) -> tuple[Toy, Learner]:
    toy = Toy()
    return toy, Learner(toy, torch.optim.SGD(toy.parameters(), lr=0.1, momentum=momentum), toy.s, toy.t, 1, 3)


def test_regular_is_one_step_of_half_of_each_loss_with_the_heads_gradients_rescaled() -> None:
    toy, learner = _learner()
    assert float(regular_step(learner, toy)) == pytest.approx(0.5 * 4 + 0.5 * 7)
    assert toy.w.grad is not None
    # 0.5 + 1; 1.5 times 4 / 1; 2.5 times 4 / 3
    assert [float(p.grad) for p in toy.parameters() if p.grad is not None] == pytest.approx([1.5, 6.0, 10 / 3])
    assert toy.values == pytest.approx((0.85, 0.4, 1 - 1 / 3))


def test_equal_batches_double_the_gradients_of_the_heads() -> None:
    toy, _ = _learner()
    learner = Learner(toy, torch.optim.SGD(toy.parameters(), lr=0.1), toy.s, toy.t, 8, 8)
    regular_step(learner, toy)
    assert [float(p.grad) for p in toy.parameters() if p.grad is not None] == pytest.approx([1.5, 3.0, 5.0])


def test_greedy_keeps_a_source_step_after_which_the_target_loss_is_below_the_bar() -> None:
    toy, learner = _learner()
    done = greedy_step(learner, toy, LEGACY_BAR)
    assert done.kept
    assert done.target_loss == pytest.approx(2 * 0.95 + 5)  # after w - 0.1 * 0.5
    assert float(done.loss) == pytest.approx(0.5 * 4 + 0.5 * 6.9)
    assert toy.values == pytest.approx((0.95 - 0.1, 0.85, 1 - 1 / 3))  # s is not rescaled, t is
    assert int(toy.calls) == 2


def test_greedy_undoes_it_otherwise_and_takes_a_whole_step_on_the_target() -> None:
    toy, learner = _learner()
    bar = float(2 * torch.tensor(1 - 0.1 * 0.5) + 5)
    done = greedy_step(learner, toy, bar)
    assert not done.kept, "equal is not below"
    assert float(done.loss) == pytest.approx(7.0)
    assert toy.values == pytest.approx((0.8, 1.0, 0.5))
    assert int(toy.calls) == 1, "the buffers of the undone passes are undone as well"


def test_momentum_runs_through_a_kept_step_and_not_through_one_that_is_undone() -> None:
    toy, learner = _learner(momentum=0.9)
    greedy_step(learner, toy, OPEN_BAR)
    assert toy.values == pytest.approx((0.95 - 0.1 * (0.9 * 0.5 + 1.0), 0.85, 1 - 1 / 3))
    toy, learner = _learner(momentum=0.9)
    greedy_step(learner, toy, 0.0)
    assert toy.values == pytest.approx((0.8, 1.0, 0.5))
    assert toy.s.weight not in learner.optimiser.state, "the head that never learned has no momentum"
    greedy_step(learner, toy, 0.0)
    assert toy.values == pytest.approx((0.8 - 0.1 * (0.9 * 2 + 2), 1.0, 0.5 - 0.1 * (0.9 * 5 + 5)))


def test_the_literal_bar_is_never_reset_and_the_repaired_one_follows_the_losses() -> None:
    losses = [5.0, 4.0, 6.0, 4.5, 3.9, 8.0, 7.0]
    legacy, repaired = LEGACY_BAR, OPEN_BAR
    kept: list[tuple[bool, bool]] = []
    for loss in losses:
        kept.append((loss < legacy, loss < repaired))
        legacy, repaired = lowest(legacy, loss), recent(repaired, loss, 0.5)
    # repaired bars: inf, 5, 4.5, 5.25, 4.875, 4.3875, 6.19375
    assert kept == [(True, True), (True, True), (False, False), (False, True), (True, True), (False, False), (False, False)]
    assert (legacy, repaired) == pytest.approx((3.9, 6.596875))


def test_the_first_target_loss_may_be_large() -> None:
    assert OPEN_BAR > 5e6
    assert not LEGACY_BAR > 5e6
    assert recent(OPEN_BAR, 5e6, 0.9) == 5e6
    assert math.isnan(recent(1.0, math.nan, 0.9))


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("steps", [0, 2])
def test_a_snapshot_restores_weights_statistics_and_optimiser_to_the_bit(kind: str, steps: int) -> None:
    network = small_network(8, seed=3, width=16).train()
    options: dict[str, Any] = {"lr": 0.01, "weight_decay": 1e-3}
    make = {
        "sgd": lambda: torch.optim.SGD(network.parameters(), momentum=0.9, **options),
        "adamw": lambda: torch.optim.AdamW(network.parameters(), **options),
    }
    optimiser = make[kind]()

    def step(seed: int) -> None:
        optimiser.zero_grad()
        network(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(seed))).logits.square().sum().backward()
        optimiser.step()

    for seed in range(steps):
        step(seed)
    weights, states = copy.deepcopy(network.state_dict()), copy.deepcopy(optimiser.state_dict()["state"])
    snapshot = Snapshot(network, optimiser)
    step(10)
    moved = [name for name, tensor in network.state_dict().items() if not torch.equal(tensor, weights[name])]
    assert any("running_mean" in name for name in moved)
    assert any("num_batches_tracked" in name for name in moved)
    snapshot.restore(network, optimiser)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())
    found = optimiser.state_dict()["state"]
    assert found.keys() == states.keys()
    assert all(torch.equal(torch.as_tensor(found[i][k]), torch.as_tensor(states[i][k])) for i in states for k in states[i])


@pytest.mark.parametrize(
    ("source", "target", "batch", "expected"),
    [(12_400, 7_463, 8, (8, 5)), (1_530, 3_552, 64, (28, 64)), (100, 100, 8, (8, 8)), (1, 1_000, 8, (1, 8))],
)
def test_the_larger_data_set_has_the_batch_and_the_other_one_that_lasts_as_long(
    source: int, target: int, batch: int, expected: tuple[int, int]
) -> None:
    assert batch_sizes(source, target, batch, proportional=True) == expected
    assert batch_sizes(source, target, batch, proportional=False) == (batch, batch)


def test_a_refresh_moves_statistics_and_nothing_else() -> None:
    network = small_network(8, seed=1, width=16).eval()
    before = copy.deepcopy(network.state_dict())
    refresh(network, torch.rand(4, 3, 32, 32))
    moved = {name.rsplit(".", 1)[1] for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"running_mean", "running_var", "num_batches_tracked"}
    assert not network.training
    assert all(p.grad is None for p in network.parameters())


def test_refreshes_by_hand() -> None:
    """Momentum 0.1: a batch of 0 and 2 has the mean 1 and, unbiased, the variance 2."""
    layer = nn.BatchNorm2d(1)
    pixels = torch.tensor([0.0, 2.0]).reshape(2, 1, 1, 1)
    refresh(layer, pixels)
    assert [float(layer.state_dict()[name]) for name in ("running_mean", "running_var")] == pytest.approx([0.1, 0.9 + 0.2])
    refresh(layer, pixels)
    assert [float(layer.state_dict()[name]) for name in ("running_mean", "running_var")] == pytest.approx([0.19, 0.99 + 0.2])


def test_transformers_have_batch_normalisation_in_a_convolutional_stem_alone() -> None:
    built = {a: build_network(NetworkConfig(architecture=a, width=32), {HEAD: 2}, 32) for a in (Architecture.VIT_B16, Architecture.VIT_SMALL)}
    assert [normalises_batches(n) for n in built.values()] == [False, True]
