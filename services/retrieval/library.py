"""The reference library: known cells with their embeddings, opened read-only, without copying, and checked."""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from services.common.errors import BrokenReleaseError
from services.retrieval.archive import map_arrays

_FIELDS: Final = {"patches": "place_embeddings", "patch_scales": "place_scales"}
"""Arrays that have another name in the file, as in the shipped libraries."""


@dataclass(frozen=True)
class ReferenceLibrary:
    """Known cells of one release; arrays share their first axis, N references.

    Attributes:
        embeddings: float32 (N, D), unit length.
        exemplars: int32 (N,), row of ``place_embeddings`` that belongs to a reference; -1 where it is no exemplar and has no map of its own.
        place_embeddings: int8 (E, h, w, D), embeddings by place of E exemplars, in units of ``place_scales``; divided by the embedding's length,
            so that their mean is the unit embedding.
        place_scales: float32 (E,).
        is_blast: bool (N,).
        reference_ids: (N,) ``source/class/file``.
        cell_classes: (N,).
        patients: (N,) pseudonyms of the source.
        image_sha256: (N,) of the reference's image file.
        centers: float32 (N, 2), x and y in px of that file.
        radii: float32 (N,), px of that file.
        projection_mean: float32 (D,).
        projection: float32 (2, D), rows scaled so that the references lie in -1..1.
        calibration_embeddings: float32 (M, D), not normalised, of the calibration cells that the release was fitted on; no references. With the
            four arrays below, a grown library is recalibrated without their images. M is 0 where they were not kept.
        calibration_logits: float32 (M, K).
        calibration_is_blast: bool (M,).
        calibration_groups: (M,) a number per patient, which has no meaning without the data set.
        calibration_accepted: bool (M,), whether preprocessing accepted the cell.
        held_out_sha256: uint8 (H, 32), SHA-256 of the images of calibration and test cells, which may never become references.
        addition_ids: int64 (N,), the addition that a reference came from; -1 for the references that the release was built with.
        embedder: (1,), model and version that made the embeddings, name/version; empty where the library does not say.
    """

    embeddings: NDArray[np.float32]
    exemplars: NDArray[np.int32]
    place_embeddings: NDArray[np.int8]
    place_scales: NDArray[np.float32]
    is_blast: NDArray[np.bool_]
    reference_ids: NDArray[np.str_]
    cell_classes: NDArray[np.str_]
    patients: NDArray[np.str_]
    image_sha256: NDArray[np.str_]
    centers: NDArray[np.float32]
    radii: NDArray[np.float32]
    projection_mean: NDArray[np.float32]
    projection: NDArray[np.float32]
    calibration_embeddings: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    calibration_logits: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    calibration_is_blast: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    calibration_groups: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, np.str_))
    calibration_accepted: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    held_out_sha256: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 32), np.uint8))
    addition_ids: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    embedder: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, np.str_))

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def dimension(self) -> int:
        """D, the dimension of the embeddings."""
        return int(self.embeddings.shape[1])

    def places_of(self, index: int) -> NDArray[np.float32] | None:
        """Place embeddings of one reference, float32 (h, w, D), whose mean is about its unit embedding; None where it is no exemplar."""
        row = int(self.exemplars[index])
        return None if row < 0 else np.asarray(self.place_embeddings[row] * self.place_scales[row], np.float32)


def arrays_of(library: ReferenceLibrary) -> dict[str, NDArray[Any]]:
    """The arrays of a library by their names in its file."""
    names = {field: name for name, field in _FIELDS.items()}
    return {names.get(field, field): array for field, array in vars(library).items()}


def open_library(path: Path, embedder: str = "") -> ReferenceLibrary:
    """Open a library; uncompressed arrays stay on disk until they are used. Without ``exemplars`` every reference is an exemplar.

    Args:
        path: the file.
        embedder: name/version of the model whose embeddings it must hold; empty to take any.

    Raises:
        BrokenReleaseError: the file is not a reference library, or says that another model made its embeddings.
    """
    try:
        arrays = map_arrays(path)
        arrays.setdefault("exemplars", np.arange(len(arrays["embeddings"]), dtype=np.int32))
        arrays.setdefault("addition_ids", np.full(len(arrays["embeddings"]), -1, np.int64))
        library = ReferenceLibrary(**{_FIELDS.get(name, name): array for name, array in arrays.items()})
    except (OSError, EOFError, LookupError, ValueError, TypeError, NotImplementedError, struct.error, zipfile.BadZipFile, zlib.error) as error:
        raise BrokenReleaseError("LIBRARY_BROKEN", f"{path} is not a reference library: {error}") from error
    if not _shapes_fit(library):
        raise BrokenReleaseError("LIBRARY_BROKEN", f"{path}: the arrays do not fit each other.")
    lengths = np.linalg.norm(library.embeddings, axis=1)
    if len(library) == 0 or not np.allclose(lengths, 1.0, atol=1e-3):
        raise BrokenReleaseError("LIBRARY_BROKEN", f"{path}: embeddings must have unit length and not be empty.")
    made_by = str(library.embedder[0]) if len(library.embedder) else ""
    if embedder and made_by and made_by != embedder:
        raise BrokenReleaseError("LIBRARY_OF_ANOTHER_EMBEDDER", f"{path}: {made_by} made its embeddings, not {embedder}.")
    return library


def _shapes_fit(library: ReferenceLibrary) -> bool:
    if library.embeddings.ndim != 2 or library.place_embeddings.ndim != 4:
        return False
    count, dimension = library.embeddings.shape
    texts = (library.reference_ids, library.cell_classes, library.patients, library.image_sha256)
    per_reference = (library.exemplars, library.addition_ids, library.is_blast, library.radii, *texts)
    exemplars = len(library.place_embeddings)
    cells = len(library.calibration_embeddings)
    of_calibration = (library.calibration_is_blast, library.calibration_groups, library.calibration_accepted)
    return (
        all(array.shape == (count,) for array in per_reference)
        and library.place_embeddings.shape[3] == dimension
        and library.place_scales.shape == (exemplars,)
        and np.array_equal(np.unique(library.exemplars[library.exemplars >= 0]), np.arange(exemplars))
        and int(library.exemplars.min(initial=0)) >= -1
        and library.centers.shape == (count, 2)
        and library.projection_mean.shape == (dimension,)
        and library.projection.shape == (2, dimension)
        and all(array.shape == (cells,) for array in of_calibration)
        and len(library.calibration_logits) == cells
        and (cells == 0 or library.calibration_embeddings.shape[1] == dimension)
        and (cells == 0 or library.calibration_logits.shape[1] in (2, 3))
        and bool(np.isfinite(library.calibration_embeddings).all() and np.isfinite(library.calibration_logits).all())
        and library.held_out_sha256.shape[1:] == (32,)
        and len(library.embedder) <= 1
    )
