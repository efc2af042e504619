"""Draw how adaptive unsharpening treats one cell: located, registered, scored, sharpened. The cell is a phantom.

dl4all study unsharpening-figure docs/pictures/unsharpening.png
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from services.common.phantom import CellKind, single_cell
from services.patching.cells import central_cell, locate_cells
from services.preprocessing.focus import focus_score
from services.preprocessing.registration import RELATIVE_RADIUS, register
from services.preprocessing.unsharpening import RADII, RADII_SIDE, FocusParameters, sharpen_adaptively, unsharp_mask
from training.command import explained, program_parser

Bytes = NDArray[np.uint8]
SIDE = 256
BLUE, RED = "#1f6fb2", "#c4622d"


def draw(path: Path, seed: int = 7, blur: float = 1.2) -> None:
    """Write the figure as PNG.

    Args:
        path: file to write.
        seed: of the phantom.
        blur: sigma in px of the Gaussian that puts it out of focus.
    """
    crop = np.asarray(cv2.GaussianBlur(single_cell(seed, CellKind.BLAST, side=264, cell_radius=52).image, (0, 0), blur), np.uint8)
    cell = central_cell(locate_cells(crop).cells, *crop.shape[:2])
    if cell is None:
        raise SystemExit("No cell was found in the phantom.")
    registered = register(crop, cell.center_x, cell.center_y, cell.radius, SIDE)
    scores = [focus_score(registered.pixels), *(focus_score(unsharp_mask(registered.pixels, r * SIDE / RADII_SIDE)) for r in RADII)]
    threshold = scores[2] + 0.1 * (scores[1] - scores[2])
    result = sharpen_adaptively(registered.pixels, registered.upscale_factor, FocusParameters((1.0,), (threshold,), (50.0,)))

    figure = Figure(figsize=(14, 3.7), layout="constrained")
    axes = figure.subplots(1, 4)
    for axis, pixels, title in (
        (axes[0], crop, f"located: radius {cell.radius:.0f} px"),
        (axes[1], registered.pixels, f"registered: focus {result.focus_before:.2f}"),
        (axes[2], result.pixels, f"sharpened, radius {result.unsharp_radius}: focus {result.focus_after:.2f}"),
    ):
        axis.imshow(pixels)
        axis.set_title(title)
        axis.axis("off")
    axes[0].add_patch(Circle((cell.center_x, cell.center_y), cell.radius, fill=False, color=RED, linewidth=1.5))
    axes[1].add_patch(Circle(((SIDE - 1) / 2,) * 2, RELATIVE_RADIUS * SIDE, fill=False, color=RED, linewidth=1.5))
    axes[3].plot((0, *RADII), scores, "o-", color=BLUE, markersize=4)
    axes[3].plot(result.unsharp_radius, result.focus_after, "o", color=RED, markersize=9, label="chosen: the first below")
    axes[3].axhline(threshold, color=RED, linestyle="--", linewidth=1, label="threshold")
    axes[3].set(xlabel="unsharp radius (0: as it is)", ylabel="focus score, higher is blurrier")
    axes[3].legend(frameon=False)
    axes[3].grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Draw it."""
    parser = program_parser("unsharpening-figure", __doc__)
    parser.add_argument("path", type=Path, help="PNG to write")
    draw(parser.parse_args(arguments).path)


if __name__ == "__main__":
    main()
