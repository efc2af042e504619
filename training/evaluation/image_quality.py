"""Blur, exposure and cover of whole fields, as the limits of ``services/gateway/image_quality.py`` see them.

dl4all study image-quality --data DIR
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.common.image_codec import decode_image
from services.common.phantom import PhantomOptions, smear_field
from services.patching.cells import locate_cells
from services.patching.quality import focus_map, measure_exposure, typical_blur
from training.command import explained, program_parser
from training.datasets.fields import read_aria_fields, read_bccd_fields, read_chula_fields

Bytes = NDArray[np.uint8]
MOST: Final = 25
"""Fields of each set, evenly spread, that are measured."""
BLURS: Final = (0.8, 2.5, 4.0, 6.0)
PHANTOMS: Final = 3


def row(name: str, fields: Iterable[Bytes]) -> str:
    """Least, median and largest blur in red-cell radii, and the largest overexposed and covered share, of some fields."""
    measured = np.array([_measure(rgb) for rgb in fields])
    low, middle, high = np.nanpercentile(measured[:, 0], (0, 50, 100))
    return f"| {name} | {len(measured)} | {low:.3f} | {middle:.3f} | {high:.3f} | {measured[:, 1].max():.2f} | {measured[:, 2].max():.2f} |"


def _measure(rgb: Bytes) -> tuple[float, float, float]:
    located = locate_cells(rgb)
    return typical_blur(focus_map(rgb)) / (located.red_cell_radius or np.nan), measure_exposure(rgb).over, located.covered


def _some(paths: list[Path]) -> Iterable[Bytes]:
    return (decode_image(p.read_bytes()).pixels for p in paths[:: max(1, len(paths) // MOST)][:MOST])


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = program_parser("image-quality", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds bccd_fields, chula_fields and aria_fields")
    data = parser.parse_args(arguments).data
    print(
        "| fields | number | blur / red-cell radius, least | median | largest | overexposed, largest | covered, largest |\n|---|---|---|---|---|---|---|"
    )
    print(row("`bccd_fields`", _some([f.path for f in read_bccd_fields(data / "bccd_fields")])))
    print(row("`chula_fields`", _some([f.path for f in read_chula_fields(data / "chula_fields")])))
    print(row("`aria_fields`", _some([i.path for i in read_aria_fields(data / "aria_fields").images])))
    for blur in BLURS:
        print(row(f"phantoms, blurred by {blur} px", (smear_field(s, PhantomOptions(blur_sigma=blur)).image for s in range(PHANTOMS))))


if __name__ == "__main__":
    main()
