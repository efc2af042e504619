"""Export the authors' published ALLNet checkpoints: their state dicts load strictly, nothing is unpickled."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from training.architectures.build import Architecture, NetworkConfig, build_network
from training.architectures.network import HEAD, Network
from training.errors import ArrayFileError
from training.export.onnx_model import ServedNetwork, export_onnx

SIDE: Final = 224
_BLOCK: Final = re.compile(r"layer3\.(\d+)\.")


@dataclass(frozen=True)
class Imported:
    """A published network.

    Attributes:
        architecture: found from the number of blocks.
        classes: number of outputs: 9, 26 or 38 for ADP's levels, 2 for cells.
        gap: largest difference of ONNX and torch; None if nothing was exported.
    """

    architecture: Architecture
    classes: int
    gap: float | None = None


def load_allnet(path: Path) -> tuple[Network, Imported]:
    """Load a published state dict (``modelsave_1_final.pt``) into the network of the original program: no ReLU, frozen dense kernels.

    Raises:
        ArrayFileError: the file is no state dict of tensors, or not of a residual ALLNet.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch.load raises depends on what the file is
        raise ArrayFileError(f"{path} is not a state dict that can be loaded without running code from it: {error}") from error
    if not isinstance(weights, dict) or "fc.weight" not in weights or not all(isinstance(v, Tensor) for v in weights.values()):
        raise ArrayFileError(f"{path} is not the state dict of an ALLNet: it has no fc.weight.")
    blocks = {int(m[1]) for name in weights if (m := _BLOCK.match(name))}
    architecture = Architecture.RESNET34_LBP if len(blocks) == 6 else Architecture.RESNET18_LBP
    classes = int(weights["fc.weight"].shape[0])
    network = build_network(NetworkConfig(architecture=architecture, lbp_relu=False), {HEAD: classes}, SIDE)
    try:
        network.load_state_dict({_renamed(name): tensor for name, tensor in weights.items()})
    except RuntimeError as error:
        raise ArrayFileError(f"{path} is not the state dict of a residual ALLNet: {error}") from error
    return network.eval(), Imported(architecture, classes)


def import_allnet(path: Path, to: Path, mean: float = 0.5, std: float = 0.25) -> Imported:
    """Export a published checkpoint: uint8 (N, 224, 224, 3) in; logits, embedding (512) and place embeddings (7, 7, 512) out.

    Args:
        path: the checkpoint.
        to: ONNX file to write.
        mean, std: the scalars that the checkpoint's data were normalised by, in 0..1. They are not part of the checkpoint.

    Raises:
        ArrayFileError: it is none.
        training.export.onnx_model.ParityError: the export does not say what the network says.
    """
    network, imported = load_allnet(path)
    gap = export_onnx(ServedNetwork(network, [mean] * 3, [std] * 3, 1.0), SIDE, to)
    return Imported(imported.architecture, imported.classes, gap)


def _renamed(name: str) -> str:
    return f"heads.{HEAD}.{name.removeprefix('fc.')}" if name.startswith("fc.") else f"backbone.{name}"
