"""From image files to registered, sharpened cells: with the very functions that serve.

The result is kept as one ``.npz`` per data set, so that a network can be trained again without the images.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from services.common.image_codec import decode_image
from services.patching.cells import central_cell, locate_cells
from services.preprocessing.registration import register
from services.preprocessing.unsharpening import FocusParameters, sharpen_adaptively
from training.datasets.single_cells import CellImage

Bytes = NDArray[np.uint8]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class PreparedCells:
    """Registered cells, one row per image in which a cell was found.

    Attributes:
        index: row number of each cell in the list of images that was prepared, int64 (N,).
        registered: uint8 (N, side, side, 3).
        upscale_factor: float32 (N,).
        center_x, center_y, radius: float32 (N,), px of the image.
        sharpened: uint8 (N, side, side, 3).
        focus_before, focus_after: float32 (N,).
        unsharp_radius: int32 (N,).
        accepted: bool (N,).
    """

    index: NDArray[np.int64]
    registered: Bytes
    upscale_factor: NDArray[np.float32]
    center_x: NDArray[np.float32]
    center_y: NDArray[np.float32]
    radius: NDArray[np.float32]
    sharpened: Bytes
    focus_before: NDArray[np.float32]
    focus_after: NDArray[np.float32]
    unsharp_radius: NDArray[np.int32]
    accepted: NDArray[np.bool_]

    def save(self, path: Path) -> None:
        """Write all arrays to one ``.npz``; the file appears whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".part")
        with temporary.open("wb") as file:
            np.savez(file, **vars(self))
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> PreparedCells:
        """Read what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{name: arrays[name] for name in arrays.files})


@dataclass(frozen=True)
class _Registration:
    pixels: Bytes
    upscale_factor: float
    center_x: float
    center_y: float
    radius: float


def register_images(images: Sequence[CellImage], side: int) -> list[_Registration | None]:
    """Locate the central cell of every image and register it; None where none is found."""
    return in_processes(_register_one, [(str(c.path), side) for c in images], "registering")


def prepare(images: Sequence[CellImage], side: int, parameters: FocusParameters) -> PreparedCells:
    """Locate, register and sharpen every image, as the services do."""
    registrations = register_images(images, side)
    found = [(i, r) for i, r in enumerate(registrations) if r is not None]
    sharpened = in_processes(_sharpen_one, [(r.pixels, r.upscale_factor, parameters) for _, r in found], "sharpening")
    return PreparedCells(
        index=np.array([i for i, _ in found], np.int64),
        registered=np.stack([r.pixels for _, r in found]),
        upscale_factor=np.array([r.upscale_factor for _, r in found], np.float32),
        center_x=np.array([r.center_x for _, r in found], np.float32),
        center_y=np.array([r.center_y for _, r in found], np.float32),
        radius=np.array([r.radius for _, r in found], np.float32),
        sharpened=np.stack([s[0] for s in sharpened]),
        focus_before=np.array([s[1] for s in sharpened], np.float32),
        focus_after=np.array([s[2] for s in sharpened], np.float32),
        unsharp_radius=np.array([s[3] for s in sharpened], np.int32),
        accepted=np.array([s[4] for s in sharpened], np.bool_),
    )


def in_processes(function: Callable[[Item], Result], items: Iterable[Item], what: str) -> list[Result]:
    """Map in worker processes with a progress bar; order kept."""
    jobs = list(items)
    with ProcessPoolExecutor(os.cpu_count(), initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        return list(track(pool.map(function, jobs, chunksize=16), description=what, total=len(jobs)))


def _register_one(job: tuple[str, int]) -> _Registration | None:
    path, side = job
    rgb = decode_image(Path(path).read_bytes()).pixels
    cell = central_cell(locate_cells(rgb).cells, *rgb.shape[:2])
    if cell is None:
        return None
    registered = register(rgb, cell.center_x, cell.center_y, cell.radius, side)
    return _Registration(registered.pixels, registered.upscale_factor, cell.center_x, cell.center_y, cell.radius)


def _sharpen_one(job: tuple[Bytes, float, FocusParameters]) -> tuple[Bytes, float, float, int, bool]:
    result = sharpen_adaptively(*job)
    return result.pixels, result.focus_before, result.focus_after, result.unsharp_radius, result.accepted
