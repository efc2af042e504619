"""Find the cells of a slide: the scale and the stain of the whole slide first, then window by window."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.patching.cells import WORKING_SIDE, LocatedCell, LocatedCells, WindowOfSlide, locate_cells, measure_red_cells
from services.patching.locating import locate_window
from services.patching.quality import Exposure, focus_map, measure_exposure, typical_blur
from services.patching.scale import is_doubtful
from services.patching.slides.colours import are_colours_doubted, colour_samples
from services.patching.slides.slide import Slide
from services.patching.slides.tiling import Window, count_windows, lay_windows
from services.patching.stained import RED_CELL_MICRONS

Bytes = NDArray[np.uint8]

SURVEYED: Final = 12
"""Windows that tell scale and stain of a slide."""
REDUCED_RED_CELL: Final = 12.0
"""Radius in px that red cells keep on the working copy of a window."""
MAX_REDUCTION: Final = 4
"""Largest reduction: a window is at most this many times ``WORKING_SIDE`` wide, 48 MiB."""
MARGIN_IN_RED_CELLS: Final = 6.0
"""Margin around a core: a cell at its border and four radii of its surroundings lie in the window."""
BORDER_TOLERANCE: Final = 0.25
"""How far outside the core, in radii of a red cell, centres are claimed: two windows measure a cell a little differently."""
UNKNOWN_RED_CELL: Final = 21.0
"""Radius of a red cell in px that sets the size of windows where none was seen."""


@dataclass(frozen=True)
class SlideScale:
    """Scale and stain that all windows of a slide share.

    Attributes:
        microns_per_pixel: the caller's or the file's, else None.
        red_cell_radius: in px; None where no window shows red cells.
        threshold: violet index of nuclei; None where no surveyed window shows any: each window then finds its own.
        is_doubted: whether the scale that was stated contradicts the red cells, so that theirs is used.
        are_colours_doubted: whether the colours cannot be those of a stain.
    """

    microns_per_pixel: float | None
    red_cell_radius: float | None
    threshold: float | None
    is_doubted: bool = False
    are_colours_doubted: bool = False

    @property
    def unit(self) -> float:
        """Radius of a red cell in px that sets the size of windows."""
        return self.red_cell or UNKNOWN_RED_CELL

    @property
    def red_cell(self) -> float | None:
        """Radius of a red cell in px; None where it is not known."""
        return RED_CELL_MICRONS / self.microns_per_pixel if self.microns_per_pixel else self.red_cell_radius

    @property
    def reduction(self) -> int:
        """Factor by which the working copy of a window is smaller."""
        return int(np.clip(self.unit // REDUCED_RED_CELL, 1, MAX_REDUCTION))

    @property
    def margin(self) -> int:
        """Margin of a window in px, a multiple of the reduction."""
        most = self.reduction * WORKING_SIDE // 4
        return min(most, math.ceil(MARGIN_IN_RED_CELLS * self.unit / self.reduction) * self.reduction)

    @property
    def core(self) -> int:
        """Side of a core in px, a multiple of the reduction."""
        return self.reduction * WORKING_SIDE - 2 * self.margin

    @property
    def located_microns(self) -> float | None:
        """The scale at which cells are located; None where it is not known."""
        if self.microns_per_pixel:
            return self.microns_per_pixel
        return RED_CELL_MICRONS / self.red_cell_radius if self.red_cell_radius else None


@dataclass(frozen=True)
class SearchedWindow:
    """Result of one window.

    Attributes:
        pixels: uint8 (height, width, 3).
        cells: nucleated cells that its core claims, px of the window.
        exposure: of its pixels.
        blur: of its sharpest edges, px; NaN where it has none.
        covered, ink: shares 0..1 under cells of any kind, and under ink, pointers and text.
    """

    pixels: Bytes
    cells: tuple[LocatedCell, ...]
    exposure: Exposure
    blur: float
    covered: float
    ink: float = 0.0


def survey(slide: Slide, microns_per_pixel: float | None, *, learned: bool = False) -> SlideScale:
    """Take scale and stain from windows that are spread over the slide.

    Args:
        slide: open.
        microns_per_pixel: if known.
        learned: whether a locator finds the cells: it needs no threshold of the stain.

    Raises:
        InvalidImageError: a tile is damaged.
    """
    scale = SlideScale(None, None, None)
    width, height = slide.facts.width, slide.facts.height
    radii = [r for window in survey_windows(width, height, scale) if (r := measure_red_cells(slide.read(*window), scale.reduction)) is not None]
    seen = float(np.median(radii)) if radii else None
    doubted = bool(microns_per_pixel) and is_doubtful(RED_CELL_MICRONS / (microns_per_pixel or 1.0), seen)
    scale = SlideScale(None if doubted else microns_per_pixel, seen, None, doubted)
    thresholds, samples = list[float](), list[Bytes]()
    for window in survey_windows(width, height, scale):
        pixels = slide.read(*window)
        samples.append(colour_samples(pixels).copy())
        if not learned and (found := _locate(pixels, scale)).cells:
            thresholds.append(found.threshold)
    threshold = float(np.median(thresholds)) if thresholds else None
    return replace(scale, threshold=threshold, are_colours_doubted=are_colours_doubted(samples))


def survey_windows(width: int, height: int, scale: SlideScale) -> Sequence[tuple[int, int, int, int]]:
    """Windows (x, y, width, height), at most ``SURVEYED``, spread evenly over a slide."""
    side = scale.reduction * WORKING_SIDE
    across = max(1, min(round(math.sqrt(SURVEYED * width / height)), math.ceil(width / side), SURVEYED))
    down = max(1, min(SURVEYED // across, math.ceil(height / side)))
    w, h = min(side, width), min(side, height)
    columns, rows = np.linspace(0, width - w, across).astype(int), np.linspace(0, height - h, down).astype(int)
    return [(int(x), int(y), w, h) for y in rows for x in columns]


def windows_of(slide: Slide, scale: SlideScale) -> tuple[int, Iterator[Window]]:
    """How many windows a slide has, and the windows."""
    width, height = slide.facts.width, slide.facts.height
    return count_windows(width, height, scale.core), lay_windows(width, height, scale.core, scale.margin)


def search(slide: Slide, window: Window, scale: SlideScale, *, learned: bool = False) -> Generator[Bytes, NDArray[np.float32], SearchedWindow]:
    """Find the cells of one window; a location, see ``services.patching.locating``.

    Args:
        slide: open.
        window: of the slide.
        scale: of the slide.
        learned: whether a locator finds them; else the stain alone.

    Raises:
        InvalidImageError: a tile is damaged.
    """
    pixels = slide.read(window.x, window.y, window.width, window.height)
    tolerance = BORDER_TOLERANCE * scale.unit
    located = (yield from locate_window(pixels, scale.red_cell)) if learned else _locate(pixels, scale)
    claimed = tuple(c for c in located.cells if window.claims(c.center_x + window.x, c.center_y + window.y, tolerance))
    return SearchedWindow(pixels, claimed, measure_exposure(pixels, located.outside), typical_blur(focus_map(pixels)), located.covered, located.ink)


def _locate(pixels: Bytes, scale: SlideScale) -> LocatedCells:
    return locate_cells(pixels, scale.located_microns, WindowOfSlide(scale.reduction, scale.threshold), masks=False)
