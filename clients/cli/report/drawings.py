"""Drawings of the report: marks on a field, the scale of the blast fraction, and the latent map."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from clients.cli.report.words import CellState
from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.retrieval.v1 import neighbour_pb2

Coordinates = tuple[float, float]

MAP_SIDE: Final = 400
"""Side of the latent map in units of its drawing."""

_MAP_MARGIN: Final = 14.0
_MAP_REACH: Final = 2.0
_MARK_MARGIN: Final = 1.12
_FIELD_WIDTHS: Final = (380.0, 1000.0)
_FIELD_HEIGHT: Final = 860.0
_AXIS_ENDS: Final = (0.1, 0.2, 0.5, 1.0)
_DOT: Final = 3.2


_SHARPEST: Final = 0.8
"""Blur in px that a perfect edge is measured to have."""
_BLUR_WITHOUT_SCALE: Final = 4.0


@dataclass(frozen=True)
class Square:
    """A rectangle, px of the shown picture."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Mark:
    """A cell marked on a field, in px of the shown picture.

    Attributes:
        number: the cell's number.
        state: what is said of it.
        x, y: centre.
        radius: radius of the mark.
        label_x, label_y: where its number stands.
        anchor: side of the number that is fixed: start or end.
    """

    number: int
    state: CellState
    x: float
    y: float
    radius: float
    label_x: float
    label_y: float
    anchor: str


@dataclass(frozen=True)
class Field:
    """An image with its marks.

    Attributes:
        uri: the picture; empty where it cannot be shown.
        width, height: size of the drawing, px.
        shown_width: width on the page, CSS px.
        font_size: size of the numbers in px of the drawing.
        marks: the cells.
        blast_patches: patches that show a blast, px of the picture.
    """

    uri: str
    width: int
    height: int
    shown_width: float
    font_size: float
    marks: tuple[Mark, ...]
    blast_patches: tuple[Square, ...] = ()


@dataclass(frozen=True)
class FractionBar:
    """The bounds of the blast fraction on a scale; positions in percent of the bar."""

    start: float
    end: float
    limit: float
    axis_end: float


@dataclass(frozen=True)
class MapPoint:
    """A cell in the latent map."""

    number: int
    state: CellState
    x: float
    y: float


@dataclass(frozen=True)
class LatentMap:
    """The known cells of the latent map as two paths, one for each class, and the cells of the image."""

    normal_path: str
    blast_path: str
    points: tuple[MapPoint, ...]


@dataclass(frozen=True)
class FocusSquare:
    """A square of the focus map: its column and row, its blur in words, and how dark it is drawn, 0 (sharp) to 1."""

    x: int
    y: int
    words: str
    darkness: float


@dataclass(frozen=True)
class FocusDrawing:
    """The focus map: columns, rows, and its squares."""

    columns: int
    rows: int
    squares: tuple[FocusSquare, ...]


def draw_focus(quality: imaging_pb2.ImageQuality) -> FocusDrawing | None:
    """Draw where the image is blurred: white is sharp, full colour is a tenth of a red cell's radius, the limit; None without a map.

    Args:
        quality: of the image; without red cells the blur is compared with ``_BLUR_WITHOUT_SCALE`` px.
    """
    rows, columns = quality.focus_map.height, quality.focus_map.width
    if not rows or len(quality.focus_map.values) != 4 * rows * columns:
        return None
    limit = 0.1 * quality.red_cell_radius or _BLUR_WITHOUT_SCALE
    squares = [
        FocusSquare(
            number % columns,
            number // columns,
            "nothing to measure" if math.isnan(blur) else f"blur {blur:.1f} px",
            0.0 if math.isnan(blur) else min(1.0, max(0.0, (blur - _SHARPEST) / max(limit - _SHARPEST, 0.1))),
        )
        for number, blur in enumerate(np.frombuffer(quality.focus_map.values, "<f4").tolist())
    ]
    return FocusDrawing(columns, rows, tuple(squares))


class MapScale:
    """Brings latent positions into the drawing of a map; what lies far beyond is set on its border."""

    def __init__(self, positions: Iterable[neighbour_pb2.LatentPoint]) -> None:
        reach = max((max(abs(p.x), abs(p.y)) for p in positions if _finite(p)), default=1.0)
        self._reach = min(max(reach, 1.0), _MAP_REACH)

    def point(self, position: neighbour_pb2.LatentPoint) -> Coordinates | None:
        """Coordinates of a position in the drawing; None where the position is not finite."""
        if not _finite(position):
            return None
        return self._along(position.x), self._along(-position.y)

    def _along(self, value: float) -> float:
        share = min(max(value / self._reach, -1.0), 1.0)
        return round(_MAP_MARGIN + (share + 1.0) / 2.0 * (MAP_SIDE - 2 * _MAP_MARGIN), 1)


def cell_state(cell: diagnosis_pb2.CellDiagnosis) -> CellState:
    """What is said of a cell."""
    if cell.indeterminate:
        return CellState.INDETERMINATE
    return CellState.SUSPECTED if cell.suspected else CellState.NOT_SUSPECTED


def draw_field(
    uri: str,
    shown: tuple[int, int],
    original: tuple[int, int],
    cells: Sequence[diagnosis_pb2.CellDiagnosis],
    patches: Sequence[diagnosis_pb2.PatchDiagnosis] = (),
) -> Field:
    """Mark the cells of an image, and the patches that show blasts.

    Args:
        uri: the picture; empty where it cannot be shown.
        shown: width and height of the picture, px.
        original: width and height of the image that was judged, px.
        cells: the cells, in px of that image.
        patches: judged patches, in px of that image.
    """
    width, height = shown
    shown_width = min(max(float(width), _FIELD_WIDTHS[0]), _FIELD_WIDTHS[1], _FIELD_HEIGHT * width / height)
    scale = (width / original[0], height / original[1])
    font_size = 15.0 * width / shown_width
    marks = [_mark(cell, scale, (width, height), font_size) for cell in cells]
    squares = [
        Square(*(round(v, 1) for v in (p.box.x * scale[0], p.box.y * scale[1], p.box.width * scale[0], p.box.height * scale[1])))
        for p in patches
        if p.blast_present
    ]
    return Field(uri, width, height, shown_width, round(font_size, 2), tuple(mark for mark in marks if mark is not None), tuple(squares))


def draw_fraction(lower: float, upper: float, limit: float) -> FractionBar:
    """Set the bounds of the blast fraction on a scale that shows the limit well."""
    end = next((end for end in _AXIS_ENDS if end >= min(1.1 * upper, 1.0) and end >= min(1.5 * limit, 1.0)), 1.0)
    start, stop = (min(max(value, 0.0), end) / end * 100.0 for value in (lower, upper))
    return FractionBar(round(start, 2), round(stop, 2), round(limit / end * 100.0, 2), end)


def draw_map(
    references: Sequence[neighbour_pb2.LatentReference], cells: Sequence[diagnosis_pb2.CellDiagnosis]
) -> tuple[LatentMap, dict[str, Coordinates], dict[int, Coordinates]]:
    """Draw a latent map.

    Returns:
        The map, the points of its known cells by reference id, and the points of the cells by number.
    """
    scale = MapScale([*(reference.position for reference in references), *(cell.position for cell in cells)])
    normal: list[Coordinates] = []
    blast: list[Coordinates] = []
    known: dict[str, Coordinates] = {}
    for reference in references:
        point = scale.point(reference.position)
        if point is not None:
            known[reference.reference_id] = point
            (blast if reference.is_blast else normal).append(point)
    points = []
    for cell in cells:
        point = scale.point(cell.position) if cell.HasField("position") else None
        if point is not None:
            points.append(MapPoint(cell.cell.cell_id, cell_state(cell), *point))
    own = {point.number: (point.x, point.y) for point in points}
    return LatentMap(_dots(normal), _triangles(blast), tuple(points)), known, own


def _mark(cell: diagnosis_pb2.CellDiagnosis, scale: tuple[float, float], size: tuple[int, int], font_size: float) -> Mark | None:
    located = cell.cell
    if not all(map(math.isfinite, (located.center_x, located.center_y, located.radius))):
        return None
    x, y = (located.center_x + 0.5) * scale[0], (located.center_y + 0.5) * scale[1]
    radius = max(located.radius * scale[0] * _MARK_MARGIN, font_size / 3)
    diagonal = radius * (1.0 if cell_state(cell) is CellState.SUSPECTED else 0.75)
    to_left = x + diagonal + 2.2 * font_size > size[0]
    label_x = x - diagonal - 0.15 * font_size if to_left else x + diagonal + 0.15 * font_size
    label_y = max(y - diagonal, font_size)
    return Mark(
        number=located.cell_id,
        state=cell_state(cell),
        x=round(x, 1),
        y=round(y, 1),
        radius=round(radius, 1),
        label_x=round(label_x, 1),
        label_y=round(label_y, 1),
        anchor="end" if to_left else "start",
    )


def _dots(points: Sequence[Coordinates]) -> str:
    return "".join(f"M{x:g} {y:g}h0" for x, y in points)


def _triangles(points: Sequence[Coordinates]) -> str:
    return "".join(f"M{x:g} {y - _DOT:g}l{_DOT:g} {1.7 * _DOT:g}h{-2 * _DOT:g}z" for x, y in points)


def _finite(position: neighbour_pb2.LatentPoint) -> bool:
    return math.isfinite(position.x) and math.isfinite(position.y)
