"""Tests of the architectures: exact numbers of parameters, the block by hand, the published checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training.architectures import histonet, vit
from training.architectures.build import Architecture, NetworkConfig, build_network
from training.architectures.lbp import Kernel, LbpConvolution, draw_kernels
from training.architectures.network import HEAD, Network, parameter_count
from training.architectures.resnet import RESNET18, ResNet, Stem
from training.errors import RecipeError
from training.export.allnet import load_allnet


def _network(architecture: Architecture, classes: int, side: int = 224, **options: Any) -> Network:
    return build_network(NetworkConfig(architecture=architecture, **options), {HEAD: classes}, side)


@pytest.mark.parametrize(
    ("architecture", "classes", "trained", "all_of_them"),
    [
        (Architecture.RESNET34_LBP, 2, 342_082, 1_365_058),
        (Architecture.RESNET34, 2, 21_285_698, 21_285_698),
        (Architecture.RESNET18_LBP, 2, 264_130, 752_578),
        (Architecture.RESNET18_LBP, 9, 267_721, 756_169),
        (Architecture.RESNET18_LBP, 26, 276_442, 764_890),
        (Architecture.RESNET18_LBP, 38, 282_598, 771_046),
        (Architecture.RESNET34_LBP, 9, 345_673, 1_368_649),
        (Architecture.RESNET34_LBP, 26, 354_394, 1_377_370),
        (Architecture.RESNET34_LBP, 38, 360_550, 1_383_526),
        (Architecture.HISTONET_VGG, 9, 2_992_169, 2_992_169),
        (Architecture.HISTONET_VGG, 2, 2_988_578, 2_988_578),
        (Architecture.RESNET18, 1000, 11_689_512, 11_689_512),
    ],
)
def test_numbers_of_parameters(architecture: Architecture, classes: int, trained: int, all_of_them: int) -> None:
    network = _network(architecture, classes)
    assert parameter_count(network) == trained
    assert parameter_count(network, trainable=False) == all_of_them


def test_the_ratio_of_the_paper() -> None:
    assert round(100 * 342_082 / 21_285_698, 3) == 1.607


@pytest.mark.parametrize(("side", "expected"), [(224, 86_567_656), (384, 86_859_496)])
def test_vit_b16_has_the_known_number_of_parameters(side: int, expected: int) -> None:
    assert parameter_count(_network(Architecture.VIT_B16, 1000, side)) == expected


@pytest.mark.parametrize(
    ("architecture", "side", "grid"),
    [
        (Architecture.RESNET18, 128, 4),
        (Architecture.RESNET18_LBP, 128, 4),
        (Architecture.RESNET34, 100, 4),
        (Architecture.HISTONET_VGG, 224, 1),
        (Architecture.VIT_SMALL, 64, 4),
    ],
)
@pytest.mark.parametrize("embedding", [0, 12])
def test_the_embedding_is_the_mean_of_the_place_embeddings(architecture: Architecture, side: int, grid: int, embedding: int) -> None:
    torch.manual_seed(0)
    network = _network(architecture, 3, side, embedding=embedding, width=32).eval()
    outputs = network(torch.randn(2, 3, side, side))
    assert outputs.logits.shape == (2, 3)
    assert outputs.place_embeddings.shape[:3] == (2, grid, grid)
    assert outputs.embedding.shape == (2, embedding or outputs.place_embeddings.shape[3])
    torch.testing.assert_close(outputs.place_embeddings.mean(dim=(1, 2)), outputs.embedding)


def test_width_and_full_resolution() -> None:
    network = _network(Architecture.RESNET18, 2, 64, width=8, stem=Stem.FULL_RESOLUTION).eval()
    assert network(torch.randn(1, 3, 64, 64)).place_embeddings.shape == (1, 4, 4, 64)


def test_several_heads_share_the_features() -> None:
    network = Network(ResNet(RESNET18, 8), {"level1": 9, "level2": 26, "level3": 38}).eval()
    x = torch.randn(2, 3, 64, 64)
    logits = {name: network(x, head=name).logits for name in ("level1", "level2", "level3")}
    assert {name: tuple(z.shape) for name, z in logits.items()} == {"level1": (2, 9), "level2": (2, 26), "level3": (2, 38)}
    torch.testing.assert_close(network(x).logits, logits["level1"])


def test_the_block_by_hand() -> None:
    """One channel, a constant kernel: normalise (identity), sum of the 3x3 neighbourhood, ReLU, weight 2 plus bias 1, maximum over 3x3."""
    block: Any = LbpConvolution(1, 1, 1, relu=True).eval()
    with torch.no_grad():
        block[1].weight.fill_(0.0)
        block[1].weight[0] = 1.0
        block[1].weight[1] = -1.0
        block[2].weight.fill_(0.0)
        block[2].weight[0, :2, 0, 0] = torch.tensor([2.0, 2.0])
        block[2].bias.fill_(1.0)
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 3.0
    scale = 1 / (1 + 1e-5) ** 0.5
    expected = torch.full((1, 1, 5, 5), 1.0 + 2 * 3.0 * scale)
    torch.testing.assert_close(block(x), expected)
    block.relu = False
    torch.testing.assert_close(block(x), torch.full((1, 1, 5, 5), 1.0))
    x[0, 0, 2, 2] = -3.0
    block.relu = True
    torch.testing.assert_close(block(x), expected)


def test_the_maximum_halves_at_stride_two_and_is_there_at_stride_one() -> None:
    assert LbpConvolution(4, 8, 2)(torch.randn(2, 4, 9, 9)).shape == (2, 8, 5, 5)
    assert LbpConvolution(4, 8, 1)(torch.randn(2, 4, 9, 9)).shape == (2, 8, 9, 9)


def test_binary_kernels_are_sparse_signs_and_gaussian_ones_dense() -> None:
    torch.manual_seed(0)
    binary = draw_kernels(Kernel.BINARY, torch.Size((16, 512, 3, 3)))
    assert set(binary.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert (binary == 0).float().mean() == pytest.approx(0.5, abs=0.01)
    assert (binary == 1).float().mean() == pytest.approx(0.25, abs=0.01)
    gaussian = draw_kernels(Kernel.GAUSSIAN, torch.Size((16, 512, 3, 3)))
    assert (gaussian == 0).sum() == 0
    assert gaussian.std() == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.01)


def test_generic_initialisation_leaves_binary_kernels_alone() -> None:
    """The defect of the original program: every convolution was initialised once more after the fixed ones were drawn."""
    network = _network(Architecture.RESNET18_LBP, 2)
    fixed: list[Any] = [m[1].weight for m in network.modules() if isinstance(m, LbpConvolution)]
    assert len(fixed) == 16
    assert all(set(w.unique().tolist()) <= {-1.0, 0.0, 1.0} for w in fixed)


def test_fixed_kernels_are_never_trained() -> None:
    network = _network(Architecture.RESNET18_LBP, 2, 64, width=8)
    before = {name: p.clone() for name, p in network.named_parameters()}
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], 0.1, weight_decay=0.1)
    network(torch.randn(4, 3, 64, 64)).logits.square().sum().backward()
    optimiser.step()
    fixed = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert len(fixed) == 16
    changed = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert not changed & fixed
    assert len(changed) > 60


def test_histonet_order_and_initialisation() -> None:
    network: Any = _network(Architecture.HISTONET_VGG, 9)
    kinds = [type(m).__name__ for m in network.backbone.layers][:4]
    assert kinds == ["Conv2d", "ReLU", "BatchNorm2d", "MaxPool2d"]
    assert [type(m).__name__ for m in network.hidden] == ["Linear", "ReLU", "BatchNorm1d"]
    assert float(network.hidden[0].bias.abs().max()) == 0.0
    assert float(network.hidden[0].weight.abs().max()) <= (6 / (256 + 512)) ** 0.5


def test_sides_that_an_architecture_cannot_take_are_refused() -> None:
    with pytest.raises(RecipeError, match="at least 194 px"):
        _network(Architecture.HISTONET_VGG, 2, histonet.MIN_SIDE - 1)
    _network(Architecture.HISTONET_VGG, 2, histonet.MIN_SIDE).eval()(torch.zeros(1, 3, histonet.MIN_SIDE, histonet.MIN_SIDE))
    with pytest.raises(RecipeError, match="multiple of 16"):
        _network(Architecture.VIT_SMALL, 2, 100)
    with pytest.raises(ValueError, match="not a multiple"):
        vit.VisionTransformer(100, 16, 32, 1, 1, 64)


def test_the_small_transformer_sees_with_convolutions_and_judges_by_the_class_token() -> None:
    network: Any = _network(Architecture.VIT_SMALL, 2, 64, width=64).eval()
    features = network.backbone(torch.randn(2, 3, 64, 64))
    assert features.pooled.shape == (2, 64)
    assert not torch.allclose(features.pooled, features.by_place.mean(dim=(1, 2)))
    assert sum(isinstance(m, torch.nn.Conv2d) for m in network.backbone.stem.modules()) == 5


@pytest.mark.shared_data
def test_the_published_checkpoint_says_what_the_original_program_says(shared_data: Path) -> None:
    folder = shared_data / "allnet_adp_checkpoints"
    network, imported = load_allnet(folder / "resnet18_lbcnn_level1.pt")
    assert (imported.architecture, imported.classes) == (Architecture.RESNET18_LBP, 9)
    x = (np.random.default_rng(20261122).integers(0, 256, (4, 3, 224, 224)).astype("f4") / 255 - 0.5) / 0.25
    with torch.no_grad():
        found = network(torch.from_numpy(x)).logits.numpy()
    np.testing.assert_allclose(found, np.loadtxt(folder / "level1_logits.csv", delimiter=","), atol=1e-4)


@pytest.mark.shared_data
def test_with_the_relu_of_the_papers_it_would_not(shared_data: Path) -> None:
    folder = shared_data / "allnet_adp_checkpoints"
    network, _ = load_allnet(folder / "resnet18_lbcnn_level1.pt")
    for module in network.modules():
        if isinstance(module, LbpConvolution):
            module.relu = True
    x = (np.random.default_rng(20261122).integers(0, 256, (4, 3, 224, 224)).astype("f4") / 255 - 0.5) / 0.25
    with torch.no_grad():
        found = network(torch.from_numpy(x)).logits.numpy()
    assert np.abs(found - np.loadtxt(folder / "level1_logits.csv", delimiter=",")).max() > 0.1
