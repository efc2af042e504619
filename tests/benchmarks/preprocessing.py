"""The focus score and the whole of Enhance against a plain SciPy score of the same formula, on one core.

    make bench-preprocessing
    make soak-preprocessing

All alternate within one run; only ratios count. Crops are phantoms, so that it runs anywhere.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from services.common.memory import keep_freed_memory
from services.common.phantom import CellKind, single_cell
from services.preprocessing.focus import focus_score
from services.preprocessing.registration import register
from services.preprocessing.unsharpening import RADII_SIDE, FocusParameters, sharpen_adaptively, unsharp_mask
from tests.plain_unsharpening import plain_focus_score

Bytes = NDArray[np.uint8]
SIDE = 257
RELATIVE_CROP_RADIUS = 0.2
ROUNDS = 40
NEVER, ALWAYS = 1.0, 50.0
"""Thresholds that no cell reaches, and that every cell reaches."""


def main() -> None:
    """Print a table, or soak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--soak", type=int, default=0, metavar="CROPS", help="enhance this many crops and print the memory instead")
    crops = parser.parse_args().soak
    cv2.setNumThreads(1)
    keep_freed_memory()
    if crops:
        print(soak(crops))
    else:
        compare()


def compare() -> None:
    """Print the ratios."""
    blurred = np.asarray(cv2.GaussianBlur(_crop(4), (0, 0), 0.6), np.uint8)
    registered = register(blurred, (SIDE - 1) / 2, (SIDE - 1) / 2, RELATIVE_CROP_RADIUS * SIDE, SIDE).pixels
    by_radius = {radius: focus_score(unsharp_mask(registered, radius * SIDE / RADII_SIDE)) for radius in (1, 3, 5)}
    cases: dict[str, Callable[[], object]] = {
        "score, SciPy": lambda: plain_focus_score(registered),
        "score": lambda: focus_score(registered),
        "Enhance, sharp enough": lambda: enhance(blurred, ALWAYS),
        **{f"Enhance, radius {r} chosen": partial(enhance, blurred, t) for r, t in by_radius.items()},
        "Enhance, all nine radii tried": lambda: enhance(blurred, NEVER),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in track(range(ROUNDS), "rounds"):
        for name, work in cases.items():
            began = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - began)
    plain = times["score, SciPy"]
    print(f"{SIDE} x {SIDE} px, one core, {ROUNDS} rounds, medians\n| | ms | of the SciPy score |\n|---|---|---|")
    for name, measured in times.items():
        ratio = statistics.median(m / p for m, p in zip(measured, plain, strict=True))
        print(f"| {name} | {1e3 * statistics.median(measured):.2f} | {ratio:.2f} |")


def soak(crops: int, side: int = SIDE) -> str:
    """Enhance many crops, every kind of outcome among them; the peak of memory after a tenth of them and at the end, in MiB."""
    images = [_crop(seed, side) for seed in range(8)]
    images += [np.asarray(cv2.GaussianBlur(image, (0, 0), 2.0), np.uint8) for image in images]
    after_tenth = 0
    for i in track(range(crops), "enhancing"):
        enhance(images[i % len(images)], (NEVER, 7.0, ALWAYS)[i % 3])
        if i == crops // 10:
            after_tenth = _peak()
    return f"{crops} crops: peak memory {after_tenth} MiB after a tenth of them, {_peak()} MiB at the end"


def enhance(crop: Bytes, threshold: float) -> object:
    """The work of the service on one crop."""
    side = crop.shape[0]
    cell = register(crop, (side - 1) / 2, (side - 1) / 2, RELATIVE_CROP_RADIUS * side, side)
    return sharpen_adaptively(cell.pixels, 1.0, FocusParameters((1.0,), (threshold,), (ALWAYS,)))


def _crop(seed: int, side: int = SIDE) -> Bytes:
    return single_cell(seed, CellKind.BLAST, side=side, cell_radius=RELATIVE_CROP_RADIUS * side).image


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
