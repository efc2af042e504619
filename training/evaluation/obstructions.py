"""What margins, the circle of an eyepiece, ink and text on real fields do to the cells that are found.

dl4all study obstructions --data DATA/bccd_fields DATA/chula_fields [--every 12]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from services.common.image_codec import decode_image
from services.patching.cells import LocatedCell, locate_cells
from services.patching.margins import picture_box
from training.command import explained, program_parser
from training.datasets.fields import read_bccd_fields, read_chula_fields
from training.errors import DatasetError

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Colour = tuple[int, int, int]
Change = Callable[[Bytes], tuple[Bytes, Mask]]
_READERS: Final = {"bccd_fields": read_bccd_fields, "chula_fields": read_chula_fields}
_GREYS: Final = {"white": 255, "grey": 128, "black": 0}
INKS: Final[dict[str, Colour]] = {
    "black": (0, 0, 0),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
}
_PENS: Final[dict[str, Colour]] = {"black": (20, 20, 25), "blue": (30, 40, 150), "green": (20, 120, 60), "red": (180, 20, 30)}
_MARGINS: Final = (0.01, 0.02, 0.05, 0.1, 0.3)
_NEAR: Final = 9
"""Pixels around a drawn line in which a cell counts as covered."""
_COVERED: Final = 0.12
"""Share of a cell's box under a drawing above which the cell is not asked for."""


@dataclass
class Tally:
    """Cells of the fields alone that nothing covers, those of them that were lost, and cells that are only found with the change."""

    cells: int = 0
    lost: int = 0
    extra: int = 0


def compare(alone: Sequence[LocatedCell], changed: Sequence[LocatedCell], covered: Mask) -> Tally:
    """Compare the cells of a field with those of the same field changed.

    Args:
        alone: cells of the field.
        changed: cells of the changed field, px of the field.
        covered: bool (H, W), where something was drawn.
    """
    free = [c for c in alone if covered[max(0, c.y) : c.y + c.height, max(0, c.x) : c.x + c.width].mean() <= _COVERED]
    return Tally(len(free), sum(not _is_among(c, changed) for c in free), sum(not _is_among(c, alone) for c in changed))


def _is_among(cell: LocatedCell, cells: Sequence[LocatedCell]) -> bool:
    return any(math.hypot(cell.center_x - c.center_x, cell.center_y - c.center_y) < 0.6 * cell.radius for c in cells)


def changes() -> Iterator[tuple[str, Change]]:
    """What is drawn on a field, with its name; margins are counted apart."""
    for name, grey in _GREYS.items():
        yield f"circle on {name}", lambda rgb, grey=grey: _circle(rgb, grey, 0.0)  # type: ignore[misc]
    yield "circle on black, soft", lambda rgb: _circle(rgb, 4, 0.04)
    for name, ink in INKS.items():
        yield f"line, {name}", lambda rgb, ink=ink: _drawn(rgb, ink, _line)  # type: ignore[misc]
        yield f"text, {name}", lambda rgb, ink=ink: _drawn(rgb, ink, _text)  # type: ignore[misc]
    for name, ink in _PENS.items():
        yield f"soft stroke of a pen, {name}", lambda rgb, ink=ink: _pen(rgb, ink)  # type: ignore[misc]


def _circle(rgb: Bytes, grey: int, soft: float) -> tuple[Bytes, Mask]:
    height, width = rgb.shape[:2]
    rows, columns = np.indices((height, width))
    outside = np.hypot(rows - height / 2, columns - width / 2) - 0.575 * min(height, width)
    part = np.clip(outside / (soft * width), 0, 1) if soft else (outside > 0).astype(float)
    return (rgb * (1 - part[..., None]) + grey * part[..., None]).astype(np.uint8), np.asarray(outside > -_NEAR, bool)


def _drawn(rgb: Bytes, ink: Colour, draw: Callable[[Bytes, Colour], None]) -> tuple[Bytes, Mask]:
    image, where = rgb.copy(), np.zeros_like(rgb)
    draw(image, ink)
    draw(where, (255, 255, 255))
    return image, np.asarray(cv2.dilate(where[..., 0], np.ones((_NEAR, _NEAR))) > 0, bool)


def _line(image: Bytes, ink: Colour) -> None:
    height, width = image.shape[:2]
    cv2.line(image, (width // 10, 4 * height // 5), (9 * width // 10, 3 * height // 10), ink, 8, cv2.LINE_AA)


def _text(image: Bytes, ink: Colour) -> None:
    height, width = image.shape[:2]
    cv2.putText(image, "20 um  100x  2024-05-01", (10, height - 20), cv2.FONT_HERSHEY_SIMPLEX, width / 900, ink, 3, cv2.LINE_AA)


def _pen(rgb: Bytes, ink: Colour) -> tuple[Bytes, Mask]:
    height, width = rgb.shape[:2]
    stroke = np.zeros((height, width), np.float32)
    cv2.circle(stroke, (width // 2, height // 2), 3 * height // 10, 1.0, 24)
    soft = cv2.GaussianBlur(stroke, (0, 0), 4.0) * 0.85
    return (rgb * (1 - soft[..., None]) + np.array(ink) * soft[..., None]).astype(np.uint8), np.asarray(soft > 0, bool)


def margins_found(rgb: Bytes, share: float, grey: int, sides: tuple[int, int, int, int], quality: int | None) -> int:
    """How far the picture that is found lies from the field at most, px.

    Args:
        rgb: a field.
        share: width of the margins, as a share of the field's width.
        grey: of the margins.
        sides: 1 where there is a margin: left, top, right, bottom.
        quality: of a JPEG of it; None for the pixels as they are.
    """
    left, top, right, bottom = (round(share * rgb.shape[1]) * side for side in sides)
    framed = cv2.copyMakeBorder(rgb, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(grey, grey, grey))
    if quality is not None:
        _, packed = cv2.imencode(".jpg", framed, [cv2.IMWRITE_JPEG_QUALITY, quality])
        framed = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    box = picture_box(np.asarray(framed, np.uint8))
    return max(abs(box.left - left), abs(box.top - top), abs(box.right - left - rgb.shape[1]), abs(box.bottom - top - rgb.shape[0]))


def _fields(folders: Sequence[Path], every: int) -> list[Bytes]:
    unknown = [f.name for f in folders if f.name not in _READERS]
    if unknown:
        raise DatasetError(f"{unknown[0]} is none of {', '.join(_READERS)}.")
    paths = [field.path for folder in folders for field in _READERS[folder.name](folder)][::every]
    return [decode_image(path.read_bytes()).pixels for path in paths]


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Print two tables."""
    parser = program_parser("obstructions", __doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of fields")
    parser.add_argument("--every", type=int, default=12, help="take every n-th field")
    given = parser.parse_args(arguments)
    fields = _fields(given.data, given.every)
    alone = [locate_cells(rgb, masks=False).cells for rgb in fields]
    print(f"{len(fields)} fields, {sum(map(len, alone))} cells\n")
    print("| margins, of the width | framed images | farthest border, px | as JPEG of quality 85 |\n| -- | -- | -- | -- |")
    sides = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (1, 1, 1, 1))
    for share in track(_MARGINS, "margins", transient=True):
        cases = [(rgb, share, grey, side) for rgb in fields for grey in _GREYS.values() for side in sides]
        plain, packed = (max(margins_found(*case, quality) for case in cases) for quality in (None, 85))
        print(f"| {share:.0%} | {len(cases)} | {plain} | {packed} |")
    print("\n| drawn on the field | cells that it does not cover | lost | extra |\n| -- | -- | -- | -- |")
    for name, change in track(list(changes()), "drawings", transient=True):
        tally = Tally()
        for rgb, cells in zip(fields, alone, strict=True):
            image, covered = change(rgb)
            one = compare(cells, locate_cells(image, masks=False).cells, covered)
            tally = Tally(tally.cells + one.cells, tally.lost + one.lost, tally.extra + one.extra)
        print(f"| {name} | {tally.cells} | {tally.lost} | {tally.extra} |")


if __name__ == "__main__":
    main()
