"""Export a cell network: uint8 NHWC in; logits, embedding, patch embeddings out; everything else inside the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from services.common.engines.onnx_runtime import open_session

OUTPUTS: Final = ("logits", "embedding", "patch_embeddings")
INPUT: Final = "images"
PARITY: Final = 1e-4


class ParityError(Exception):
    """The exported graph does not say what the network says."""


class ServedNetwork(nn.Module):
    """A network as it is served: cast, normalisation, layout and temperature included.

    Args:
        network: returns ``Outputs`` for normalised NCHW float32.
        mean, std: per channel, in 0..1.
        temperature: divides the logits.
    """

    def __init__(self, network: nn.Module, mean: list[float], std: list[float], temperature: float) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255.0)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255.0)
        self.temperature = temperature
        self.mean: Tensor
        self.std: Tensor

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Judge uint8 (N, side, side, 3)."""
        x = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        logits, embedding, patches = self.network(x)
        return logits / self.temperature, embedding, patches


def export_onnx(network: ServedNetwork, side: int, path: Path, cells: NDArray[np.uint8] | None = None) -> float:
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
    torch.onnx.export(
        network,
        (images,),
        str(temporary),
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=256)}},
        external_data=False,
        dynamo=True,
        verbose=False,
    )
    _forget_origin(temporary)
    onnx.checker.check_model(str(temporary), full_check=True)
    compared = noise if cells is None else np.concatenate([noise, cells])
    gap = max(parity_gap(network, temporary, compared[i : i + 256]) for i in range(0, len(compared), 256))
    if gap > PARITY:
        temporary.unlink()
        raise ParityError(f"ONNX Runtime and torch differ by {gap:.2e}; at most {PARITY:.0e} is accepted.")
    temporary.replace(path)
    return gap


def _forget_origin(path: Path) -> None:
    """Remove what the exporter notes of its machine: source paths and stack traces of every node."""
    model = onnx.load(str(path))
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer, *model.graph.input, *model.graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    onnx.save(model, str(path))


def parity_gap(network: ServedNetwork, path: Path, images: NDArray[np.uint8]) -> float:
    """Largest absolute difference of any output between torch and ONNX Runtime."""
    with torch.no_grad():
        expected = [t.numpy() for t in network.eval()(torch.from_numpy(images))]
    found = open_session(path, threads=1).run(list(OUTPUTS), {INPUT: images})
    return max(float(np.abs(a - b).max()) for a, b in zip(expected, found, strict=True))
