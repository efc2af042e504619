"""Tests of the training of the locator: the loss of good, bad and empty maps, and batches by their step."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from services.patching.locator_maps import CELL, CHANNELS, KINDS, NUCLEUS, OFFSET_X, Kind
from tests.training.location.drawn import Disk, sample, window
from training.architectures.locator import LocatorNetwork
from training.learning.devices import Worker
from training.location.targets import Targets, stack, targets_of
from training.location.task import LocatorTask, loss_of_maps
from training.location.window import Window
from training.location.windows import Changes, Draws

SIDE = 64
CELLS = (Disk(20, 24, radius=10, nucleus=7), Disk(46, 45, radius=9, nucleus=6, kind=Kind.SMUDGED))
SURE = 8.0
"""Logit of what is nearly certain."""


def _wanted(*windows: Window) -> dict[str, Tensor]:
    targets = stack([targets_of(w) for w in windows])
    return {f.name: torch.from_numpy(getattr(targets, f.name)) for f in fields(Targets)}


def _said(wanted: dict[str, Tensor]) -> Tensor:
    """Nearly perfect maps: sure logits of masks, the logits of the peaks, and the offsets."""
    heat = torch.logit(wanted["heat"].clamp(1e-4, 1 - 1e-4))
    masks = [SURE * (2 * wanted[name][:, None] - 1) for name in ("cell", "nucleus")]
    return torch.cat([heat, *masks, wanted["offset"]], dim=1)


def _task(seed: int = 0, rank: int = 0) -> LocatorTask:
    torch.manual_seed(0)
    draws = Draws([sample(CELLS, 96, 128)], {"drawn": 1.0}, Changes(), SIDE)
    worker = Worker(torch.device("cpu"), rank)
    return LocatorTask(LocatorNetwork(4), draws, batch=2, steps=5, epochs=2, rate=0.01, decay=0.0, seed=seed, worker=worker)


@pytest.fixture(scope="module")
def wanted() -> dict[str, Tensor]:
    return _wanted(window(CELLS, SIDE), window([CELLS[0]], SIDE))


def test_nearly_perfect_maps_have_a_small_loss(wanted: dict[str, Tensor]) -> None:
    said = _said(wanted)
    assert said.shape == (2, CHANNELS, SIDE // 2, SIDE // 2)
    assert float(loss_of_maps(said, wanted)) < 1.0
    assert float(loss_of_maps(torch.zeros_like(said), wanted)) > 5.0


@pytest.mark.parametrize(
    "channels",
    [slice(0, 1), slice(1, 2), slice(CELL, CELL + 1), slice(NUCLEUS, NUCLEUS + 1), slice(OFFSET_X, OFFSET_X + 1), slice(OFFSET_X + 1, CHANNELS)],
    ids=["cells", "smudged cells", "whole cell", "nucleus", "offset x", "offset y"],
)
def test_each_wrong_map_is_punished(wanted: dict[str, Tensor], channels: slice) -> None:
    said = _said(wanted)
    wrong = said.clone()
    wrong[:, channels] = said[:, channels].flip(-1) if channels.start < OFFSET_X else said[:, channels] + 1.0
    assert float(loss_of_maps(wrong, wanted)) > float(loss_of_maps(said, wanted)) + 0.1


def test_a_centre_that_is_missed_and_one_that_is_made_up_are_punished(wanted: dict[str, Tensor]) -> None:
    said = _said(wanted)
    missed, made_up = said.clone(), said.clone()
    missed[:, :KINDS] = -SURE
    made_up[:, Kind.PLATELET, 2, 2] = SURE
    perfect = float(loss_of_maps(said, wanted))
    assert float(loss_of_maps(missed, wanted)) > perfect + 1.0
    assert float(loss_of_maps(made_up, wanted)) > perfect + 1.0


def test_what_does_not_count_changes_no_loss() -> None:
    unsure = window([CELLS[0], Disk(46, 45, radius=9, is_known=False)], SIDE, platelets_are_marked=False, nuclei_are_known=False)
    wanted = _wanted(unsure)
    said = _said(wanted)
    other = said.clone()
    other[:, CELL][wanted["cell_weight"] == 0] *= -1
    other[:, NUCLEUS] = 3.0
    other[:, OFFSET_X:] += 5 * (1 - wanted["offset_weight"][:, None])
    other[:, Kind.PLATELET] = 4.0
    assert float(loss_of_maps(other, wanted)) == pytest.approx(float(loss_of_maps(said, wanted)), abs=1e-6)


def test_an_empty_window_has_a_finite_loss_with_a_gradient() -> None:
    wanted = _wanted(window([], SIDE))
    said = torch.zeros(1, CHANNELS, SIDE // 2, SIDE // 2, requires_grad=True)
    loss = loss_of_maps(said, wanted)
    loss.backward()
    assert torch.isfinite(loss)
    assert said.grad is not None
    assert torch.isfinite(said.grad).all()
    assert float(loss_of_maps(torch.full(said.shape, -20.0), wanted)) < 0.01
    assert loss.item() > 1.0


def test_a_window_of_which_nothing_is_known_has_no_loss_of_masks() -> None:
    blind = replace(window([], SIDE), unsure=np.ones((SIDE, SIDE), bool))
    wanted = _wanted(blind)
    low, high = torch.full((1, CHANNELS, SIDE // 2, SIDE // 2), -SURE), torch.full((1, CHANNELS, SIDE // 2, SIDE // 2), -SURE)
    high[:, CELL : NUCLEUS + 1] = SURE
    assert float(loss_of_maps(high, wanted)) == float(loss_of_maps(low, wanted)) < 0.01


def test_huge_logits_give_no_infinite_loss(wanted: dict[str, Tensor]) -> None:
    assert torch.isfinite(loss_of_maps(1e4 * (1 - 2 * _said(wanted).sign()), wanted))


def test_a_batch_is_a_function_of_its_step() -> None:
    task = _task()
    first, again, next_one = task.batch(3), _task().batch(3), task.batch(4)
    assert first.images.shape == (2, 3, SIDE, SIDE)
    assert first.images.dtype == torch.float32
    assert 0.5 < float(first.images.max()) <= 1.0
    assert torch.equal(first.images, again.images)
    assert all(torch.equal(first.targets[name], again.targets[name]) for name in first.targets)
    assert not torch.equal(first.images, next_one.images)
    assert not torch.equal(first.images[0], first.images[1])


def test_other_seeds_and_other_processes_see_other_windows() -> None:
    batches = [_task(), _task(seed=1), _task(rank=1)]
    images = [task.batch(0).images for task in batches]
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


def test_images_and_targets_of_a_batch_belong_together() -> None:
    batch = _task().batch(1)
    dark = torch.nn.functional.avg_pool2d(batch.images[:, 1:2], 2)[:, 0] < 0.5
    nuclei = batch.targets["nucleus"] == 1.0
    assert nuclei.any()
    assert dark[nuclei].float().mean() > 0.9


def test_a_step_against_the_gradient_lowers_the_loss() -> None:
    task = _task()
    batch = task.batch(0)
    network = task.network.train()
    losses = []
    for _ in range(12):
        loss = task.loss(network, batch)
        task.optimiser.zero_grad()
        loss.backward()
        task.optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_rates_are_one_cycle_and_no_epoch_is_chosen() -> None:
    task = _task()
    learning = [task.rates(step).learning_rate for step in range(task.epochs * task.steps_per_epoch)]
    assert max(learning) == learning[0] == 0.01
    assert learning[-1] < 0.001
    assert task.score(task.network, 1) == ((), {})
