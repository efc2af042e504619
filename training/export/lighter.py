"""Lighter files of an exported network: float16 for GPUs, int8 for CPUs; and the temperature of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from training.export.onnx_model import ACTIVATIONS, INPUT, LOGITS

CALIBRATION_CELLS: Final = 512
_BATCH: Final = 32
_QUANTISED: Final = ("Conv", "Gemm", "MatMul", "Add", "MaxPool", "Relu")


class _Cells(CalibrationDataReader):
    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._batches = iter([pixels[i : i + _BATCH] for i in range(0, len(pixels), _BATCH)])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def write_int8(path: Path, to: Path, training_cells: NDArray[np.uint8]) -> None:
    """Quantise weights (per channel) and activations to int8, with ranges seen on training cells.

    Args:
        path: float32 file of ``export_onnx``.
        to: the file to write.
        training_cells: uint8 (N, side, side, 3); the first ``CALIBRATION_CELLS`` are used, so give them shuffled.
    """
    with TemporaryDirectory() as folder:
        simplified = Path(folder) / "simplified.onnx"
        quant_pre_process(str(path), str(simplified), skip_symbolic_shape=True)

        def make(temporary: Path) -> None:
            quantize_static(
                str(simplified),
                str(temporary),
                _Cells(training_cells[:CALIBRATION_CELLS]),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_QUANTISED),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )

        _write(to, make)


def write_fp16(path: Path, to: Path) -> None:
    """Convert to float16 inside; input and outputs stay as they are.

    Args:
        path: float32 file of ``export_onnx``.
        to: the file to write.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    _write(to, lambda temporary: onnx.save(convert_float_to_float16(onnx.load(str(path)), keep_io_types=True), str(temporary)))


def divide_logits(path: Path, temperature: float) -> None:
    """Divide the logits of a file, and class activations where it has them, by a temperature, in the file itself.

    Args:
        path: the file; its outputs keep their names and shapes.
        temperature: positive.
    """
    model = onnx.load(str(path))
    number = len(model.graph.node)
    value = f"temperature_{number}"
    divided = [o.name for o in model.graph.output if o.name in (LOGITS, ACTIVATIONS)]
    raw = {name: f"{name}_{number}" for name in divided}
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [raw.get(name, name) for name in names]
    model.graph.initializer.append(helper.make_tensor(value, TensorProto.FLOAT, [], [temperature]))
    for name in divided:
        model.graph.node.append(helper.make_node("Div", [raw[name], value], [name], name=f"{value}_{name}"))
    onnx.checker.check_model(model, full_check=True)
    _write(path, lambda temporary: onnx.save(model, str(temporary)))


def _write(path: Path, make: Callable[[Path], Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        make(temporary)
        model = onnx.load(str(temporary))
        for part in (model, model.graph, *model.graph.node):
            part.ClearField("doc_string")
            part.ClearField("metadata_props")
        onnx.save(model, str(temporary))
        onnx.checker.check_model(str(temporary))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
