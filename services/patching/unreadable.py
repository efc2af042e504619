"""Parts of an image that cannot be field: what lies outside the circle of the eyepiece, ink, pointers and text.

Ink is told by its colour in optical density: no Romanowsky stain absorbs much of all three colours, much red
and less green than blue, or much blue alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

LEAST_SHARE: Final = 0.0005
"""Share of the image below which parts are left as they are; of 155 real fields one in thirty has more, all of it ink or dark rims."""
LEAST_PART: Final = 24
"""Pixels of the smallest part that counts; single dark pixels are noise."""
BLACK: Final = 1.3
"""Least optical density of black in all three colours; nuclei absorb less blue."""
DIM: Final = 0.35
"""Least optical density of the rim of a dark outside, in all three colours."""
LONGEST_RIM: Final = 0.06
"""How far such a rim reaches at most, as a share of the longer side."""
NOT_STAINED: Final = 1.0
"""Least optical density in red, or in blue, of ink that absorbs it most."""
RED_INK: Final = (1.3, 0.5)
"""Red ink absorbs at least the first of green and blue, and at most the second of red; red cells absorb less."""
BLUE_INK: Final = (2.5, 0.2)
"""Pure blue and magenta absorb at least the first of green, and at most the second of blue; nuclei absorb more blue."""
RIM_OF_BLUE: Final = (0.6, 0.12)
NEAR: Final = 8
"""The rim of blue ink, within ``NEAR`` px of it, absorbs at least the first of green, and the second, as a share of that, of blue."""
RIM: Final = 0.015
"""How far the rim of a large part reaches, as a share of the longer side."""
LARGE: Final = 0.01
"""Share of the image above which a part is large."""
EDGE: Final = 3
"""Pixels around a part that it blends with."""
THIN: Final = 18.0
"""Parts at most this thick, px on each side of their middle, are thin."""
SOFT_DENSITY: Final = 0.45
SOFT_SHARE: Final = 0.85
"""The edge of a part is soft where this share of the ``EDGE`` px around it absorbs more than ``SOFT_DENSITY`` in all colours together."""
MAX_THIN_SHARE: Final = 0.12
"""Share of the image that thin parts may have in all to be filled in from both sides."""
CORNER: Final = 8
FLAT: Final = 6
"""A corner of the page is one colour: no channel of its square of ``CORNER`` px differs by more than ``FLAT`` grey levels."""
LIKE_LIGHT: Final = 16
"""A page that differs from the light of the picture by at most so many grey levels may be its background, and does no harm."""
MIN_SOLIDITY: Final = 0.9
"""What a page leaves free is one picture, which fills this share of its convex hull; what the background of a field leaves free is cells."""
_FULL: Final = 255


@dataclass(frozen=True)
class Unreadable:
    """What cannot be field.

    Attributes:
        mask: bool (H, W), pixels without a picture; nothing is found there.
        rgb: uint8 (H, W, 3), the image with thin parts filled in.
        ink: share 0..1 of the image under ink, pointers and text, thin ones too.
    """

    mask: Mask
    rgb: Bytes
    ink: float


def unreadable(rgb: Bytes, density: Float) -> Unreadable | None:
    """Find what cannot be field; None where an image has none of it.

    Args:
        rgb: uint8 (H, W, 3), a field.
        density: its optical density, float32 (H, W, 3), by a light that may still be wrong.
    """
    page = _page(rgb)
    inked = _inked(rgb, density, page)
    if page is None and np.count_nonzero(inked) < LEAST_SHARE * inked.size:
        return None
    count, found, stats, _ = cv2.connectedComponentsWithStats(inked.astype(np.uint8), connectivity=8)
    labels, areas = np.asarray(found, np.int32), stats[:, cv2.CC_STAT_AREA]
    counts = areas >= LEAST_PART
    counts[0] = False
    outside = counts & (areas >= LARGE * inked.size) & _touches_corner(labels, count)
    ink = (counts & ~outside)[labels]
    rim = round(RIM * max(inked.shape))
    around = _widened(_with_rim(outside[labels] if page is None else outside[labels] | page, rgb), rim)
    ink |= _widened(ink, NEAR) & _bluish(density)
    core = ink
    ink = (_widened(ink, EDGE) | _widened(_soft(core, density), rim)) & ~around
    if np.count_nonzero(ink) + np.count_nonzero(around) < LEAST_SHARE * ink.size:
        return None
    thin = _thin(ink)
    filled = np.asarray(cv2.inpaint(rgb, thin.astype(np.uint8), 3, cv2.INPAINT_TELEA), np.uint8) if thin.any() else rgb
    return Unreadable(around | (ink & ~thin), filled, float((core & ~around).mean()))


def _inked(rgb: Bytes, density: Float, page: Mask | None) -> Mask:
    """Pixels of ink, and of black, which is also told against the light of the whole image: a surface follows a dark rim."""
    sampled = rgb[::8, ::8].reshape(-1, 3) if page is None else rgb[::8, ::8][~page[::8, ::8]]
    if not len(sampled):
        return np.zeros(rgb.shape[:2], bool)
    darkest = np.percentile(sampled, 90, axis=0) * math.exp(-BLACK)
    black = cv2.inRange(rgb, np.zeros(3), darkest) > 0
    if _coloured(density[::2, ::2]).mean() < LEAST_SHARE / 2:
        return black
    return black | _coloured(density)


def _coloured(density: Float) -> Mask:
    red, green, blue = (density[..., channel] for channel in range(3))
    cold = (red > NOT_STAINED) & (red > 1.5 * green + 0.5) & (np.maximum(blue, 0.0) > green - 0.1)
    yellow = (blue > NOT_STAINED) & (blue > 1.5 * green + 0.3)
    warm = (green > RED_INK[0]) & (blue > RED_INK[0]) & (red < RED_INK[1])
    pure = (green > BLUE_INK[0]) & (blue < BLUE_INK[1])
    return np.asarray(cold | yellow | warm | pure, bool)


def _bluish(density: Float) -> Mask:
    """Pixels that may be the rim of blue ink; beside it only, because blue nuclei look alike."""
    green, blue = density[..., 1], density[..., 2]
    return np.asarray((green > RIM_OF_BLUE[0]) & (blue < RIM_OF_BLUE[1] * green), bool)


def _page(rgb: Bytes) -> Mask | None:
    """The page around a picture that is not rectangular: of one colour, in the corners; None where there is none."""
    height, width = rgb.shape[:2]
    page = np.zeros((height, width), bool)
    for x, y in ((0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)):
        square = rgb[max(0, y - CORNER) : y + CORNER, max(0, x - CORNER) : x + CORNER]
        if page[y, x] or int(np.ptp(square.reshape(-1, 3), axis=0).max()) > FLAT:
            continue
        colour = np.median(square.reshape(-1, 3), axis=0)
        low, high = np.clip(colour - FLAT, 0, _FULL), np.clip(colour + FLAT, 0, _FULL)
        alike = cv2.inRange(rgb, low.astype(np.uint8), high.astype(np.uint8))
        _, labels = cv2.connectedComponents(alike, connectivity=4)
        page |= (labels == labels[y, x]) & (alike > 0)
    if page.mean() < LARGE or page.all() or not _leaves_one_picture(page):
        return None
    beside = np.abs(np.percentile(rgb[~page][::16], 90, axis=0) - np.median(rgb[page][::16], axis=0)).max()
    return page if beside > LIKE_LIGHT else None


def _leaves_one_picture(page: Mask) -> bool:
    contours, _ = cv2.findContours((~page).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return False
    hull = cv2.contourArea(cv2.convexHull(np.concatenate(contours)))
    return bool(hull > 0 and max(cv2.contourArea(c) for c in contours) >= MIN_SOLIDITY * hull)


def _with_rim(outside: Mask, rgb: Bytes) -> Mask:
    """The dark outside with the rim in which the light rises to that of the field."""
    if not outside.any() or outside.all():
        return outside
    lit = np.percentile(rgb[~outside][::16], 90, axis=0)
    dim = cv2.inRange(rgb, np.zeros(3), lit * math.exp(-DIM)) > 0
    near = _widened(outside, round(LONGEST_RIM * max(outside.shape)))
    _, labels = cv2.connectedComponents(((dim & near) | outside).astype(np.uint8), connectivity=4)
    joined = np.zeros(int(labels.max()) + 1, bool)
    joined[labels[outside]] = True
    return np.asarray(joined[labels] & (near | outside), bool)


def _touches_corner(labels: NDArray[np.int32], count: int) -> NDArray[np.bool_]:
    touched = np.zeros(count, bool)
    touched[labels[:: max(1, labels.shape[0] - 1), :: max(1, labels.shape[1] - 1)].ravel()] = True
    touched[0] = False
    return touched


def _widened(mask: Mask, pixels: int) -> Mask:
    if not mask.any():
        return mask
    return np.asarray(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3) <= pixels, bool)


def _soft(ink: Mask, density: Float) -> Mask:
    """Parts whose edge is soft: nearly all pixels around them absorb light as well. So strokes of a pen are told from what a program draws."""
    count, found = cv2.connectedComponents(ink.astype(np.uint8), connectivity=8)
    labels = np.asarray(found, np.int32)
    widened = cv2.dilate(labels.astype(np.float32), np.ones((2 * EDGE + 1, 2 * EDGE + 1), np.uint8)).astype(np.int32)
    around = (widened > 0) & ~ink
    sizes = np.bincount(widened[around], minlength=count)
    absorbing = np.bincount(widened[around & (density.sum(axis=2) > SOFT_DENSITY)], minlength=count)
    is_soft = absorbing > SOFT_SHARE * sizes
    is_soft[0] = False
    return np.asarray(is_soft[labels], bool)


def _thin(ink: Mask) -> Mask:
    """Parts whose middle is near their edge; none where they are many."""
    count, found = cv2.connectedComponents(ink.astype(np.uint8), connectivity=8)
    labels = np.asarray(found, np.int32)
    depth = cv2.distanceTransform(ink.astype(np.uint8), cv2.DIST_L2, 3)
    deepest = np.zeros(count, np.float32)
    np.maximum.at(deepest, labels[ink], depth[ink])
    thin = (deepest <= THIN)[labels] & ink
    return thin if thin.mean() <= MAX_THIN_SHARE else np.zeros_like(ink)
