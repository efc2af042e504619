"""Pictures that the command line writes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw

from dl4all.imaging.v1 import imaging_pb2
from dl4all.preprocessing.v1 import preprocessing_pb2

_SIDE: Final = 320
_CAPTION: Final = 44
_INK: Final = (40, 40, 40)
_CIRCLE: Final = (0, 130, 90)


def write_comparison(path: Path, crop: imaging_pb2.Crop, cell: preprocessing_pb2.EnhancedCell) -> None:
    """Write a PNG: the crop with the fitted circle, and the registered, sharpened cell, with their focus scores."""
    canvas = Image.new("RGB", (2 * _SIDE + 30, _SIDE + _CAPTION + 20), (250, 250, 248))
    canvas.paste(_with_circle(crop), (10, 10))
    enhanced = Image.frombytes("RGB", (cell.side, cell.side), cell.pixels)
    canvas.paste(enhanced.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), (_SIDE + 20, 10))
    draw = ImageDraw.Draw(canvas)
    sharpening = f"unsharp radius {cell.unsharp_radius}" if cell.unsharp_radius else "not sharpened"
    draw.text((10, _SIDE + 16), f"cell {cell.radius:.1f} px, focus {cell.focus_before:.3f} (registered)", fill=_INK)
    draw.text((_SIDE + 20, _SIDE + 16), f"focus {cell.focus_after:.3f}, {sharpening}", fill=_INK)
    verdict = "accepted" if cell.accepted else "not accepted"
    draw.text((_SIDE + 20, _SIDE + 32), ", ".join([verdict, *cell.reasons]), fill=_INK)
    canvas.save(path)


def _with_circle(crop: imaging_pb2.Crop) -> Image.Image:
    image = Image.frombytes("RGB", (crop.width, crop.height), crop.pixels)
    scale = _SIDE / max(crop.width, crop.height)
    image = image.resize((max(1, round(crop.width * scale)), max(1, round(crop.height * scale))), Image.Resampling.BICUBIC)
    x, y, radius = crop.center_x * scale, crop.center_y * scale, crop.radius_estimate * scale
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), outline=_CIRCLE, width=2)
    return image
