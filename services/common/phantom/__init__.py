"""Drawn blood smears with known truth: fields, single cells and slides. See ``field`` and ``slide``."""

from services.common.phantom.field import single_cell, smear_field
from services.common.phantom.options import DEFAULT_CROP, DEFAULT_FIELD, CellKind, PhantomOptions
from services.common.phantom.truth import Phantom, PhantomCell, encode_png

__all__ = [
    "DEFAULT_CROP",
    "DEFAULT_FIELD",
    "CellKind",
    "Phantom",
    "PhantomCell",
    "PhantomOptions",
    "encode_png",
    "single_cell",
    "smear_field",
]
