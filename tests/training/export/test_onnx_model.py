"""Tests of the export: the exported graph says what the network says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from services.common.engines.onnx_runtime import open_session
from tests.training.small import small_network
from training.architectures.build import Architecture, NetworkConfig, build_network
from training.architectures.network import HEAD, MergedClasses
from training.errors import GateError
from training.export import onnx_model
from training.export.onnx_model import OUTPUTS, PARITY, ParityError, ServedNetwork, ServedPatchNetwork, difference, export_onnx, parity_gap

pytestmark = pytest.mark.slow

SIDE = 64


def _network(seed: int = 0, temperature: float = 1.7) -> ServedNetwork:
    torch.manual_seed(seed)
    return ServedNetwork(small_network(16), [0.7, 0.6, 0.7], [0.2, 0.25, 0.15], temperature).eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[ServedNetwork, Path]:
    network, path = _network(), tmp_path_factory.mktemp("repository") / "small_net" / "1" / "model.onnx"
    export_onnx(network, SIDE, path)
    return network, path


def _images(count: int, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


@pytest.mark.parametrize("batch", [1, 2, 7, 32])
def test_parity_at_every_batch_size(exported: tuple[ServedNetwork, Path], batch: int) -> None:
    network, path = exported
    assert parity_gap(network, path, _images(batch)) <= PARITY == 1e-4


def test_outputs_have_their_shapes_and_identities(exported: tuple[ServedNetwork, Path]) -> None:
    _, path = exported
    names = ["logits", "embedding", "patch_embeddings", "class_activations"]
    logits, embedding, places, activations = open_session(path, 1).run(names, {"images": _images(3)})
    assert logits.shape == (3, 2)
    assert embedding.shape == (3, 16)
    assert places.shape == (3, SIDE // 16, SIDE // 16, 16)
    np.testing.assert_allclose(places.mean(axis=(1, 2)), embedding, atol=1e-5)
    assert activations.shape == (3, SIDE // 16, SIDE // 16, 2)
    np.testing.assert_allclose(activations.mean(axis=(1, 2)), logits, atol=1e-5)
    assert activations.std(axis=(1, 2)).min() > 0.01


@pytest.mark.parametrize("how", ["class token", "merged"])
def test_logits_that_are_no_mean_come_without_activations(how: str) -> None:
    torch.manual_seed(0)
    if how == "merged":
        network: torch.nn.Module = MergedClasses(small_network(16, classes=4), ((0,), (1, 3), (2,)))
    else:
        network = build_network(NetworkConfig(architecture=Architecture.VIT_SMALL, width=32, embedding=8), {HEAD: 3}, SIDE)
    served = ServedNetwork(network, [0.5] * 3, [0.2] * 3, 1.0).eval()
    assert served.outputs == OUTPUTS
    with torch.no_grad():
        logits, embedding, places = served(torch.from_numpy(_images(2)))
    assert logits.shape == (2, 3)
    np.testing.assert_allclose(places.mean(dim=(1, 2)).numpy(), embedding.numpy(), atol=1e-5)


def test_normalisation_and_temperature_are_inside() -> None:
    network = _network()
    images = _images(2)
    normalised = (images.astype(np.float32) / 255 - [0.7, 0.6, 0.7]) / [0.2, 0.25, 0.15]
    with torch.no_grad():
        plain = network.network(torch.from_numpy(normalised.transpose(0, 3, 1, 2).astype(np.float32)))
        logits, embedding, *_ = network(torch.from_numpy(images))
    np.testing.assert_allclose(logits.numpy(), plain.logits.numpy() / 1.7, atol=1e-4)
    np.testing.assert_allclose(embedding.numpy(), plain.embedding.numpy(), atol=1e-4)


def test_the_file_holds_its_weights(exported: tuple[ServedNetwork, Path]) -> None:
    _, path = exported
    assert [p.name for p in path.parent.iterdir()] == ["model.onnx"]


def test_a_tampered_file_is_told(exported: tuple[ServedNetwork, Path], tmp_path: Path) -> None:
    network, path = exported
    model = onnx.load(str(path))
    weights = max(model.graph.initializer, key=lambda w: np.prod(w.dims))
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(1.05), weights.name))
    onnx.save(model, str(tmp_path / "model.onnx"))
    assert parity_gap(network, tmp_path / "model.onnx", _images(2)) > PARITY


def test_an_export_that_differs_is_refused_and_the_file_before_it_stays(
    exported: tuple[ServedNetwork, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = exported
    content = path.read_bytes()

    def export_another(_network: object, _images: object, written: str, **kwargs: object) -> None:
        Path(written).write_bytes(content)

    (tmp_path / "model.onnx").write_bytes(b"served before")
    monkeypatch.setattr(torch.onnx, "export", export_another)
    with pytest.raises(ParityError):
        export_onnx(_network(seed=1), SIDE, tmp_path / "model.onnx")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("model.onnx", b"served before")]


def test_the_file_says_nothing_of_the_machine_that_made_it(exported: tuple[ServedNetwork, Path]) -> None:
    _, path = exported
    content = path.read_bytes()
    assert str(Path(onnx_model.__file__).parents[2]).encode() not in content
    assert b".py" not in content


def test_differences_are_absolute_below_one_and_relative_above() -> None:
    small, large = np.array([[0.1, 0.9]], np.float32), np.array([[40.0, 3.0]], np.float32)
    assert difference(small, small + np.float32(2e-4)) == pytest.approx(2e-4, rel=1e-2)
    assert difference(large, large + np.float32(2e-4)) == pytest.approx(5e-6, rel=0.1)


def test_logits_of_patches_are_the_mean_of_their_class_activations(tmp_path: Path) -> None:
    network = ServedPatchNetwork(small_network(0, seed=3), [0.7, 0.6, 0.7], [0.2, 0.25, 0.15], (1.5, 0.5)).eval()
    path = tmp_path / "places" / "1" / "model.onnx"
    assert export_onnx(network, SIDE, path) <= PARITY
    session = open_session(path, 1)
    assert [o.name for o in session.get_outputs()] == ["logits", "class_activations"]
    images = _images(3)
    logits, activations = session.run(None, {"images": images})
    assert activations.shape == (3, SIDE // 16, SIDE // 16, 2)
    np.testing.assert_allclose(activations.mean(axis=(1, 2)), logits, atol=1e-6)
    normalised = ((images / np.float32(255) - [0.7, 0.6, 0.7]) / [0.2, 0.25, 0.15]).transpose(0, 3, 1, 2).astype(np.float32)
    with torch.no_grad():
        plain = small_network(0, seed=3).eval()(torch.from_numpy(normalised)).logits.numpy()
    np.testing.assert_allclose(logits, plain / [1.5, 0.5], atol=1e-3)


def test_a_hidden_layer_has_no_class_activations() -> None:
    network = build_network(NetworkConfig(architecture=Architecture.HISTONET_VGG), {HEAD: 2}, 224)
    with pytest.raises(GateError, match="hidden layer"):
        ServedPatchNetwork(network, [0.5] * 3, [0.2] * 3, (1.0, 1.0))
