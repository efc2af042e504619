"""Read ``config.pbtxt`` of the model repository: the very file that Triton reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from services.common.errors import BrokenReleaseError

CONFIG_FILE: Final = "config.pbtxt"
CPU_CONFIG_FILE: Final = "configs/cpu.pbtxt"
BACKEND: Final = "onnxruntime"
"""Triton backend that runs all models."""
ANY_SIDE: Final = -1
"""Side of the input of a network that takes images of any side."""
SHA256: Final = "sha256"
"""Parameter that states the checksum of the served file, so that a Triton's configuration says which file it serves."""


@dataclass(frozen=True)
class ModelConfig:
    """The configuration of a model, as far as an engine needs it.

    Attributes:
        name: model name.
        max_batch_size: largest batch of one inference.
        input_name: name of the only input, uint8 NHWC.
        input_shape: (side, side, 3); ``ANY_SIDE`` where any side is taken.
        output_shapes: shape of every output by name, without the batch; -1 where it follows the input.
        parameters: parameters of the ``onnxruntime`` backend.
    """

    name: str
    max_batch_size: int
    input_name: str
    input_shape: tuple[int, int, int]
    output_shapes: Mapping[str, tuple[int, ...]]
    parameters: Mapping[str, str]

    def cuda_options(self) -> dict[str, str]:
        """Options of ONNX Runtime's CUDA provider, from the parameters that Triton's backend reads."""
        searches = {"0": "EXHAUSTIVE", "1": "HEURISTIC", "2": "DEFAULT"}
        strategies = {"0": "kNextPowerOfTwo", "1": "kSameAsRequested"}
        given = self.parameters
        options = {
            "gpu_mem_limit": given.get("gpu_mem_limit"),
            "cudnn_conv_algo_search": searches.get(given.get("cudnn_conv_algo_search", "")),
            "arena_extend_strategy": strategies.get(given.get("arena_extend_strategy", "")),
        }
        return {name: value for name, value in options.items() if value is not None}


def fits(shape: Sequence[int], expected: Sequence[int]) -> bool:
    """Whether a shape is the expected one, in which -1 stands for any size."""
    return len(shape) == len(expected) and all(wanted in (ANY_SIDE, size) for size, wanted in zip(shape, expected, strict=True))


def read_model_config(folder: Path) -> ModelConfig:
    """Read a model's configuration.

    Raises:
        BrokenReleaseError: the file is missing, malformed or not of a network of images.
    """
    path = folder / CONFIG_FILE
    config = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), config)
        (given,) = config.input
        height, width, channels = given.dims
    except (OSError, ValueError, text_format.ParseError) as error:
        raise BrokenReleaseError("MODEL_CONFIG_BROKEN", f"{path} cannot be read: {error}") from error
    if config.name != folder.name or given.data_type != model_config_pb2.TYPE_UINT8 or channels != 3 or config.max_batch_size < 1:
        raise BrokenReleaseError(
            "MODEL_CONFIG_BROKEN", f"{path} does not describe a network of images called {folder.name}: uint8 (H, W, 3), batched."
        )
    return ModelConfig(
        name=config.name,
        max_batch_size=config.max_batch_size,
        input_name=given.name,
        input_shape=(int(height), int(width), 3),
        output_shapes={o.name: tuple(int(d) for d in o.dims) for o in config.output},
        parameters={key: value.string_value for key, value in config.parameters.items()},
    )
