"""Read ``config.pbtxt`` of the model repository: the very file that Triton reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from services.common.errors import BrokenReleaseError

CONFIG_FILE: Final = "config.pbtxt"


@dataclass(frozen=True)
class ModelConfig:
    """What an engine needs to know of a model.

    Attributes:
        name: model name.
        max_batch_size: largest batch of one inference.
        input_name: name of the only input, uint8 NHWC.
        input_shape: (side, side, 3).
        outputs: names of the outputs.
    """

    name: str
    max_batch_size: int
    input_name: str
    input_shape: tuple[int, int, int]
    outputs: tuple[str, ...]


def read_model_config(folder: Path) -> ModelConfig:
    """Read a model's configuration.

    Raises:
        BrokenReleaseError: the file is missing, malformed or not of a cell network.
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
        raise BrokenReleaseError("MODEL_CONFIG_BROKEN", f"{path} does not describe a cell network called {folder.name}: uint8 (H, W, 3), batched.")
    return ModelConfig(config.name, config.max_batch_size, given.name, (int(height), int(width), 3), tuple(o.name for o in config.output))
