"""Tests of the lighter files and of the gates that they must pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from services.common.engines.onnx_runtime import open_session
from tests.training.small import SIDE, small_network
from training.export.gates import GateReport, speed_up
from training.export.lighter import divide_logits, write_fp16, write_int8
from training.export.onnx_model import ACTIVATIONS, INPUT, OUTPUTS, ServedNetwork, export_onnx
from training.recipes.config import Gates

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lighter") / "model.onnx"
    export_onnx(ServedNetwork(small_network(16, seed=0), [0.6] * 3, [0.2] * 3, 1.5), SIDE, path)
    return path


def _cells(count: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def _outputs(path: Path, cells: np.ndarray) -> list[np.ndarray]:
    return open_session(path, threads=1).run([*OUTPUTS, ACTIVATIONS], {INPUT: cells})


@pytest.mark.parametrize(("kind", "tolerance"), [("fp16", 0.01), ("int8", 0.25)])
def test_lighter_files_say_nearly_the_same_with_the_same_inputs_and_outputs(exported: Path, tmp_path: Path, kind: str, tolerance: float) -> None:
    path = tmp_path / f"model_{kind}.onnx"
    if kind == "fp16":
        write_fp16(exported, path)
    else:
        write_int8(exported, path, _cells(64, seed=1))
    for cells in (_cells(1), _cells(7)):
        for found, expected in zip(_outputs(path, cells), _outputs(exported, cells), strict=True):
            assert found.shape == expected.shape
            assert found.dtype == np.float32
            assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
    assert path.stat().st_size < 0.75 * exported.stat().st_size
    assert list(tmp_path.iterdir()) == [path]


def test_int8_is_really_quantised(exported: Path, tmp_path: Path) -> None:
    write_int8(exported, tmp_path / "a.onnx", _cells(32))
    kinds = [t.data_type for t in onnx.load(str(tmp_path / "a.onnx")).graph.initializer]
    assert kinds.count(onnx.TensorProto.INT8) >= 20


def test_a_failure_while_quantising_leaves_nothing(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r".+"):
        write_int8(exported, tmp_path / "a.onnx", _cells(8)[:, :16])
    assert not list(tmp_path.iterdir())


def test_the_temperature_divides_logits_and_activations_and_nothing_else(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(exported.read_bytes())
    divide_logits(path, 2.0)
    divide_logits(path, 1.25)
    before, after = _outputs(exported, _cells()), _outputs(path, _cells())
    np.testing.assert_allclose(after[0], before[0] / 2.5, rtol=1e-5)
    np.testing.assert_array_equal(after[1], before[1])
    np.testing.assert_array_equal(after[2], before[2])
    np.testing.assert_allclose(after[3], before[3] / 2.5, rtol=1e-5)


@pytest.mark.parametrize(
    ("report", "passed"),
    [
        (GateReport("a", 0.0029, -0.01), True),
        (GateReport("a", 0.0031, 0.0), False),
        (GateReport("a", 0.0, 0.0031), False),
        (GateReport("a", 0.0, 0.0, 0.005), True),
        (GateReport("a", 0.0, 0.0, 0.0051), False),
        (GateReport("a", 0.02, 0.0, limits=Gates(max_auc_loss=0.02)), True),
    ],
)
def test_gates(report: GateReport, passed: bool) -> None:
    assert report.passed is passed
    assert ("not served" in str(report)) is not passed


def test_what_passes_is_served_only_where_it_is_asked_for() -> None:
    report = GateReport("a", 0.0, 0.0, wanted=False)
    assert (report.passed, report.served) == (True, False)
    assert str(report).endswith("not asked for")


def test_speed_is_a_ratio_of_the_two(exported: Path, tmp_path: Path) -> None:
    assert 0.2 < speed_up(exported, exported, _cells()) < 5
