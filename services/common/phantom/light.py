"""From optical density to an image: light, stain, blur, sensor noise."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from services.common.phantom.options import PhantomOptions
from services.common.phantom.planes import BACKGROUND, Plane, f32, gauss, polar, standard, white_noise
from services.common.phantom.seeds import Purpose, stream


def expose(seed: int, options: PhantomOptions, density: Plane) -> NDArray[np.uint8]:
    """The image of an optical density: (H, W, 3) float32 to uint8."""
    tint = np.array([1.0 + 0.2 * options.stain_hue, 1.0, 1.0 - 0.28 * options.stain_hue], dtype=np.float32)
    light = _light(options, stream(seed, Purpose.LIGHT))
    exposure = f32(light * np.exp(-density * (options.stain * tint)))
    if options.blur_sigma > 0:
        exposure = gauss(exposure, options.blur_sigma)
    if options.noise > 0:
        exposure += options.noise * white_noise(exposure.shape, stream(seed, Purpose.NOISE))
    return np.clip(np.rint(exposure), 0, 255).astype(np.uint8)


def _light(options: PhantomOptions, rng: np.random.Generator) -> Plane:
    """(H, W, 3) light that would be seen without cells, 8-bit units."""
    x = np.linspace(-1.0, 1.0, options.width, dtype=np.float32)[None, :]
    y = np.linspace(-1.0, 1.0, options.height, dtype=np.float32)[:, None]
    dx, dy = polar(0.5, rng.uniform(0.0, math.tau))
    ramp = (dx * x + dy * y) / (abs(dx) + abs(dy)) * 0.5 + 0.5
    corner = (x**2 + y**2) / 2.0
    coarse = standard(gauss(white_noise((24, 32), rng), 4.0))
    cloud = cv2.resize(coarse, (options.width, options.height), interpolation=cv2.INTER_CUBIC)
    fall = options.light * (0.55 * ramp + 0.45 * corner + 0.04 * cloud)
    hue = np.array([-0.03, 0.005, 0.07], dtype=np.float32) * options.stain_hue
    lamp = np.asarray(BACKGROUND, dtype=np.float32) * (1.0 + hue) * options.brightness
    chroma = np.array([1.0, 1.0, 1.12], dtype=np.float32)
    return f32(lamp * (1.0 - fall[..., None] * chroma))
