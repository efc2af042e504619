"""Draw phantoms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clients.cli.options import AsJson
from clients.cli.running import print_json, say
from services.common.image_files import shown

if TYPE_CHECKING:
    from services.common.phantom import PhantomCell


def phantom(
    out: Annotated[Path, typer.Option(help="PNG file to write; it carries its true cells.")] = Path("phantom.png"),
    seed: Annotated[int, typer.Option(help="The same seed gives the same drawing.", min=0)] = 1,
    cells: Annotated[int, typer.Option(help="White cells of the field.", min=0, max=200)] = 12,
    width: Annotated[int, typer.Option(help="Width in px.", min=64, max=8192)] = 1280,
    height: Annotated[int, typer.Option(help="Height in px.", min=64, max=8192)] = 960,
    cell: Annotated[
        str | None,
        typer.Option(help="Draw one cell of this kind instead: lymphocyte, neutrophil, monocyte, eosinophil or blast.", show_default=False),
    ] = None,
    slide_side: Annotated[
        int | None,
        typer.Option("--slide", help="Draw a whole slide of this side in px instead: a tiled TIFF.", min=64, max=100_000, show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw a phantom: a smear field (or one cell, or a slide) with known truth. It is always marked as a drawing."""
    from services.common.phantom import CellKind, PhantomOptions, encode_png, single_cell, smear_field

    if slide_side is not None:
        _draw_slide(out, seed, slide_side, as_json)
        return
    try:
        drawn = single_cell(seed, CellKind(cell)) if cell else smear_field(seed, PhantomOptions(width=width, height=height, cells=cells))
        out.write_bytes(encode_png(drawn))
    except (ValueError, OSError) as error:
        say(f"cannot draw: {error}", "red")
        raise typer.Exit(1) from error
    _show_drawn(out, seed, drawn.cells, as_json)


def _draw_slide(out: Path, seed: int, side: int, as_json: bool) -> None:
    from services.common.phantom.slide import PhantomSlide, SlideOptions

    drawn = PhantomSlide(seed, SlideOptions(width=side, height=side))
    try:
        drawn.write(out)
    except OSError as error:
        say(f"cannot draw: {error}", "red")
        raise typer.Exit(1) from error
    _show_drawn(out, seed, drawn.cells(), as_json)


def _show_drawn(out: Path, seed: int, cells: Sequence[PhantomCell], as_json: bool) -> None:
    truth = [{"center_x": c.center_x, "center_y": c.center_y, "radius": c.radius, "kind": str(c.kind)} for c in cells]
    if as_json:
        print_json({"path": str(out), "seed": seed, "cells": truth})
    else:
        say(f"Wrote the phantom {shown(out)} (seed {seed}, {len(truth)} cells). It is a drawing, not a patient.")
