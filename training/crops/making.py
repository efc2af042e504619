"""From image files to packs of crops: cells with the very functions that serve, tissue and the papers' inputs by cutting the middle out."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from services.common.cell_classes import NOTHING
from services.common.errors import DomainError
from services.common.image_codec import decode_image
from services.common.releases import sha256_of
from services.patching.cells import LocatedCell, central_cell, locate_cells
from services.patching.locating import locate, run
from services.preprocessing.legacy import register_legacy, sharpen_legacy, short_axis
from services.preprocessing.registration import RELATIVE_RADIUS, register
from services.preprocessing.unsharpening import FocusParameters, sharpen_adaptively
from training.crops.empty_positions import position_without_cell
from training.crops.locator_file import opened
from training.crops.packs import Pack, PackHeader
from training.datasets.contradictions import Said, refuse_contradictions
from training.datasets.dataset import Dataset, LabelledImage, label_matrix
from training.errors import DatasetError
from training.recipes.config import Input, InputKind

Bytes = NDArray[np.uint8]
Item = TypeVar("Item")
Result = TypeVar("Result")
MEASURES: Final = ("center_x", "center_y", "radius", "upscale_factor", "focus_before", "focus_after", "accepted")
"""Subject of crops without a cell, and their class."""
_SHOWN_FAILURES: Final = 5
_JOBS_PER_PROCESS: Final = 16


@dataclass(frozen=True)
class _Crop:
    pixels: Bytes
    sha256: str
    picture: str
    """Digest of the decoded image, the same for the same pixels in another file."""
    measures: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Failure:
    path: str
    reason: str


def prepare(dataset: Dataset, wanted: Input, focus: FocusParameters | None = None, locator: Path | None = None) -> Pack:
    """Make the crops of a data set, with a progress bar, in as many processes as there are cores.

    Args:
        dataset: what was read.
        wanted: how crops are made, and of what.
        focus: parameters of the sharpening; needed where crops are sharpened. For ``legacy_sharpened`` the first threshold is the only one.
        locator: ONNX file of the locator that finds the cells; None to find them by the stain.

    Returns:
        The pack; images in which no cell was found, whose cell the legacy rule drops, or that have no position without a cell where that is wanted,
        are named in its header and left out. Crops without a cell are of the one class ``nothing``.

    Raises:
        DatasetError: an image cannot be read, no crop could be made of any, or one picture stands as blast and as normal or for two patients.
    """
    if wanted.subject == NOTHING:
        images = tuple(replace(image, classes=(NOTHING,), is_blast=None) for image in dataset.images)
        dataset = replace(dataset, classes=(NOTHING,), multi_label=False, images=images)
    jobs = [(str(image.path), wanted, focus, locator) for image in dataset.images]
    made = in_processes(_make_crop, jobs, f"{dataset.name}: crops")
    failures = [m for m in made if isinstance(m, _Failure)]
    if failures:
        listed = "\n".join(f"  {f.path}: {f.reason}" for f in failures[:_SHOWN_FAILURES])
        raise DatasetError(f"{dataset.name}: {len(failures)} images cannot be used; put them right or take them out of the labels.\n{listed}")
    found = [(image, crop) for image, crop in zip(dataset.images, made, strict=True) if isinstance(crop, _Crop)]
    if not found:
        raise DatasetError(f"{dataset.name}: no cell was found in any image; `dl4all cells IMAGE` shows what is located.")
    said = [Said(str(image.path), image.is_blast, image.group) for image, _ in found]
    refuse_contradictions(said, [crop.picture for _, crop in found], dataset.grouped_by, dataset.name)
    return _pack(dataset, wanted, focus, found, tuple(i.key for i, crop in zip(dataset.images, made, strict=True) if crop is None))


def _pack(
    dataset: Dataset, wanted: Input, focus: FocusParameters | None, found: Sequence[tuple[LabelledImage, _Crop]], left_out: tuple[str, ...]
) -> Pack:
    images = [image for image, _ in found]
    crops = [crop for _, crop in found]
    header = PackHeader(
        dataset=dataset.name,
        kind=dataset.kind,
        classes=dataset.classes,
        multi_label=dataset.multi_label,
        grouped_by=dataset.grouped_by,
        side=wanted.side,
        input=wanted.kind.value,
        center_crop=wanted.center_crop,
        focus=asdict(focus) if focus is not None and wanted.kind.sharpens else None,
        left_out=left_out,
        notes=dataset.notes,
        subject=wanted.subject,
        threshold=wanted.threshold,
    )
    table = np.array([crop.measures for crop in crops], np.float32).reshape(len(crops), -1)
    return Pack(
        header=header,
        pixels=np.stack([crop.pixels for crop in crops]),
        labels=label_matrix(images, dataset.classes),
        is_blast=np.array([-1 if i.is_blast is None else i.is_blast for i in images], np.int8),
        keys=np.array([i.key for i in images]),
        groups=np.array([i.group for i in images]),
        subsets=np.array([i.subset.value for i in images]),
        folds=np.array([i.fold for i in images]),
        sha256=np.array([crop.sha256 for crop in crops]),
        measures={name: table[:, i] for i, name in enumerate(MEASURES)} if table.shape[1] else {},
    )


def in_processes(function: Callable[[Item], Result], items: Iterable[Item], what: str) -> list[Result]:
    """Map in worker processes with a progress bar; order kept."""
    jobs = list(items)
    processes = max(1, min(os.cpu_count() or 1, len(jobs) // _JOBS_PER_PROCESS))
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads (torch, gRPC) can wait for ever
    with ProcessPoolExecutor(processes, context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        return list(track(pool.map(function, jobs, chunksize=16), description=what, total=len(jobs)))


def center_crop(rgb: Bytes, crop: int, side: int) -> Bytes:
    """The middle of an image, resized with bilinear interpolation and antialiasing, as torchvision does it on PIL images.

    Args:
        rgb: uint8 (H, W, 3).
        crop: side of the middle in px, black where the image is smaller; 0 for the whole image, whatever its shape.
        side: of the result in px.
    """
    image = Image.fromarray(rgb)
    if crop:
        left, top = round((image.width - crop) / 2), round((image.height - crop) / 2)
        image = image.crop((left, top, left + crop, top + crop))
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR), np.uint8)


def _make_crop(job: tuple[str, Input, FocusParameters | None, Path | None]) -> _Crop | _Failure | None:
    path, wanted, focus, locator = job
    try:
        rgb = decode_image(Path(path).read_bytes()).pixels
    except (DomainError, OSError) as error:
        return _Failure(path, str(error))
    digests = sha256_of(Path(path)), hashlib.sha256(repr(rgb.shape).encode() + rgb.tobytes()).hexdigest()
    if wanted.kind is InputKind.CENTER_CROP:
        return _Crop(center_crop(rgb, wanted.center_crop, wanted.side), *digests)
    cells = locate_cells(rgb).cells if locator is None else run(locate(rgb), opened(locator)).cells
    cell = central_cell(cells, *rgb.shape[:2])
    if cell is None:
        return None
    if wanted.subject == NOTHING:
        position = position_without_cell(cells, rgb.shape, cell.radius, np.random.default_rng(int(digests[0][:16], 16)))
        return None if position is None else _registered_crop(rgb, position, wanted, focus, digests)
    if wanted.kind is InputKind.LEGACY_SHARPENED:
        assert focus is not None
        return _legacy_crop(rgb, cell, wanted.side, focus.thresholds[0], digests)
    return _registered_crop(rgb, (cell.center_x, cell.center_y, cell.radius), wanted, focus, digests)


def _registered_crop(rgb: Bytes, center: tuple[float, float, float], wanted: Input, focus: FocusParameters | None, digests: tuple[str, str]) -> _Crop:
    registered = register(rgb, *center, wanted.side)
    position = (*center, registered.upscale_factor)
    if wanted.kind is InputKind.REGISTERED:
        return _Crop(registered.pixels, *digests, (*position, np.nan, np.nan, 1.0))
    assert focus is not None
    if wanted.kind is InputKind.LEGACY_SHARPENED:
        legacy = sharpen_legacy(registered.pixels, focus.thresholds[0])
        return _Crop(legacy.pixels, *digests, (*position, legacy.focus_before, legacy.focus_after, 1.0))
    result = sharpen_adaptively(registered.pixels, registered.upscale_factor, focus)
    return _Crop(result.pixels, *digests, (*position, result.focus_before, result.focus_after, float(result.accepted)))


def _legacy_crop(rgb: Bytes, cell: LocatedCell, side: int, threshold: float, digests: tuple[str, str]) -> _Crop | None:
    assert cell.mask is not None
    registered = register_legacy(rgb, short_axis(cell.mask), side)
    if registered is None:
        return None
    result = sharpen_legacy(registered, threshold)
    position = (cell.center_x, cell.center_y, cell.radius, RELATIVE_RADIUS * side / cell.radius)
    return _Crop(result.pixels, *digests, (*position, result.focus_before, result.focus_after, 1.0))
