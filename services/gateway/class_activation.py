"""The decision of a network by place, as two small maps on one scale.

Class activation mapping (Zhou et al., CVPR 2016) of a network whose logits are the mean of its head's outputs over all places. Nothing is
approximated: the mean of the log odds of all places is the log odds of the cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.common.cell_classes import BLAST_COLUMN, NORMAL_COLUMN

Float = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class EvidenceMaps:
    """Which places speak for which class.

    Attributes:
        for_blast, for_normal: uint8 (h, w); 255 stands for ``scale`` in both, 0 for no evidence for that class.
        scale: largest absolute log odds of a place.
    """

    for_blast: Bytes
    for_normal: Bytes
    scale: float


def log_odds(activations: Float) -> Float:
    """Log odds of a blast at each place, float32 (h, w), from class activations (h, w, classes); their mean is the log odds of the cell."""
    return np.asarray(activations[..., BLAST_COLUMN] - activations[..., NORMAL_COLUMN], np.float32)


def evidence_maps(activations: Float) -> EvidenceMaps:
    """Maps of class activations (h, w, classes)."""
    odds = log_odds(activations)
    scale = float(np.abs(odds).max())
    levels = np.rint(odds * (255.0 / max(scale, 1e-12)))
    return EvidenceMaps(np.maximum(levels, 0).astype(np.uint8), np.maximum(-levels, 0).astype(np.uint8), scale)
