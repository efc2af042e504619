"""Locating the cells of a field against decoding its JPEG, on one core.

    make bench-location

All alternate within one run; only ratios count. Fields are phantoms, so that it runs anywhere.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from PIL import Image
from rich.progress import track

from services.common.image_codec import decode_image
from services.common.memory import keep_freed_memory
from services.common.phantom import PhantomOptions, smear_field
from services.patching.cells import locate_cells

FIELDS = {
    "2592 x 1944": PhantomOptions(width=2592, height=1944, cells=12, cell_radius=60.0),
    "1712 x 1368": PhantomOptions(width=1712, height=1368, cells=12, cell_radius=42.0),
    "640 x 480": PhantomOptions(width=640, height=480, cells=4, cell_radius=28.0),
}
QUALITY = 92
ROUNDS = 15


def main() -> None:
    """Print a table."""
    cv2.setNumThreads(1)
    keep_freed_memory()
    print(f"JPEG, quality {QUALITY}, one core, {ROUNDS} rounds, medians")
    print("| field | cells | decode, ms | decode, Pillow alone, ms | locate, ms | of the decoding | of Pillow alone |\n|---|---|---|---|---|---|---|")
    for name, options in FIELDS.items():
        print(f"| {name} | {_row(options)} |")


def _row(options: PhantomOptions) -> str:
    buffer = io.BytesIO()
    Image.fromarray(smear_field(1, options).image).save(buffer, "JPEG", quality=QUALITY)
    encoded = buffer.getvalue()
    pixels = decode_image(encoded).pixels
    cases: tuple[Callable[[], object], ...] = (partial(decode_image, encoded), partial(_decode_alone, encoded), partial(locate_cells, pixels))
    times: list[list[float]] = [[] for _ in cases]
    for _ in track(range(ROUNDS), f"{options.width} x {options.height}"):
        for work, measured in zip(cases, times, strict=True):
            began = time.perf_counter()
            work()
            measured.append(time.perf_counter() - began)
    decode, alone, locate = times
    ratios = [statistics.median(n / d for n, d in zip(locate, by, strict=True)) for by in (decode, alone)]
    medians = " | ".join(f"{1e3 * statistics.median(t):.0f}" for t in times)
    return f"{len(locate_cells(pixels).cells)} | {medians} | {ratios[0]:.1f} | {ratios[1]:.1f}"


def _decode_alone(encoded: bytes) -> object:
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"))


if __name__ == "__main__":
    main()
