"""Draw windows of samples at random for training: another scale, turned, and with another stain, light, blur and noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.patching.locator_maps import Kind
from services.patching.working_image import BACKGROUND
from training.location.crowding import crowd
from training.location.samples import RED_CELL_RADIUS, Sample
from training.location.window import Window

_BEYOND: Final = 0.1
"""Share of a window that lies beyond the border of the image at most, where the image is not smaller."""

_BLUR_MARGIN: Final = 8


@dataclass(frozen=True)
class Changes:
    """How far windows are changed at random.

    Attributes:
        smallest, largest: radius of a red cell in px.
        stain: standard deviation of the logarithm of the optical density, all channels together.
        hue: the same, each channel apart, and of how much one channel takes over from another.
        light: standard deviation of the brightness, and of its slope across the window.
        blur: largest sigma in px; every third window is blurred.
        noise: largest standard deviation in grey levels; every third window is noisy.
        on_cells: share of the windows that show a nucleated or smudged cell; the others lie anywhere.
        on_smudged: share of these that show a smudged cell, where the sample has one.
        crowded: share of the windows in which copies of a cell are pasted so that they touch it.
    """

    smallest: float = 6.0
    largest: float = 10.5
    stain: float = 0.2
    hue: float = 0.1
    light: float = 0.04
    blur: float = 1.2
    noise: float = 10.0
    on_cells: float = 0.7
    on_smudged: float = 0.3
    crowded: float = 0.3


class Draws:
    """Draws windows from samples, sources by their shares."""

    def __init__(self, samples: Sequence[Sample], shares: Mapping[str, float], changes: Changes, side: int) -> None:
        by_source = {name: [s for s in samples if s.source == name] for name in shares}
        self._samples = {name: found for name, found in by_source.items() if found}
        weights = np.array([shares[name] for name in self._samples])
        self._names, self._weights = list(self._samples), weights / weights.sum()
        self._changes = changes
        self._side = side

    def window(self, rng: np.random.Generator) -> Window:
        """One window."""
        own = self._samples[self._names[int(rng.choice(len(self._names), p=self._weights))]]
        sample = own[int(rng.integers(len(own)))]
        radius = float(np.exp(rng.uniform(np.log(self._changes.smallest), np.log(self._changes.largest))))
        step = RED_CELL_RADIUS / radius
        left, top = self._corner(sample, step, rng)
        window = cut(sample, left, top, self._side, step)
        if rng.random() < self._changes.crowded:
            window = crowd(window, rng)
        return _turned(_changed(window, self._changes, rng), rng)

    def _corner(self, sample: Sample, step: float, rng: np.random.Generator) -> tuple[float, float]:
        reach = self._side * step
        cells = np.flatnonzero(sample.kinds != Kind.PLATELET)
        sizes = np.array(sample.pixels.shape[1::-1], np.float64)
        corner = rng.uniform(-0.1 * reach, np.maximum(0.0, sizes - 0.9 * reach))
        if cells.size and rng.random() < self._changes.on_cells:
            smudged = np.flatnonzero(sample.kinds == Kind.SMUDGED)
            index = int(rng.choice(smudged if smudged.size and rng.random() < self._changes.on_smudged else cells))
            corner = np.array([sample.x[index], sample.y[index]]) - rng.uniform(0.1, 0.9, 2) * reach
        left, top = np.clip(corner, np.minimum(0.0, sizes - reach) - _BEYOND * reach, np.maximum(0.0, sizes - reach) + _BEYOND * reach)
        return float(left), float(top)


def cut(sample: Sample, left: float, top: float, side: int, step: float) -> Window:
    """The window of ``side`` px at (left, top) of a sample, ``step`` px of the sample to a px; background beyond its border."""
    to_sample = np.array([[step, 0, left + (step - 1) / 2], [0, step, top + (step - 1) / 2]])
    seen = _seen(sample, left, top, side * step)
    to_seen = to_sample - np.array([[0, 0, seen[1].start], [0, 0, seen[0].start]])
    smooth = cv2.GaussianBlur(sample.pixels[seen], (0, 0), 0.4 * np.sqrt(max(0.01, step**2 - 1)))
    size = (side, side)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    pixels = cv2.warpAffine(smooth, to_seen, size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=(BACKGROUND,) * 3)
    owners, nuclei, unsure = (
        np.asarray(cv2.warpAffine(labels.astype(np.int16), to_sample, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP), np.int16)
        for labels in (sample.owners, sample.nuclei, sample.unsure)
    )
    x, y = (sample.x - to_sample[0, 2]) / step, (sample.y - to_sample[1, 2]) / step
    areas = np.bincount(sample.owners.ravel(), minlength=len(x) + 1)[1:].astype(np.float32) / step**2
    return Window(
        np.asarray(pixels, np.uint8),
        owners,
        nuclei > 0,
        unsure > 0,
        x,
        y,
        sample.kinds,
        areas,
        RED_CELL_RADIUS / step,
        sample.platelets_are_marked,
        sample.nuclei_are_known,
    )


def _seen(sample: Sample, left: float, top: float, reach: float) -> tuple[slice, slice]:
    """What a window shows of a sample, at least one px, with a margin for the blur."""
    height, width = sample.pixels.shape[:2]
    rows = np.clip([top - _BLUR_MARGIN, top + reach + _BLUR_MARGIN], [0, 1], [height - 1, height]).astype(int)
    columns = np.clip([left - _BLUR_MARGIN, left + reach + _BLUR_MARGIN], [0, 1], [width - 1, width]).astype(int)
    return np.s_[rows[0] : rows[1], columns[0] : columns[1]]


def _turned(window: Window, rng: np.random.Generator) -> Window:
    """Turned by a multiple of 90 degrees, half of the windows mirrored."""
    last = window.pixels.shape[0] - 1
    x, y = window.x, window.y
    maps: list[NDArray[Any]] = [window.pixels, window.owners, window.nuclei, window.unsure]
    if rng.random() < 0.5:
        maps, x = [m[:, ::-1] for m in maps], last - x
    for _ in range(int(rng.integers(4))):
        maps, x, y = [np.rot90(m) for m in maps], y, last - x
    pixels, owners, nuclei, unsure = (np.ascontiguousarray(m) for m in maps)
    return replace(window, pixels=pixels, owners=owners, nuclei=nuclei, unsure=unsure, x=x, y=y)


def _changed(window: Window, changes: Changes, rng: np.random.Generator) -> Window:
    pixels = np.maximum(window.pixels, 1).astype(np.float32) / BACKGROUND
    density = -np.log(pixels)
    mixing = np.diag(np.exp(rng.normal(0, changes.hue, 3))) + rng.normal(0, changes.hue / 2, (3, 3)) * (1 - np.eye(3))
    density = density @ (mixing * np.exp(rng.normal(0, changes.stain))).astype(np.float32)
    slope = np.linspace(-0.5, 0.5, pixels.shape[0], dtype=np.float32)
    light = 1 + rng.normal(0, changes.light) + rng.normal(0, changes.light) * slope[:, None] + rng.normal(0, changes.light) * slope
    changed = BACKGROUND * np.exp(-density) * light[..., None].astype(np.float32)
    if rng.random() < 1 / 3:
        changed = cv2.GaussianBlur(changed, (0, 0), max(0.1, rng.uniform(0, changes.blur)))
    if rng.random() < 1 / 3:
        changed = changed + rng.normal(0, rng.uniform(0, changes.noise), changed.shape)
    pixels = np.clip(np.rint(changed), 0, 255).astype(np.uint8)
    return replace(window, pixels=pixels)
