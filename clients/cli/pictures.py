"""Pictures that the command line writes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw

from dl4all.imaging.v1 import imaging_pb2
from dl4all.preprocessing.v1 import enhanced_cell_pb2

_SIDE: Final = 320
_CAPTION: Final = 44
_INK: Final = (40, 40, 40)
_CIRCLE: Final = (0, 130, 90)
_PAPER: Final = (250, 250, 248)
_GAP: Final = 10
_RELATIVE_RADIUS: Final = 85.0 / 256.0
"""Radius of a registered cell as a share of the square's side."""


def write_comparison(path: Path, crop: imaging_pb2.Crop, cell: enhanced_cell_pb2.EnhancedCell) -> None:
    """Write a PNG: the crop with the fitted circle, the registered cell before and after sharpening, with their focus scores."""
    sharpening = f"unsharp radius {cell.unsharp_radius}" if cell.unsharp_radius else "not sharpened"
    verdict = "accepted" if cell.accepted else "not accepted"
    after = Image.frombytes("RGB", (cell.side, cell.side), cell.pixels).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    panels = (
        (_with_circle(crop), (f"located, radius {cell.radius:.1f} px",)),
        (_registered(crop, cell.side), (f"before: focus {cell.focus_before:.3f}", f"registered, scaled by {cell.upscale_factor:.2f}")),
        (after, (f"after: focus {cell.focus_after:.3f}, {sharpening}", ", ".join([verdict, *cell.reasons]))),
    )
    canvas = Image.new("RGB", (len(panels) * (_SIDE + _GAP) + _GAP, _SIDE + _CAPTION + 2 * _GAP), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for i, (image, lines) in enumerate(panels):
        left = _GAP + i * (_SIDE + _GAP)
        canvas.paste(image, (left, _GAP))
        for row, line in enumerate(lines):
            draw.text((left, _GAP + _SIDE + 6 + 16 * row), line, fill=_INK)
    canvas.save(path)


def _registered(crop: imaging_pb2.Crop, side: int) -> Image.Image:
    """The square that was registered, as it was before; beyond the crop it is paper-coloured, not reflected."""
    half = crop.radius_estimate / (2 * _RELATIVE_RADIUS)
    image = Image.frombytes("RGB", (crop.width, crop.height), crop.pixels)
    corners = (crop.center_x + 0.5 - half, crop.center_y + 0.5 - half, crop.center_x + 0.5 + half, crop.center_y + 0.5 + half)
    square = image.transform((side, side), Image.Transform.EXTENT, corners, Image.Resampling.BICUBIC, fillcolor=_PAPER)
    return square.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)


def _with_circle(crop: imaging_pb2.Crop) -> Image.Image:
    image = Image.frombytes("RGB", (crop.width, crop.height), crop.pixels)
    scale = _SIDE / max(crop.width, crop.height)
    image = image.resize((max(1, round(crop.width * scale)), max(1, round(crop.height * scale))), Image.Resampling.BICUBIC)
    x, y, radius = crop.center_x * scale, crop.center_y * scale, crop.radius_estimate * scale
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), outline=_CIRCLE, width=2)
    return image
