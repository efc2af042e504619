"""Stain: tell nucleus, cytoplasm, red cell and background of an image apart.

Works in optical density (Beer-Lambert, base e), after division by the light of the background, so that
exposure and slow unevenness of the light cancel. Nuclei of Romanowsky stains absorb much green and little blue;
red cells absorb blue about as much as green, or, where they look blue, red more than green. Their contrast is the
violet index ``V = 2 (OD_green - OD_blue) - max(0, OD_red - OD_green)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]

MIN_NUCLEUS_VIOLET: Final = 0.2
"""Violet index below which nothing is called a nucleus, however empty the image."""
NUCLEUS_SHARE_OF_PEAK: Final = 0.45
ABSORBS: Final = 0.12
"""Sum of the three optical densities above which a pixel is not background."""
RED_CELL_SHARE: Final = 0.06
"""Red cells are measured where they cover at least this share of the area of the nucleus."""
MAX_HOLES: Final = 20_000
"""Holes that may be the pallor of red cells, the largest: bounds the work on pierced images."""
ALONE_MIN_SOLIDITY: Final = 0.95
"""A part that fills at least this share of its convex hull is one cell; two cells that touch fill less."""
ALONE_MIN_GAIN: Final = 1.15
"""How much larger by its shape than by its colour a cell that stands alone must be for its shape to decide."""
ALONE_MAX_TO_NUCLEUS: Final = 2.2
"""Largest radius of a cell that stands alone, in radii of the hull of its nucleus."""


@dataclass(frozen=True)
class StainColours:
    """Mean optical densities (red, green, blue) of the materials of one image; None where it is absent."""

    nucleus: Float
    cytoplasm: Float | None
    red_cell: Float | None


def optical_density(rgb: Bytes, light: Float) -> Float:
    """Return ``ln((light + 1) / (rgb + 1))``, float32 (H, W, 3); 0 is background, larger is darker."""
    return np.asarray(cv2.log((light + 1.0) / (rgb.astype(np.float32) + 1.0)), np.float32)


def total_density(density: Float) -> Float:
    """Sum of the three optical densities, float32 (H, W)."""
    return np.asarray(cv2.transform(density, np.ones((1, 3), np.float32)), np.float32).reshape(density.shape[:2])


def violet_index(density: Float) -> Float:
    """Return ``2 (OD_green - OD_blue) - max(0, OD_red - OD_green)``, float32 (H, W).

    About -0.3..0.6 for red cells and background, 0.5..3 for nuclei.
    """
    red, green, blue = cv2.split(density)
    return np.asarray(2.0 * (green - blue) - np.maximum(red - green, 0.0), np.float32)


def nucleus_threshold(violet: Float, nucleus_area: float) -> float:
    """Violet index above which a pixel belongs to a nucleus.

    A share of the peak, which is the mean over the most violet pixels that together would make one nucleus: the
    share is the same for weak and strong stains, and does not depend on how much of the image nuclei cover.

    Args:
        violet: violet index, float32 (H, W), smoothed.
        nucleus_area: area in px of a small nucleus.
    """
    count = int(np.clip(nucleus_area, 1, violet.size))
    top = np.partition(violet.ravel(), violet.size - count)[violet.size - count :]
    return max(NUCLEUS_SHARE_OF_PEAK * float(top.mean()), MIN_NUCLEUS_VIOLET)


def foreground_mask(density: Float) -> Mask:
    """Mark pixels that absorb light, the central pallor of red cells (small, convex holes) filled. bool (H, W)."""
    scaled = np.clip(total_density(density) * 85.0, 0, 255).astype(np.uint8)
    otsu, _ = cv2.threshold(scaled, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    mask = cv2.morphologyEx((scaled > np.clip(0.7 * otsu, 8, 68)).astype(np.uint8), cv2.MORPH_OPEN, disk(1))
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    holes = [c for c, (_, _, _, parent) in zip(contours, [] if hierarchy is None else hierarchy[0], strict=True) if parent >= 0]
    for hole in holes if len(holes) <= MAX_HOLES else sorted(holes, key=cv2.contourArea)[-MAX_HOLES:]:
        if _is_pallor(np.asarray(hole, np.int32), mask.size):
            cv2.drawContours(mask, [hole], -1, 1, cv2.FILLED)
    return mask > 0


def _is_pallor(contour: NDArray[np.int32], image_area: int) -> bool:
    area = cv2.contourArea(contour)
    return bool(area < 0.03 * image_area and area > 0.85 * cv2.contourArea(cv2.convexHull(contour)) - 8)


def red_cell_radius(distance: Float, at_peak: Mask) -> float | None:
    """Typical radius in px of the red cells, the most frequent cells of a smear.

    Args:
        distance, at_peak: ``distance_peaks`` of the foreground.

    Returns:
        The median of the peaks, each weighted by its height; None where fewer than eight peaks are seen or where the
        foreground is one mass.
    """
    peaks = np.sort(distance[at_peak & (distance > max(2.5, 0.3 * float(distance.max())))])
    if peaks.size < 8:
        return None
    weight = np.cumsum(peaks)
    radius = float(peaks[np.searchsorted(weight, weight[-1] / 2)])
    return radius if radius < 0.15 * min(distance.shape) else None


def distance_peaks(foreground: Mask) -> tuple[Float, Mask]:
    """Distance in px to the edge of the foreground, smoothed, float32 (H, W), and where it peaks within 5 px, bool (H, W)."""
    distance = cv2.GaussianBlur(cv2.distanceTransform(foreground.astype(np.uint8), cv2.DIST_L2, 5), (0, 0), 1.0)
    return np.asarray(distance, np.float32), np.asarray(distance >= cv2.dilate(distance, disk(5)), bool)


def disk(radius: int) -> Bytes:
    """Structuring element: a disk, uint8 (2 radius + 1, 2 radius + 1)."""
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)), np.uint8)


def fill_holes(mask: Mask) -> Mask:
    """Fill the holes of a mask. Holes open to the image border stay."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(filled, contours, -1, 1, cv2.FILLED)
    return filled.astype(bool)


def measure_colours(density: Float, nucleus: Mask, radius: float, distance: Float, red_cells: Mask) -> StainColours:
    """Measure the optical densities of nucleus, cytoplasm and red cells around one nucleus, whose core has the given radius and distance map.

    The red cells are measured beyond the reach of this cell. The cytoplasm is measured in a ring around the core, on pixels that absorb light, are
    not nearly nucleus and do not have the hue of those red cells. A ring that absorbs light nearly all around but looks like red cells is cytoplasm
    too: red cells touch a cell, they do not surround it.
    """
    ring = (distance <= max(3.0, 0.35 * radius)) & (distance_to(nucleus) > max(1.0, 0.1 * radius))
    red_cell = _red_cell_colour(density, red_cells, distance, radius)
    nuclear = np.median(density[nucleus], axis=0).astype(np.float32)
    inside = density[ring]
    total = total_density(density)[ring]
    plasma = inside[(total > ABSORBS) & (total < 0.65 * float(nuclear.sum()))]
    own = plasma if red_cell is None else plasma[hue_distance(plasma, red_cell) > 0.2]
    if own.shape[0] > 0.25 * inside.shape[0]:
        return StainColours(nuclear, np.median(own, axis=0).astype(np.float32), red_cell)
    if plasma.shape[0] > 0.6 * inside.shape[0]:
        return StainColours(nuclear, np.median(plasma, axis=0).astype(np.float32), None)
    return StainColours(nuclear, None, red_cell)


def _red_cell_colour(density: Float, red_cells: Mask, distance: Float, radius: float) -> Float | None:
    """Median optical density of the red cells around a nucleus; None where hardly any are seen.

    Beyond 1.1 radii of the nucleus all of the mask counts. Nearer than that it may be cytoplasm, and counts only where it extends to the border of
    the window or far out. Red cells do; the cytoplasm of this cell does not.
    """
    enough = RED_CELL_SHARE * math.pi * radius**2
    far = red_cells & (distance > 1.1 * radius)
    if np.count_nonzero(far) < enough:
        count, labels = cv2.connectedComponents((red_cells & (distance > 0.55 * radius)).astype(np.uint8), connectivity=4)
        border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1], labels[distance > 1.6 * radius]])
        reaches_out = np.zeros(count, bool)
        reaches_out[border] = True
        reaches_out[0] = False
        far = reaches_out[labels]
    if np.count_nonzero(far) < enough:
        return None
    return np.asarray(np.median(density[far], axis=0), np.float32)


def _length(vectors: Float) -> Float:
    """Lengths of vectors (..., 3), float32 (...)."""
    return np.asarray(np.sqrt(np.einsum("...i,...i->...", vectors, vectors)), np.float32)


def _hue(density: Float) -> Float:
    return np.asarray(density / (_length(density)[..., None] + np.float32(0.05)), np.float32)


def hue_distance(density: Float, colour: Float) -> Float:
    """Distance (0..2) between directions in optical density: thick and thin parts of one material are alike."""
    return _length(_hue(density) - _hue(colour))


def nucleus_core(nucleus: Mask) -> Mask:
    """The convex hull of a nucleus and its lobes, bool (H, W)."""
    contours, _ = cv2.findContours(nucleus.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    core = np.zeros(nucleus.shape, np.uint8)
    cv2.fillConvexPoly(core, cv2.convexHull(np.concatenate(contours)), 1)
    return core.astype(bool)


def distance_to(mask: Mask) -> Float:
    """Distance in px of every pixel to the nearest pixel of the mask, float32 (H, W); 0 inside."""
    return np.asarray(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5), np.float32)


def cell_mask(density: Float, nucleus: Mask, red_cells: Mask) -> Mask:
    """Mark one whole cell, cytoplasm included.

    The cell is the set of pixels that absorb light, are nearer in hue to the cytoplasm than to the red cells, are connected with the nucleus and
    lie within 1.2 radii of its hull, smoothed by an opening.

    Args:
        density: optical density, float32 (H, W, 3).
        nucleus: bool (H, W), the nucleus, all lobes, of the cell that is meant; not empty.
        red_cells: bool (H, W), pixels that absorb light and are not nucleus: mostly red cells, also cytoplasm.

    Returns:
        bool (H, W), containing the nucleus.
    """
    core = nucleus_core(nucleus)
    radius = equivalent_radius(core)
    by_colour = _cell_by_colour(density, nucleus, core, radius, red_cells)
    alone = _standing_alone(nucleus | red_cells, core, radius)
    # Colour draws the finer outline; shape decides only where colour has lost a part of the cell.
    if alone is not None and np.count_nonzero(alone) > ALONE_MIN_GAIN * np.count_nonzero(by_colour):
        return alone
    return by_colour


def _cell_by_colour(density: Float, nucleus: Mask, core: Mask, radius: float, red_cells: Mask) -> Mask:
    """Pixels around a nucleus that absorb light and have the hue of its cytoplasm rather than that of the red cells."""
    distance = distance_to(core)
    colours = measure_colours(density, nucleus, radius, distance, red_cells)
    if colours.cytoplasm is None:
        return distance <= max(1.0, 0.05 * radius)
    smooth = np.asarray(cv2.GaussianBlur(density, (0, 0), max(0.8, 0.04 * radius)), np.float32)
    total = total_density(smooth)
    belongs = total > max(ABSORBS, 0.4 * float(colours.cytoplasm.sum()))
    if colours.red_cell is not None:
        hue = _hue(smooth)
        belongs &= _length(hue - _hue(colours.cytoplasm)) < _length(hue - _hue(colours.red_cell))
    candidate = fill_holes((belongs & (distance <= 1.2 * radius)) | core)
    return fill_holes(_connected_with(core, _open(candidate, max(1.0, 0.35 * radius)) | core))


def _connected_with(core: Mask, mask: Mask) -> Mask:
    """The components of a mask that the core, a part of it, touches."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    touched = np.zeros(count, bool)
    touched[labels[core]] = True
    return np.asarray(touched[labels], bool)


def _standing_alone(foreground: Mask, core: Mask, radius: float) -> Mask | None:
    """All pixels around a nucleus that absorb light, where nothing touches the cell; None where something may.

    A part that is as convex as a single cell, not much larger than its nucleus and inside the window is one cell, whatever the colour of its
    cytoplasm: the pink cytoplasm of granulocytes has the hue of red cells.
    """
    whole = fill_holes(_connected_with(core, _open(fill_holes(foreground | core), max(1.0, 0.25 * radius)) | core))
    if whole[0].any() or whole[-1].any() or whole[:, 0].any() or whole[:, -1].any():
        return None
    if equivalent_radius(whole) > ALONE_MAX_TO_NUCLEUS * radius:
        return None
    return whole if np.count_nonzero(whole) > ALONE_MIN_SOLIDITY * np.count_nonzero(nucleus_core(whole)) else None


def _open(mask: Mask, radius: float) -> Mask:
    """Morphological opening with a disk; by distance maps, whose cost does not grow with the radius."""
    margin = math.ceil(radius) + 1
    padded = np.pad(mask, margin, mode="edge")
    eroded = distance_to(~padded) > radius
    if not eroded.any():
        return np.zeros_like(mask)
    return (distance_to(eroded) <= radius)[margin:-margin, margin:-margin]


def equivalent_radius(mask: Mask) -> float:
    """Radius in px of the disk of the mask's area, ``sqrt(area / pi)``."""
    return float(np.sqrt(np.count_nonzero(mask) / np.pi))
