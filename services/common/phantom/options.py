"""Options of a phantom: its content and its imaging."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class CellKind(StrEnum):
    """Kinds of white cell that can be drawn."""

    LYMPHOCYTE = "lymphocyte"
    NEUTROPHIL = "neutrophil"
    MONOCYTE = "monocyte"
    EOSINOPHIL = "eosinophil"
    BLAST = "blast"


@dataclass(frozen=True)
class PhantomOptions:
    """Content and imaging of a phantom.

    Attributes:
        width: Image width, pixels, 64..8192.
        height: Image height, pixels, 64..8192.
        cells: Number of white cells, 0..2000.
        kinds: Kinds of white cell, at least one; they are dealt out evenly in random order.
        cell_radius: Median radius of a lymphocyte, pixels, 6..400; the other kinds scale with it.
        red_cell_density: Fraction of the image area under red cells, 0..0.7, met as far as room allows.
        platelets: Number of platelets, 0..2000.
        blur_sigma: Standard deviation of the optical blur, pixels, 0..10.
        stain: Strength of the stain, 0.6..1.5, a factor on all optical densities.
        stain_hue: Hue shift, -1 (pink) .. +1 (blue).
        light: Unevenness of the illumination, 0 (flat) .. 0.5 (strong gradient and vignetting).
        brightness: Factor on the light, 0.7..1.2; above about 1 the background saturates.
        noise: Standard deviation of the sensor noise, 8-bit units, 0..25.
        touching: Fraction of white cells touched by red cells or by another white cell, 0..1; a fractional
            number of cells is rounded up or down at random. Without red cells only white cells can touch.
        label: Whether a caption saying that this is a phantom is drawn along the lower edge.

    Raises:
        ValueError: If a field is outside its range; the message names the field.
    """

    width: int = 1024
    height: int = 768
    cells: int = 8
    kinds: tuple[CellKind, ...] = tuple(CellKind)
    cell_radius: float = 42.0
    red_cell_density: float = 0.35
    platelets: int = 12
    blur_sigma: float = 0.8
    stain: float = 1.0
    stain_hue: float = 0.0
    light: float = 0.15
    brightness: float = 1.0
    noise: float = 2.0
    touching: float = 0.2
    label: bool = True

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if name in _WHOLE and not isinstance(value, int):
                raise ValueError(f"{name} must be a whole number, but is {value!r}.")
            if not low <= value <= high:
                raise ValueError(f"{name} must lie between {low:g} and {high:g}, but is {value}.")
        if not self.kinds:
            raise ValueError("kinds must name at least one kind of cell, but is empty.")
        unknown = [kind for kind in self.kinds if not isinstance(kind, CellKind)]
        if unknown:
            raise ValueError(f"kinds must hold CellKind members only, but holds {unknown[0]!r}.")


_RANGES: dict[str, tuple[float, float]] = {
    "width": (64, 8192),
    "height": (64, 8192),
    "cells": (0, 2000),
    "cell_radius": (6.0, 400.0),
    "red_cell_density": (0.0, 0.7),
    "platelets": (0, 2000),
    "blur_sigma": (0.0, 10.0),
    "stain": (0.6, 1.5),
    "stain_hue": (-1.0, 1.0),
    "light": (0.0, 0.5),
    "brightness": (0.7, 1.2),
    "noise": (0.0, 25.0),
    "touching": (0.0, 1.0),
}
_WHOLE = frozenset({"width", "height", "cells", "platelets"})
DEFAULT_FIELD = PhantomOptions()
DEFAULT_CROP = PhantomOptions(width=264, height=264, cells=1, platelets=1, touching=0.5)
