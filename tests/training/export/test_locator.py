"""Tests of exporting a locator: the file says what the network says, at any side, and appears only when it does."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from services.common.engines.onnx_runtime import OnnxRuntimeEngine, open_session
from services.common.errors import InvalidRequestError
from services.common.releases import File, Model, Role, sha256_of
from services.common.workers import Workers
from services.patching.locator_maps import CHANNELS, MAPS, OFFSET_X
from training.architectures.locator import LocatorNetwork
from training.export import locator
from training.export.locator import ServedLocator, export_locator
from training.export.model_configs import write_model_configs
from training.export.onnx_model import INPUT, PARITY, ParityError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def network() -> LocatorNetwork:
    """One whose heads have learned something, so that its maps are no constants."""
    torch.manual_seed(0)
    made = LocatorNetwork(4).eval()
    torch.nn.init.normal_(made.heads.weight)
    return made


@pytest.fixture(scope="module")
def exported(network: LocatorNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "1" / "model.onnx"
    assert 0.0 <= export_locator(network, path) <= PARITY
    return path


def _images(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, height, width, 3), np.uint8)


@pytest.mark.parametrize(("count", "height", "width"), [(1, 104, 72), (3, 8, 256)])
def test_the_file_says_what_the_network_says(network: LocatorNetwork, exported: Path, count: int, height: int, width: int) -> None:
    images = _images(count, height, width)
    (maps,) = open_session(exported, 1).run([MAPS], {INPUT: images})
    with torch.no_grad():
        said = network(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).numpy()
    assert maps.dtype == np.float32
    assert maps.shape == (count, CHANNELS, height // 2, width // 2)
    np.testing.assert_allclose(maps[:, :OFFSET_X], 1 / (1 + np.exp(-said[:, :OFFSET_X])), atol=1e-4)
    np.testing.assert_allclose(maps[:, OFFSET_X:], said[:, OFFSET_X:], atol=1e-3)
    assert maps.std() > 0.01


def test_heat_maps_and_masks_are_probabilities_and_offsets_are_not(exported: Path) -> None:
    (maps,) = open_session(exported, 1).run([MAPS], {INPUT: _images(1, 64, 64)})
    assert maps[:, :OFFSET_X].min() >= 0.0
    assert maps[:, :OFFSET_X].max() <= 1.0
    assert maps[:, OFFSET_X:].min() < 0.0


def test_the_file_holds_its_weights_and_no_origin(exported: Path) -> None:
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]
    model = onnx.load(str(exported))
    assert [i.name for i in model.graph.input] == [INPUT]
    assert [o.name for o in model.graph.output] == [MAPS]
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert b"/training/" not in exported.read_bytes()


def test_a_served_locator_says_what_the_file_says(network: LocatorNetwork, exported: Path) -> None:
    images = _images(1, 64, 64)
    with torch.no_grad():
        expected = ServedLocator(network).eval()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(open_session(exported, 1).run([MAPS], {INPUT: images})[0], expected, atol=1e-3)


@pytest.fixture
def wrong_exporter(exported: Path, monkeypatch: pytest.MonkeyPatch) -> LocatorNetwork:
    """A network of which the exporter writes the graph of another one."""

    def export(_: object, __: object, path: str, **___: object) -> None:
        shutil.copy(exported, path)

    monkeypatch.setattr(torch.onnx, "export", export)
    torch.manual_seed(1)
    made = LocatorNetwork(4)
    torch.nn.init.normal_(made.heads.weight)
    return made


def test_a_file_that_says_something_else_never_appears(wrong_exporter: LocatorNetwork, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="differ by"):
        export_locator(wrong_exporter, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_that_was_there_stays_when_the_new_one_does_not_pass(wrong_exporter: LocatorNetwork, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"before")
    with pytest.raises(ParityError):
        export_locator(wrong_exporter, tmp_path / "model.onnx")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


@pytest.mark.parametrize("bound", [-1.0, PARITY])
def test_the_largest_difference_decides(
    network: LocatorNetwork, wrong_exporter: LocatorNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: float
) -> None:
    monkeypatch.setattr(locator, "PARITY", bound)
    if bound < 0:
        with pytest.raises(ParityError):
            export_locator(network, tmp_path / "model.onnx")
    else:
        assert export_locator(network, tmp_path / "model.onnx") <= bound
    assert (tmp_path / "model.onnx").exists() is (bound > 0)


async def test_the_engine_runs_it_at_any_side(network: LocatorNetwork, exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locator_test"
    path = folder / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    shutil.copy(exported, path)
    write_model_configs(folder, path, 64, max_batch=2, any_side=True)
    model = Model(model=folder.name, version=1, files={role: File(file=path.name, sha256=sha256_of(path)) for role in Role})
    workers = Workers(1)
    engine = OnnxRuntimeEngine(tmp_path, workers)
    try:
        for height, width in ((64, 64), (104, 72)):
            images = _images(1, height, width)
            maps = (await engine.infer(model, images, [MAPS]))[MAPS]
            with torch.no_grad():
                expected = ServedLocator(network)(torch.from_numpy(images)).numpy()
            np.testing.assert_allclose(maps, expected, atol=1e-3)
        with pytest.raises(InvalidRequestError):
            await engine.infer(model, np.zeros((1, 64, 64, 4), np.uint8), [MAPS])
    finally:
        workers.close()
