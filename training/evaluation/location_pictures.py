"""Draw what location finds, and where it fails, for docs/location.md.

dl4all study location-pictures --data DIR docs/pictures/location.jpg

Green boxes are the annotation, red outlines the located cells, each by the network that has not seen the field. Only bccd_fields and chula_fields are shown: both are under the MIT
licence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.command import explained, program_parser
from training.evaluation.drawn_fields import Locate
from training.evaluation.locators import located_by
from training.location.annotated import FOLDS, Annotated
from training.location.run import load_locator
from training.location.sources import BCCD, CHULA, SOURCES

Bytes = NDArray[np.uint8]
TILE: Final = 300
COLUMNS: Final = 4
BOX, OUTLINE = (0, 150, 0), (220, 0, 0)


@dataclass(frozen=True)
class Tile:
    """A square of a field: its centre and side in px."""

    stem: str
    x: int
    y: int
    side: int
    caption: str


TILES: Final = (
    Tile("B-30_0047", 400, 400, 800, "coloured, uneven light"),
    Tile("E-12_0397", 920, 680, 400, "two cells touch"),
    Tile("M-3B_0382", 690, 500, 500, "blue-black, among clumps"),
    Tile("E-4B_0501", 1180, 150, 460, "one has no box; cut in two"),
    Tile("BloodImage_00133", 250, 120, 360, "no box: cut by the border"),
    Tile("BloodImage_00249", 260, 140, 360, "lobes far apart"),
    Tile("BloodImage_00171", 260, 130, 360, "smudged; a part of it"),
    Tile("BloodImage_00113", 270, 400, 240, "missed: size of a platelet"),
)


def draw(fields: Mapping[str, Annotated], locators: Mapping[int, Locate]) -> Bytes:
    """Lay the tiles out, uint8 (H, W, 3).

    Args:
        fields: by their keys.
        locators: by the fold that they have not seen.
    """
    tiles = [_draw_tile(fields[t.stem], t, locators[fields[t.stem].fold]) for t in TILES]
    rows = [np.hstack(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
    return np.asarray(np.vstack(rows), np.uint8)


def _draw_tile(field: Annotated, tile: Tile, locate: Locate) -> Bytes:
    image = field.pixels.copy()
    width = max(1, round(2 * tile.side / TILE))
    for box in (m.box for m in field.marks if m.box is not None):
        cv2.rectangle(image, (round(box.left), round(box.top)), (round(box.right), round(box.bottom)), BOX, width)
    for cell in locate(field.pixels):
        if cell.mask is not None:
            outlines, _ = cv2.findContours(cell.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(cell.x, cell.y))
            cv2.drawContours(image, outlines, -1, OUTLINE, width)
    half = tile.side // 2
    padded = cv2.copyMakeBorder(image, half, half, half, half, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    shown = cv2.resize(padded[tile.y : tile.y + tile.side, tile.x : tile.x + tile.side], (TILE, TILE), interpolation=cv2.INTER_AREA)
    cv2.rectangle(shown, (0, TILE - 20), (TILE, TILE), (255, 255, 255), cv2.FILLED)
    cv2.putText(shown, f"{tile.stem}: {tile.caption}", (4, TILE - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, cv2.LINE_AA)
    return np.asarray(shown, np.uint8)


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Write the picture."""
    parser = program_parser("location-pictures", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds bccd_fields and chula_fields")
    parser.add_argument("--run", type=Path, default=Path("build/runs/locator-folds-0"), help="run of `dl4all train locator --folds 3`")
    parser.add_argument("picture", type=Path, help="JPEG file to write")
    given = parser.parse_args(arguments)
    wanted = {t.stem for t in TILES}
    fields = {f.key: f for name in (BCCD, CHULA) for f in SOURCES[name](given.data / name) if f.key in wanted}
    locators = {fold: located_by(load_locator(given.run / f"fold-{fold}")) for fold in range(FOLDS)}
    Image.fromarray(draw(fields, locators)).save(given.picture, quality=85)


if __name__ == "__main__":
    main()
