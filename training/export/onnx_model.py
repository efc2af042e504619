"""Export a network: uint8 NHWC in; logits and maps out; everything else inside the graph."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from services.common.engines.base import PLACE_EMBEDDINGS
from services.common.engines.onnx_runtime import open_session
from training.architectures.network import Network
from training.errors import GateError

LOGITS: Final = "logits"
OUTPUTS: Final = (LOGITS, "embedding", PLACE_EMBEDDINGS)
"""Of every cell network."""
ACTIVATIONS: Final = "class_activations"
"""Also of a cell network whose logits are the mean of class activations over places."""
PATCH_OUTPUTS: Final = (LOGITS, ACTIVATIONS)
"""Of a network of patches."""
INPUT: Final = "images"
PARITY: Final = 1e-4


class ParityError(GateError):
    """The outputs of the exported graph differ from those of the network."""


class _Served(nn.Module):
    """A network as it is served: cast, normalisation and layout included."""

    outputs: tuple[str, ...]
    """Names of the outputs of ``forward``."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255.0)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255.0)
        self.mean: Tensor
        self.std: Tensor

    def normalised(self, images: Tensor) -> Tensor:
        """Normalised NCHW float32 of uint8 (N, side, side, 3)."""
        return (images.permute(0, 3, 1, 2).float() - self.mean) / self.std


class ServedNetwork(_Served):
    """A cell network as it is served, temperature included.

    If one linear head follows the pooled features, the logits are the mean of class activations over places. The class activations are then an output
    as well: the decision, place by place. Behind a hidden layer, or where classes are merged, there are none.

    Args:
        network: returns ``Outputs`` for normalised NCHW float32.
        mean, std: per channel, in 0..1.
        temperature: divides logits and activations.
    """

    def __init__(self, network: nn.Module, mean: list[float], std: list[float], temperature: float) -> None:
        super().__init__(mean, std)
        self.network = network
        self.temperature = temperature
        self.outputs = (*OUTPUTS, ACTIVATIONS) if isinstance(network, Network) and network.logits_are_means else OUTPUTS

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Judge uint8 (N, side, side, 3)."""
        network = self.network
        if not (isinstance(network, Network) and network.logits_are_means):
            logits, embedding, places = network(self.normalised(images))
            return logits / self.temperature, embedding, places
        features = network.backbone(self.normalised(images)).by_place
        activations, places = network.class_activations(features) / self.temperature, network.embedder(features)
        return activations.mean(dim=(1, 2)), places.mean(dim=(1, 2)), places, activations


class ServedPatchNetwork(_Served):
    """A network of patches as it is served: class activations, and their mean over places, the logits.

    Args:
        network: a backbone with one linear head on its pooled features and no hidden layer.
        mean, std: per channel, in 0..1.
        temperatures: of each label, divide logits and activations.

    Raises:
        GateError: there is a hidden layer, so that no map has the logits as its mean.
    """

    outputs = PATCH_OUTPUTS

    def __init__(self, network: Network, mean: list[float], std: list[float], temperatures: tuple[float, ...]) -> None:
        super().__init__(mean, std)
        if not network.logits_are_means:
            raise GateError("The logits of this network are not the mean of class activations: a hidden layer or a class token stands between.")
        self.network = network
        self.register_buffer("temperatures", torch.tensor(temperatures))
        self.temperatures: Tensor

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Judge uint8 (N, side, side, 3): (N, labels) and (N, h, w, labels)."""
        activations = self.network.class_activations(self.network.backbone(self.normalised(images)).by_place) / self.temperatures
        return activations.mean(dim=(1, 2)), activations


def export_onnx(network: _Served, side: int, path: Path, cells: NDArray[np.uint8] | None = None) -> float:
    """Write the ONNX file, weights inside, any batch size. The file appears only when it passed.

    Args:
        network: what is exported.
        side: side of the input in px.
        path: the file to write.
        cells: uint8 (N, side, side, 3), real cells to compare on besides random images.

    Returns:
        The largest difference between ONNX Runtime and torch.

    Raises:
        ParityError: they differ by more than ``PARITY``.
    """
    network.eval()
    noise = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), np.uint8)
    images = torch.from_numpy(noise)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with quiet_exporter():
        torch.onnx.export(
            network,
            (images,),
            str(temporary),
            input_names=[INPUT],
            output_names=list(network.outputs),
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=256)}},
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    forget_origin(temporary)
    onnx.checker.check_model(str(temporary), full_check=True)
    compared = noise if cells is None else np.concatenate([noise, cells])
    gap = max(parity_gap(network, temporary, compared[i : i + 256]) for i in range(0, len(compared), 256))
    if gap > PARITY:
        temporary.unlink()
        raise ParityError(f"ONNX Runtime and torch differ by {gap:.2e}; at most {PARITY:.0e} is accepted.")
    temporary.replace(path)
    return gap


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Leave out the exporter's remarks on packages that are not needed and on its own future."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def forget_origin(path: Path) -> None:
    """Remove source paths and stack traces of every node, which the exporter notes."""
    model = onnx.load(str(path))
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer, *model.graph.input, *model.graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    onnx.save(model, str(path))


def parity_gap(network: _Served, path: Path, images: NDArray[np.uint8]) -> float:
    """Largest difference of any output between torch and ONNX Runtime.

    Absolute where values are below 1, as probabilities and calibrated logits are; in units of the output's largest value where
    that is above 1: float32 has seven digits, and embeddings of a few dozens differ by 1e-4 from their own float64.
    """
    with torch.no_grad():
        expected = [t.numpy() for t in network.eval()(torch.from_numpy(images))]
    found = open_session(path, threads=1).run(list(network.outputs), {INPUT: images})
    return max(difference(a, b) for a, b in zip(expected, found, strict=True))


def difference(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Largest absolute difference, divided by the largest expected value where that is above 1."""
    return float(np.abs(expected - found).max() / max(1.0, float(np.abs(expected).max())))
