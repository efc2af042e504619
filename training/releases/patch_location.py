"""Judge fields and locate their cells by a network of patches; choose the radius and threshold for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from services.common.cell_classes import BLAST, PATCH_LABELS
from services.common.checks import MAX_CELLS_PER_CALL
from services.patching.activation_peaks import Peak, merge, peaks
from services.patching.grid import Patch
from services.patching.patch_input import patch_input
from training.datasets.composed_fields import ComposedField
from training.export.onnx_model import INPUT, PATCH_OUTPUTS

Float = NDArray[np.float32]
Double = NDArray[np.float64]
Flags = NDArray[np.bool_]
BLAST_LABEL: Final = PATCH_LABELS.index(BLAST)
SUPPRESSION_RADII: Final = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
"""Radii that are tried, in patch sides."""
MAX_F1_LOSS: Final = 0.01
"""Composed cells stand apart, cells of a smear touch: a smaller radius may cost this much F1 on composed fields."""
_NO_THRESHOLD: Final = -1e9


@dataclass(frozen=True)
class JudgedField:
    """Output of a network for the patches of a field.

    Attributes:
        patches: the grid.
        probabilities: float64 (P, 2), of blast and of other nucleated cell present.
        activations: float32 (P, h, w, 2).
    """

    patches: tuple[Patch, ...]
    probabilities: Double
    activations: Float

    def located(self, suppression_radius: float, min_activation: float = _NO_THRESHOLD) -> tuple[Peak, ...]:
        """Candidates for cells, the strongest first; the radius in patch sides."""
        found = [p for patch, a in zip(self.patches, self.activations, strict=True) for p in peaks(a, patch, min_activation)]
        return merge(found, suppression_radius * self.patches[0].side)


def judge_patches(session: Any, pixels: NDArray[np.uint8]) -> tuple[Float, Float]:
    """Logits (N, 2) and class activations (N, h, w, 2) of patches, uint8 (N, side, side, 3)."""
    parts = [session.run(list(PATCH_OUTPUTS), {INPUT: pixels[i : i + MAX_CELLS_PER_CALL]}) for i in range(0, len(pixels), MAX_CELLS_PER_CALL)]
    logits, activations = (np.concatenate(p) for p in zip(*parts, strict=True))
    return logits, activations


def judge_field(session: Any, rgb: NDArray[np.uint8], patches: tuple[Patch, ...], side: int) -> JudgedField:
    """Judge the patches of a field, uint8 (H, W, 3)."""
    logits, activations = judge_patches(session, np.stack([patch_input(rgb, patch, side) for patch in patches]))
    probabilities = 1.0 / (1.0 + np.exp(-np.clip(logits.astype(np.float64), -50, 50)))
    return JudgedField(patches, probabilities, activations)


def best_location(fields: Sequence[ComposedField], judged: Sequence[JudgedField]) -> tuple[float, float]:
    """The suppression radius, of ``SUPPRESSION_RADII``, and the threshold of class activations with the best F1 on composed fields.

    Of the radii whose F1 is within ``MAX_F1_LOSS`` of the best the smallest is taken.
    """
    truth = sum(len(f.cells) for f in fields)
    found = []
    for radius in SUPPRESSION_RADII:
        # stronger peaks alone suppress weaker ones, so one suppression serves every threshold
        located = [j.located(radius) for j in judged]
        hits = np.concatenate([_meet(field, peaks_of)[:, 0] for field, peaks_of in zip(fields, located, strict=True)])
        strength = np.array([p.activation for peaks_of in located for p in peaks_of])
        order = np.argsort(-strength, kind="stable")
        f1 = 2.0 * np.cumsum(hits[order]) / (np.arange(1, len(order) + 1) + truth)
        best = int(np.argmax(f1))
        found.append((float(f1[best]), radius, float(strength[order][best])))
    needed = max(found)[0] - MAX_F1_LOSS
    return next((radius, threshold) for f1, radius, threshold in found if f1 >= needed)


def count_cells(fields: Sequence[ComposedField], judged: Sequence[JudgedField], radius: float, min_activation: float) -> NDArray[np.int64]:
    """Per field: cells found, cells found with their own class, peaks, cells; int64 (F, 4)."""
    rows = []
    for field, j in zip(fields, judged, strict=True):
        met = _meet(field, j.located(radius, min_activation))
        rows.append((*met.sum(axis=0).tolist(), len(met), len(field.cells)))
    return np.array(rows, np.int64)


def _meet(field: ComposedField, found: Sequence[Peak]) -> Flags:
    """Which peaks, the strongest first, lie in a cell that no stronger peak lies in, and which of these have its class; bool (N, 2)."""
    free = list(field.cells)
    flags = np.zeros((len(found), 2), np.bool_)
    for i, peak in enumerate(found):
        inside = [c for c in free if np.hypot(c.x - peak.x, c.y - peak.y) <= c.radius]
        if inside:
            cell = min(inside, key=lambda c: np.hypot(c.x - peak.x, c.y - peak.y))
            free.remove(cell)
            flags[i] = True, cell.is_blast is (peak.label == BLAST_LABEL)
    return flags
