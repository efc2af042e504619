"""Choose and write the reference library of a release from training patients."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from services.retrieval.library import ReferenceLibrary, arrays_of
from services.retrieval.neighbours import unit

Float = NDArray[np.float32]
PER_CLASS: Final = 300
_DATE: Final = (1980, 1, 1, 0, 0, 0)
MAX_EXEMPLARS: Final = 1000
"""References whose place embeddings are kept. The others are found and vote, but have no map of their own."""


@dataclass(frozen=True)
class Candidates:
    """Cells of training patients that may become references; arrays share their first axis."""

    embeddings: Float
    place_embeddings: Float
    is_blast: NDArray[np.bool_]
    reference_ids: NDArray[np.str_]
    cell_classes: NDArray[np.str_]
    patients: NDArray[np.str_]
    image_sha256: NDArray[np.str_]
    centers: Float
    radii: Float


def choose(candidates: Candidates, per_class: int = PER_CLASS, seed: int = 3) -> NDArray[np.int64]:
    """Choose references: as many blasts as normal cells, patients and normal cell classes in turn.

    Turns over (cell class, patient) keep a patient with many cells, or a frequent class, from filling the library.
    """
    generator = np.random.default_rng(seed)
    chosen: list[int] = []
    for label in (False, True):
        of_label = np.flatnonzero(candidates.is_blast == label)
        groups: dict[tuple[str, str], list[int]] = {}
        for index in generator.permutation(of_label):
            groups.setdefault((candidates.cell_classes[index], candidates.patients[index]), []).append(int(index))
        queues = [groups[k] for k in sorted(groups)]
        order = generator.permutation(len(queues))
        taken: list[int] = []
        while len(taken) < min(per_class, len(of_label)):
            for q in order:
                if queues[q] and len(taken) < per_class:
                    taken.append(queues[q].pop())
        chosen.extend(taken)
    return np.array(sorted(chosen), np.int64)


def build(candidates: Candidates, chosen: NDArray[np.int64], max_exemplars: int = MAX_EXEMPLARS) -> ReferenceLibrary:
    """Make the library: unit embeddings, quantised place embeddings of at most so many exemplars, principal axes of the references as latent map."""
    embeddings = unit(candidates.embeddings[chosen])
    exemplars = exemplar_rows(len(chosen), most=max_exemplars)
    places, scales = quantised(candidates.place_embeddings[chosen[exemplars >= 0]])
    mean, projection = principal_axes(embeddings)
    return ReferenceLibrary(
        embeddings=embeddings,
        exemplars=exemplars,
        place_embeddings=places,
        place_scales=scales,
        is_blast=candidates.is_blast[chosen],
        reference_ids=candidates.reference_ids[chosen],
        cell_classes=candidates.cell_classes[chosen],
        patients=candidates.patients[chosen],
        image_sha256=candidates.image_sha256[chosen],
        centers=candidates.centers[chosen],
        radii=candidates.radii[chosen],
        projection_mean=mean,
        projection=projection,
        addition_ids=np.full(len(chosen), -1, np.int64),
    )


def checksums(sha256: NDArray[np.str_]) -> NDArray[np.uint8]:
    """SHA-256 in hexadecimal digits, str (N,), as bytes, uint8 (N, 32), sorted and each once."""
    unique = sorted(set(sha256.tolist()))
    return np.frombuffer(bytes.fromhex("".join(unique)), np.uint8).reshape(-1, 32)


def exemplar_rows(count: int, taken: int = 0, most: int = MAX_EXEMPLARS) -> NDArray[np.int32]:
    """Rows of the place embeddings of ``count`` references, int32 (count,), evenly spread over them; -1 where there is no room for more exemplars.

    Args:
        count: references.
        taken: exemplars that there are already.
        most: exemplars of a library.
    """
    room = min(count, max(0, most - taken))
    rows = np.full(count, -1, np.int32)
    if room:
        rows[np.linspace(0, count - 1, room).round().astype(int)] = np.arange(taken, taken + room)
    return rows


def quantised(places: Float) -> tuple[NDArray[np.int8], Float]:
    """Place embeddings (E, h, w, D), each divided by the length of its mean, as int8 and scales float32 (E,)."""
    lengths = np.maximum(np.linalg.norm(places.mean(axis=(1, 2)), axis=1), 1e-12)
    scaled = places / lengths[:, None, None, None]
    scales = np.maximum(np.abs(scaled).max(axis=(1, 2, 3), initial=0.0) / 127.0, 1e-12).astype(np.float32)
    return np.rint(scaled / scales[:, None, None, None]).astype(np.int8), scales


def principal_axes(embeddings: Float) -> tuple[Float, Float]:
    """Mean (D,) and the two leading principal axes (2, D), scaled so that all embeddings fall in -1..1."""
    mean = embeddings.mean(axis=0)
    _, _, axes = np.linalg.svd(embeddings - mean, full_matrices=False)
    positions = (embeddings - mean) @ axes[:2].T
    return mean.astype(np.float32), (axes[:2] / np.abs(positions).max(axis=0)[:, None]).astype(np.float32)


def save(library: ReferenceLibrary, path: Path) -> None:
    """Write a library, its numbers uncompressed so that they are mapped, its words compressed; the file appears whole or not at all, and is the same
    for the same library.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays_of(library).items():
            values = np.ascontiguousarray(array)
            member = zipfile.ZipInfo(f"{name}.npy", _DATE)
            member.compress_type = zipfile.ZIP_DEFLATED if values.dtype.kind == "U" else zipfile.ZIP_STORED
            with archive.open(member, "w", force_zip64=True) as stream:
                npy.write_array(stream, values, allow_pickle=False)
    temporary.replace(path)
