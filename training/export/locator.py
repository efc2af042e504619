"""Export a locator: uint8 NHWC of any side in; its maps out, probabilities where they are probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from services.common.engines.onnx_runtime import open_session
from services.patching.locator_maps import MAPS, OFFSET_X
from services.patching.working_image import MULTIPLE
from training.architectures.locator import LocatorNetwork
from training.export.onnx_model import INPUT, PARITY, ParityError, difference, forget_origin, quiet_exporter

_SHAPES: Final = ((1, 64, 96), (2, 200, 136))
"""Batches, heights and widths on which the graph and the network are compared."""


class ServedLocator(nn.Module):
    """A locator as it is served."""

    def __init__(self, network: LocatorNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Maps, float32 (N, CHANNELS, H / 2, W / 2), of uint8 (N, H, W, 3)."""
        said = self.network(images.permute(0, 3, 1, 2).float() / 255.0)
        return torch.cat([said[:, :OFFSET_X].sigmoid(), said[:, OFFSET_X:]], dim=1)


def export_locator(network: LocatorNetwork, path: Path) -> float:
    """Write the ONNX file, weights inside, for images of any side that is a multiple of 8; it appears only when it passed.

    Returns:
        The largest difference between ONNX Runtime and torch.

    Raises:
        ParityError: they differ by more than ``PARITY``.
    """
    served = ServedLocator(network).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    rows, columns = (MULTIPLE * torch.export.Dim(name, min=1, max=512) for name in ("rows", "columns"))
    with quiet_exporter():
        torch.onnx.export(
            served,
            (torch.zeros(2, 64, 96, 3, dtype=torch.uint8),),
            str(temporary),
            input_names=[INPUT],
            output_names=[MAPS],
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=256), 1: rows, 2: columns}},
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    forget_origin(temporary)
    onnx.checker.check_model(str(temporary), full_check=True)
    session = open_session(temporary, threads=1)
    gap = 0.0
    for seed, (count, height, width) in enumerate(_SHAPES):
        images = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)
        with torch.no_grad():
            expected = served(torch.from_numpy(images)).numpy()
        gap = max(gap, difference(expected, session.run([MAPS], {INPUT: images})[0]))
    if gap > PARITY:
        temporary.unlink()
        raise ParityError(f"ONNX Runtime and torch differ by {gap:.2e}; at most {PARITY:.0e} is accepted.")
    temporary.replace(path)
    return gap
