"""From single cells to a pack of patches of composed fields, labelled by the published rule."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.common.cell_classes import PATCH_LABELS
from services.patching.grid import SIDE as PATCH_SIDE
from services.patching.patch_input import patch_input
from training.crops.making import in_processes
from training.crops.packs import Pack, PackHeader
from training.datasets.composed_fields import COMPOSED_FIELDS, ComposedField, by_patient, compose_patient
from training.datasets.dataset import Dataset, GroupKind, ImageKind, LabelledImage, Subset
from training.errors import DatasetError
from training.recipes.config import InputKind

NOTES: Final = (
    "composed of single cells, background and cells of a field from one patient; red cells at the cuts are not whole",
    "the blasts are myeloid",
)


@dataclass(frozen=True)
class Composition:
    """How many fields are made of each patient, and how large.

    Attributes:
        training, judged: fields per training patient, and per calibration or test patient.
        training_scales, judged_scales: smallest and largest scale of the patch, 1 is the nominal one.
        seed: decides everything.
    """

    training: int = 12
    judged: int = 8
    training_scales: tuple[float, float] = (0.75, 1.35)
    judged_scales: tuple[float, float] = (0.9, 1.1)
    seed: int = 0


@dataclass(frozen=True)
class _Job:
    images: tuple[LabelledImage, ...]
    count: int
    scales: tuple[float, float]
    seed: int
    side: int


@dataclass(frozen=True)
class _Patches:
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int8]
    keys: tuple[str, ...]
    patient: str
    subset: Subset


def compose_fields(dataset: Dataset, composition: Composition, subset: Subset) -> list[ComposedField]:
    """The very fields whose patches a pack of this composition holds, whole, in order of patients."""
    jobs = _jobs(dataset, composition, PATCH_SIDE, subset)
    return [f for fields in in_processes(_fields, jobs, f"fields of {subset.value} patients") for f in fields]


def compose_pack(dataset: Dataset, composition: Composition, side: int) -> Pack:
    """Compose fields of all patients and cut them into patches.

    Args:
        dataset: single cells with patients and subsets.
        composition: how many and how large.
        side: side of the stored patches in px.

    Raises:
        DatasetError: the data set is none of single cells by patient, an image cannot be read, or no field could be made.
    """
    if dataset.kind is not ImageKind.CELL or dataset.grouped_by is not GroupKind.PATIENT:
        raise DatasetError(f"{dataset.name}: fields are composed of single cells whose patients are known.")
    subsets = (Subset.TRAIN, Subset.CALIBRATION, Subset.TEST)
    jobs = [job for subset in subsets for job in _jobs(dataset, composition, side, subset)]
    made = [p for p in in_processes(_patches, jobs, "composing fields") if p is not None]
    if not made:
        raise DatasetError(f"{dataset.name}: no patient has enough cells and cell-free background for a field.")
    counts = [len(p.keys) for p in made]
    pixels = np.concatenate([p.pixels for p in made])
    without = sorted({job.images[0].group for job in jobs} - {p.patient for p in made})
    return Pack(
        header=PackHeader(
            dataset=COMPOSED_FIELDS,
            kind=ImageKind.PATCH,
            classes=PATCH_LABELS,
            multi_label=True,
            grouped_by=GroupKind.PATIENT,
            side=side,
            input=InputKind.CENTER_CROP.value,
            center_crop=PATCH_SIDE,
            left_out=tuple(without),
            notes=(f"made of {dataset.name}: {composition}", *NOTES),
        ),
        pixels=pixels,
        labels=np.concatenate([p.labels for p in made]),
        is_blast=np.full(len(pixels), -1, np.int8),
        keys=np.array([key for p in made for key in p.keys]),
        groups=np.repeat([p.patient for p in made], counts),
        subsets=np.repeat([p.subset.value for p in made], counts),
        folds=np.full(len(pixels), ""),
        sha256=np.array([hashlib.sha256(patch.tobytes()).hexdigest() for patch in pixels]),
    )


def _jobs(dataset: Dataset, composition: Composition, side: int, subset: Subset) -> list[_Job]:
    trains = subset is Subset.TRAIN
    count, scales = (composition.training, composition.training_scales) if trains else (composition.judged, composition.judged_scales)
    return [_Job(images, count, scales, composition.seed, side) for images in by_patient(dataset, subset).values()]


def _fields(job: _Job) -> Sequence[ComposedField]:
    return compose_patient(job.images, job.count, job.scales, job.seed)


def _patches(job: _Job) -> _Patches | None:
    rows = [(field, patch) for field in _fields(job) for patch in field.patches]
    if not rows:
        return None
    return _Patches(
        pixels=np.stack([patch_input(field.pixels, patch, job.side) for field, patch in rows]),
        labels=np.array([field.labels(patch) for field, patch in rows], np.int8),
        keys=tuple(f"{field.key}_patch_{patch.number}" for field, patch in rows),
        patient=rows[0][0].patient,
        subset=rows[0][0].subset,
    )
