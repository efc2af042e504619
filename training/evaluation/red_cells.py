"""How large the red cells of training crops are, in px: the scale of composed fields.

dl4all study red-cells --data aml_cells [--every 5]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from services.common.errors import DomainError
from services.common.image_codec import decode_image
from services.patching.cells import locate_cells
from training.command import explained, program_parser
from training.crops.making import in_processes
from training.crops.sources import Sources
from training.datasets.dataset import LabelledImage, Subset
from training.datasets.single_cells import AML_CELLS
from training.errors import DatasetError


def red_cell_radii(images: Sequence[LabelledImage]) -> list[float]:
    """Radius in px of the red cells of each crop in which they are seen.

    Raises:
        DatasetError: an image cannot be read.
    """
    return [r for r in in_processes(_radius, [str(i.path) for i in images], "red cells") if r is not None]


def _radius(path: str) -> float | None:
    try:
        return locate_cells(decode_image(Path(path).read_bytes()).pixels).red_cell_radius
    except (DomainError, OSError) as error:
        raise DatasetError(f"{path}: {error}") from error


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the median."""
    parser = program_parser("red-cells", __doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folder of the cells")
    parser.add_argument("--every", type=int, default=5, help="take every n-th training crop")
    given = parser.parse_args(arguments)
    dataset = Sources.find(given.data, Path("build/packs")).dataset(AML_CELLS)
    chosen = [i for i in dataset.images if i.subset is Subset.TRAIN and i.is_blast is not None][:: given.every]
    radii = red_cell_radii(chosen)
    low, median, high = np.percentile(radii, [5, 50, 95])
    print(
        f"red cells seen in {len(radii)} of {len(chosen)} training crops; radius, median {median:.2f} px, 5th to 95th percentile {low:.1f} to {high:.1f}"
    )


if __name__ == "__main__":
    main()
