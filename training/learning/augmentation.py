"""Random changes of crops during training, on uint8: position, stain, light, focus, noise. A function of seed and step alone.

Stain, brightness and contrast change a pixel by its own value only, so they are one table of 256 entries per channel.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from training.recipes.config import Augmentation

Pixels = NDArray[np.uint8]
Double = NDArray[np.float64]
_LEVELS: Final = np.maximum(np.arange(256.0), 1.0) / 255.0
_NOISE_SIZE: Final = 1 << 20
_RUN: Final = 8
"""Crops that a thread changes before it takes the next ones."""


def augment(crops: Pixels, augmentation: Augmentation, seed: tuple[int, ...], pool: ThreadPoolExecutor | None = None) -> Pixels:
    """Change a batch at random.

    Args:
        crops: uint8 (N, side, side, 3).
        augmentation: how far.
        seed: decides everything; the same seed gives the same crops.
        pool: threads that share the crops; None for the calling thread.

    Returns:
        uint8 (N, side, side, 3), a new array.
    """
    generator = np.random.default_rng(seed)
    count, side = len(crops), crops.shape[1]
    matrices = _matrices(count, side, augmentation, generator)
    tables = _tables(count, augmentation, generator)
    sigmas = np.where(generator.random(count) < 1 / 3, generator.uniform(0.3, 1.0, count) * augmentation.blur, 0.0)
    deviations = generator.uniform(0.0, 1.0, count) * augmentation.noise * 255.0
    starts = generator.integers(0, _NOISE_SIZE, count)
    noise = _noise_source() if augmentation.noise else None
    interpolation = cv2.INTER_NEAREST if augmentation.black_border else cv2.INTER_LINEAR
    border = cv2.BORDER_CONSTANT if augmentation.black_border else cv2.BORDER_REFLECT_101
    result = np.empty_like(crops)

    def change(i: int) -> None:
        crop = crops[i]
        if matrices is not None:
            crop = cv2.warpAffine(crop, matrices[i], (side, side), flags=interpolation | cv2.WARP_INVERSE_MAP, borderMode=border)
        if tables is not None:
            crop = cv2.LUT(crop, tables[i])
        if sigmas[i] > 0:
            crop = cv2.GaussianBlur(crop, (0, 0), sigmas[i])
        if noise is not None:
            crop = _add_noise(crop, noise, int(starts[i]), float(deviations[i]))
        result[i] = crop

    def change_all(indices: range) -> None:
        for i in indices:
            change(i)

    if pool is None:
        change_all(range(count))
    else:
        list(pool.map(change_all, [range(start, min(start + _RUN, count)) for start in range(0, count, _RUN)]))
    return result


def _matrices(count: int, side: int, a: Augmentation, generator: np.random.Generator) -> Double | None:
    """Inverse affine maps (N, 2, 3) about the centre, None where nothing moves."""
    mirror = np.where(generator.random((count, 2)) < 0.5, -1.0, 1.0) if a.flips else np.ones((count, 2))
    angle = np.deg2rad(generator.uniform(-a.rotation, a.rotation, count))
    scale = generator.uniform(1 - a.scale, 1 + a.scale, count)
    shift = generator.uniform(-a.shift, a.shift, (count, 2)) * side
    if not (a.flips or a.rotation or a.scale or a.shift):
        return None
    cosine, sine = np.cos(angle) / scale, np.sin(angle) / scale
    rows = np.stack([np.stack([cosine, -sine], 1) * mirror[:, :1], np.stack([sine, cosine], 1) * mirror[:, 1:]], 1)
    centre = (side - 1) / 2
    offset = centre + shift - rows.sum(axis=2) * centre
    return np.concatenate([rows, offset[:, :, None]], axis=2)


def _tables(count: int, a: Augmentation, generator: np.random.Generator) -> Pixels | None:
    """Tables (N, 256, 1, 3) -> value of each channel, None where no colour changes."""
    strength = np.exp(generator.uniform(-a.stain, a.stain, (count, 1))) * (1 + generator.uniform(-a.stain, a.stain, (count, 3)) / 2)
    light = 1 + generator.uniform(-a.light, a.light, (count, 3))
    if not (a.stain or a.light):
        return None
    values = np.exp(np.log(_LEVELS)[None, :, None] * strength[:, None, :]) * light[:, None, :] * 255.0
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)[:, :, None, :].reshape(count, 256, 1, 3)


@functools.cache
def _noise_source() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(_NOISE_SIZE).astype(np.float32)


def _add_noise(crop: Pixels, noise: NDArray[np.float32], start: int, deviation: float) -> Pixels:
    """Add noise from a fixed table of normal deviates, starting at a random entry. Drawing new deviates costs more than the network."""
    size = crop.size
    if size > _NOISE_SIZE:
        run = np.resize(np.roll(noise, -start), size)
    else:
        end = start + size
        run = noise[start:end] if end <= _NOISE_SIZE else np.concatenate([noise[start:], noise[: end - _NOISE_SIZE]])
    return np.asarray(cv2.add(crop, (run * np.float32(deviation)).reshape(crop.shape), dtype=cv2.CV_8U), np.uint8)
