"""The reference library: known cells with their embeddings, opened read-only and checked for sense."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.common.errors import BrokenReleaseError


@dataclass(frozen=True)
class ReferenceLibrary:
    """Known cells of one release; arrays share their first axis, N references.

    Attributes:
        embeddings: float32 (N, D), unit length.
        patches: int8 (N, h, w, D), patch embeddings in units of ``patch_scales``; divided by the embedding's length,
            so that their mean is the unit embedding.
        patch_scales: float32 (N,).
        is_blast: bool (N,).
        reference_ids: (N,) ``source/class/file``.
        cell_classes: (N,).
        patients: (N,) pseudonyms of the source.
        image_sha256: (N,) of the reference's image file.
        centers: float32 (N, 2), x and y in px of that file.
        radii: float32 (N,), px of that file.
        projection_mean: float32 (D,).
        projection: float32 (2, D), rows scaled so that the references lie in -1..1.
    """

    embeddings: NDArray[np.float32]
    patches: NDArray[np.int8]
    patch_scales: NDArray[np.float32]
    is_blast: NDArray[np.bool_]
    reference_ids: NDArray[np.str_]
    cell_classes: NDArray[np.str_]
    patients: NDArray[np.str_]
    image_sha256: NDArray[np.str_]
    centers: NDArray[np.float32]
    radii: NDArray[np.float32]
    projection_mean: NDArray[np.float32]
    projection: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def dimension(self) -> int:
        """D, the dimension of the embeddings."""
        return int(self.embeddings.shape[1])

    def patch_embeddings(self, index: int) -> NDArray[np.float32]:
        """Patch embeddings of one reference, float32 (h, w, D), whose mean is about its unit embedding."""
        return np.asarray(self.patches[index] * self.patch_scales[index], np.float32)


def open_library(path: Path) -> ReferenceLibrary:
    """Open a library.

    Raises:
        BrokenReleaseError: the file is not a reference library.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            library = ReferenceLibrary(**{name: arrays[name] for name in arrays.files})
    except (OSError, EOFError, ValueError, TypeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise BrokenReleaseError("LIBRARY_BROKEN", f"{path} is not a reference library: {error}") from error
    if not _shapes_fit(library):
        raise BrokenReleaseError("LIBRARY_BROKEN", f"{path}: the arrays do not fit each other.")
    lengths = np.linalg.norm(library.embeddings, axis=1)
    if len(library) == 0 or not np.allclose(lengths, 1.0, atol=1e-3):
        raise BrokenReleaseError("LIBRARY_BROKEN", f"{path}: embeddings must have unit length and not be empty.")
    return library


def _shapes_fit(library: ReferenceLibrary) -> bool:
    if library.embeddings.ndim != 2 or library.patches.ndim != 4:
        return False
    count, dimension = library.embeddings.shape
    texts = (library.reference_ids, library.cell_classes, library.patients, library.image_sha256)
    per_reference = (library.patch_scales, library.is_blast, library.radii, *texts)
    return (
        all(array.shape == (count,) for array in per_reference)
        and (library.patches.shape[0], library.patches.shape[3]) == (count, dimension)
        and library.centers.shape == (count, 2)
        and library.projection_mean.shape == (dimension,)
        and library.projection.shape == (2, dimension)
    )
