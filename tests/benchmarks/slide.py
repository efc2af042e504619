"""A drawn slide through DiagnoseSlide, five processes and a Triton; then its quarters alone.

    make bench-slide

Prints the most memory that patching ever held, the longest wait for a sign of life, cells found against the truth, and, at a fixed
scale, how the cells of the quarters compare with those of the whole, farther than a crop from the cuts. Exits 1 where a promise does not hold. The
slide is drawn anew into a folder that is removed at the end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2, patching_pb2_grpc
from dl4all_client import DiagnosisClient
from services.common.phantom.slide import PhantomSlide, SlideOptions
from services.patching.slides.opening import open_slide
from tests.running import Running, Stack, own_copy

MICRONS = 0.156
"""The scale of the drawing: its red cells have a radius of 24 px."""
CROP_RADII = 4.0
SAME_PX = 3.0
TILE = 512
CONSOLE = Console(stderr=True)
Points = NDArray[np.float64]


@dataclass
class Outcome:
    """Results of one slide.

    Attributes:
        centres: float64 (N, 2), x and y of its cells.
        radii: float64 (N,).
        seconds: from the first message to the last.
        longest_wait: between two messages.
    """

    centres: list[tuple[float, float]] = field(default_factory=list)
    radii: list[float] = field(default_factory=list)
    seconds: float = 0.0
    longest_wait: float = 0.0

    @property
    def points(self) -> Points:
        """Centres as an array."""
        return np.array(self.centres, np.float64).reshape(-1, 2)


def diagnose(gateway: Running, path: Path) -> Outcome:
    """Upload the slide and follow it to its end."""
    outcome, started = Outcome(), time.monotonic()
    heard = started
    with DiagnosisClient(gateway.address) as client, Progress(console=CONSOLE, transient=True) as progress:
        bar = progress.add_task("diagnosing", total=None)
        for part in client.diagnose_slide(path, timeout=3600):
            if part.WhichOneof("part") == "cells":
                outcome.centres += [(c.cell.center_x, c.cell.center_y) for c in part.cells.cells]
                outcome.radii += [c.cell.radius for c in part.cells.cells]
                continue
            outcome.longest_wait, heard = max(outcome.longest_wait, time.monotonic() - heard), time.monotonic()
            if part.WhichOneof("part") == "progress":
                progress.update(bar, completed=part.progress.windows_done, total=part.progress.windows or None)
    outcome.seconds = time.monotonic() - started
    return outcome


def locate(patching: Running, path: str) -> Points:
    """Cells of a slide below the root, at the fixed scale."""
    start = patching_pb2.LocateSlideStart(source=imaging_pb2.SlideSource(path=path), microns_per_pixel=MICRONS)
    centres: list[tuple[float, float]] = []
    with patching.channel() as channel:
        for part in patching_pb2_grpc.PatchingServiceStub(channel).LocateSlide(iter([patching_pb2.LocateSlideRequest(start=start)]), timeout=3600):
            centres += [(c.center_x, c.center_y) for c in part.cells.cells]
    return np.array(centres, np.float64).reshape(-1, 2)


def write_quarter(path: Path, source: Path, x: int, y: int, side: int) -> None:
    """Cut a quarter out of a slide, tile by tile, without loss."""

    def tiles() -> Iterator[NDArray[np.uint8]]:
        slide = open_slide(source)
        for top in range(y, y + side, TILE):
            for left in range(x, x + side, TILE):
                yield slide.read(left, top, min(TILE, x + side - left), min(TILE, y + side - top))
        slide.close()

    shape = (side, side, 3)
    tifffile.imwrite(path, tiles(), shape=shape, dtype=np.uint8, tile=(TILE, TILE), photometric="rgb", compression="lzw", bigtiff=side > 20000)


def nearest(of: Points, to: Points) -> Points:
    """Distance of every point to the nearest of the others, in strips so that memory stays small."""
    order = np.argsort(to[:, 0])
    sorted_to, distances = to[order], np.full(len(of), np.inf)
    for i, point in enumerate(of):
        low, high = np.searchsorted(sorted_to[:, 0], [point[0] - 200, point[0] + 200])
        if high > low:
            distances[i] = np.linalg.norm(sorted_to[low:high] - point, axis=1).min()
    return distances


def compare_quarters(patching: Running, root: Path, side: int, crop: float) -> tuple[int, int, int]:
    """Cells of the whole and of the quarters beyond a crop from the cuts, and how many of either have no partner in the other."""
    half = side // 2
    whole = locate(patching, "slide.tif")
    parts = []
    for x in (0, half):
        for y in (0, half):
            write_quarter(root / "quarter.tif", root / "slide.tif", x, y, half)
            parts.append(locate(patching, "quarter.tif") + np.array([x, y]))
    away = [p[(np.abs(p - half) > crop).all(axis=1)] for p in (whole, np.concatenate(parts))]
    lonely = int((nearest(away[0], away[1]) > SAME_PX).sum() + (nearest(away[1], away[0]) > SAME_PX).sum())
    return len(away[0]), len(away[1]), lonely


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=30_000, help="of the slide in px (default: %(default)s)")
    parser.add_argument("--without-quarters", action="store_true", help="leave the quarters out")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dl4all-bench-slide-") as folder:
        root = Path(folder)
        CONSOLE.print("drawing ...")
        phantom = PhantomSlide(1, SlideOptions(given.side, given.side, microns_per_pixel=MICRONS))
        phantom.write(root / "slide.tif")
        stack = Stack.make({"DL4ALL_WORKERS": "2"})
        patching = own_copy(stack["patching"], DL4ALL_PATCHING_SLIDES_ROOT=str(root), DL4ALL_PATCHING_SLIDE_UPLOADS=str(root / "uploads"))
        gateway = own_copy(stack["gateway"], DL4ALL_GATEWAY_PATCHING_ADDRESS=f"dns:///{patching.address}")
        try:
            stack.start()
            for running in (patching, gateway):
                running.start().wait_serving()
            sound = _report(given.side, phantom, diagnose(gateway, root / "slide.tif"), patching, (root / "slide.tif").stat().st_size)
            if not given.without_quarters:
                crop = CROP_RADII * max(c.radius for c in phantom.cells())
                whole, quarters, lonely = compare_quarters(patching, root, given.side, crop)
                print(
                    f"quarters at a fixed scale: {whole} cells of the whole, {quarters} of the quarters, {lonely} without a partner within {SAME_PX} px"
                )
                sound &= lonely == 0
        finally:
            for running in (gateway, patching):
                running.end()
            stack.end()
    sys.exit(not sound)


def _report(side: int, phantom: PhantomSlide, outcome: Outcome, patching: Running, file_bytes: int) -> bool:
    truth = phantom.cells()
    positions = np.array([(c.center_x, c.center_y) for c in truth])
    radius = float(np.median([c.radius for c in truth]))
    found = outcome.points
    recall, precision = (nearest(positions, found) < radius).mean(), (nearest(found, positions) < radius).mean()
    peak = patching.peak_bytes() / 2**20
    print(f"slide {side} x {side} px, {file_bytes / 1e6:.0f} MB: {outcome.seconds:.0f} s, {len(found)} cells of {len(truth)}")
    print(f"recall {recall:.4f}, precision {precision:.4f}; one cell counted twice: {len(found) - len(np.unique(found.round(), axis=0))}")
    print(f"patching held at most {peak:.0f} MiB; longest wait for progress {outcome.longest_wait:.2f} s")
    return bool(peak < 1024 and outcome.longest_wait < 2.0)


if __name__ == "__main__":
    main()
