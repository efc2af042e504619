"""The caption that says that an image is a phantom, and the strip that it needs."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from services.common.phantom.options import PhantomOptions

_SHORT_CAPTION_BELOW = 300


def _font_size(width: int, height: int) -> int:
    return max(10, round(0.018 * min(width, height)))


def strip_height(options: PhantomOptions) -> int:
    """Rows along the lower edge that stay free of white cells, with or without a caption."""
    return round(1.6 * _font_size(options.width, options.height)) + 2


def draw_caption(image: NDArray[np.uint8], seed: int) -> None:
    """Dark grey letters on a light grey plate in the lower left corner."""
    height, width = image.shape[:2]
    size = _font_size(width, height)
    short = min(width, height) < _SHORT_CAPTION_BELOW
    text = "PHANTOM" if short else f"PHANTOM - drawn, not a patient (seed {seed})"
    font = ImageFont.load_default(size)
    plate_width = min(math.ceil(font.getlength(text)) + size, width)
    plate = Image.new("L", (plate_width, round(1.6 * size)), 238)
    ImageDraw.Draw(plate).text((size / 2, round(0.8 * size)), text, fill=45, font=font, anchor="lm")
    grey = np.asarray(plate)
    image[height - grey.shape[0] :, : grey.shape[1]] = grey[..., None]
