"""Tests of the network of the locator: maps of half the side, their order, and what it says before it has learned."""

from __future__ import annotations

import pytest
import torch

from services.patching import locator_maps
from services.patching.locator_maps import CHANNELS, KINDS, STRIDE
from services.patching.working_image import MULTIPLE
from training.architectures.locator import PRIOR, LocatorNetwork
from training.architectures.network import parameter_count


@pytest.fixture
def network() -> LocatorNetwork:
    """One whose heads have learned something, so that its maps are no constants."""
    torch.manual_seed(0)
    made = LocatorNetwork(4).eval()
    torch.nn.init.normal_(made.heads.weight)
    return made


@pytest.mark.parametrize(("height", "width"), [(8, 8), (64, 96), (72, 40), (136, 8)])
def test_maps_have_half_the_side_of_the_image(network: LocatorNetwork, height: int, width: int) -> None:
    assert height % MULTIPLE == width % MULTIPLE == 0
    assert network(torch.rand(2, 3, height, width)).shape == (2, CHANNELS, height // STRIDE, width // STRIDE)


def test_there_is_a_map_for_every_kind_and_every_name() -> None:
    assert len(locator_maps.Kind) == KINDS
    names = [locator_maps.CELL, locator_maps.NUCLEUS, locator_maps.OFFSET_X, locator_maps.OFFSET_Y]
    assert [*locator_maps.Kind, *names] == list(range(CHANNELS))


def test_before_it_learns_it_says_the_prior_and_no_way() -> None:
    with torch.no_grad():
        said = LocatorNetwork(4)(torch.rand(2, 3, 64, 64))
    torch.testing.assert_close(said[:, : KINDS + 2].sigmoid(), torch.full((2, KINDS + 2, 32, 32), PRIOR))
    assert not said[:, KINDS + 2 :].any()


def test_the_same_seed_gives_the_same_maps(network: LocatorNetwork) -> None:
    images = torch.rand(1, 3, 64, 64)
    torch.manual_seed(0)
    again = LocatorNetwork(4).eval()
    torch.nn.init.normal_(again.heads.weight)
    assert torch.equal(network(images), network(images))
    assert torch.equal(network(images), again(images))
    assert network(images).std().item() > 0.01


def test_images_of_a_batch_do_not_change_each_other(network: LocatorNetwork) -> None:
    images = torch.rand(3, 3, 64, 64)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]), atol=1e-5, rtol=1e-5)


def test_a_part_of_an_image_far_away_changes_nothing(network: LocatorNetwork) -> None:
    """So a field can be seen in windows with a margin."""
    images = torch.rand(1, 3, 64, 512)
    other = images.clone()
    other[..., 384:] = torch.rand(1, 3, 64, 128)
    before, after = network(images), network(other)
    assert torch.allclose(before[..., :64], after[..., :64], atol=1e-5)
    assert not torch.allclose(before[..., 192:], after[..., 192:], atol=1e-3)


def test_every_weight_is_learned() -> None:
    torch.manual_seed(0)
    network = LocatorNetwork(4).train()
    torch.nn.init.normal_(network.heads.weight)
    network(torch.rand(2, 3, 64, 64)).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())


def test_the_shipped_width_has_few_weights() -> None:
    assert parameter_count(LocatorNetwork(16)) < 400_000
    assert parameter_count(LocatorNetwork(8)) < parameter_count(LocatorNetwork(16))
