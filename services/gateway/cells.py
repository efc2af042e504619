"""A judged cell, as numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from services.gateway.decision import Counts
from services.gateway.fusion import CellVerdict


@dataclass(frozen=True)
class JudgedCell:
    """The judgement of one cell.

    Attributes:
        cell_id: its number within the image.
        verdict: the verdict that follows from the numbers below.
        network_probability: probability of a blast by the network alone, 0..1; NaN where the cell was not judged.
        neighbour_vote: share of blasts among the nearest known cells, 0..1; NaN where the cell was not judged.
        nothing_probability: probability that no nucleated cell is here, 0..1; NaN where the cell was not judged or the release has no such class.
        focus_before: focus score before sharpening; NaN where the cell was not judged.
        focus_after: focus score after sharpening; NaN where the cell was not judged.
        unsharp_radius: 0 where nothing was sharpened.
        upscale_factor: registered pixels per input pixel; NaN where the cell was not judged.
        distance_quantile: distance to the nearest known cell as a quantile of calibration cells, 0..1; NaN where the cell was not
            judged.
        position: in the latent map, x and y; None where the cell was not judged.
    """

    cell_id: int
    verdict: CellVerdict
    network_probability: float = math.nan
    neighbour_vote: float = math.nan
    nothing_probability: float = math.nan
    focus_before: float = math.nan
    focus_after: float = math.nan
    unsharp_radius: int = 0
    upscale_factor: float = math.nan
    distance_quantile: float = math.nan
    position: tuple[float, float] | None = None


def counts_of(cells: Iterable[JudgedCell]) -> Counts:
    """Count judged cells."""
    verdicts = [cell.verdict for cell in cells]
    return Counts(len(verdicts), sum(v.suspected for v in verdicts), sum(v.indeterminate for v in verdicts))
