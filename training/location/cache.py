"""Samples of a source in one file, so that images are measured once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.files.array_file import read_arrays, write_arrays
from training.location.samples import Sample

VERSION: Final = 2
"""Of how samples are made; files of another version are made anew."""
_FLAT: Final = ("pixels", "owners", "nuclei", "unsure")
_OF_MARKS: Final = ("x", "y", "kinds", "is_known")


def write_samples(path: Path, samples: Sequence[Sample]) -> None:
    """Write the samples of one source, at least one."""
    arrays: dict[str, NDArray[Any]] = {name: np.concatenate([getattr(s, name).reshape(-1) for s in samples]) for name in _FLAT}
    arrays |= {name: np.concatenate([getattr(s, name) for s in samples]) for name in _OF_MARKS}
    arrays["shapes"] = np.array([s.owners.shape for s in samples], np.int64)
    arrays["marks"] = np.array([len(s.x) for s in samples], np.int64)
    arrays["folds"] = np.array([s.fold for s in samples], np.int64)
    arrays["facts"] = np.array([(s.platelets_are_marked, s.nuclei_are_known) for s in samples], bool)
    write_arrays(path, arrays, {"version": VERSION, "source": samples[0].source, "keys": [s.key for s in samples]})


def read_samples(path: Path) -> list[Sample] | None:
    """Read what ``write_samples`` wrote; None where the file is of another version.

    Raises:
        ArrayFileError: the file is damaged.
    """
    arrays, about = read_arrays(path)
    if about.get("version") != VERSION:
        return None
    areas = np.concatenate([[0], np.cumsum(arrays["shapes"].prod(axis=1))])
    marks = np.concatenate([[0], np.cumsum(arrays["marks"])])
    samples = []
    for i, key in enumerate(about["keys"]):
        shape = tuple(arrays["shapes"][i].tolist())
        px, own = slice(areas[i], areas[i + 1]), slice(marks[i], marks[i + 1])
        samples.append(
            Sample(
                key=key,
                source=about["source"],
                fold=int(arrays["folds"][i]),
                pixels=arrays["pixels"][3 * areas[i] : 3 * areas[i + 1]].reshape(*shape, 3),
                **{name: arrays[name][px].reshape(shape) for name in _FLAT[1:]},
                **{name: arrays[name][own] for name in _OF_MARKS},
                platelets_are_marked=bool(arrays["facts"][i, 0]),
                nuclei_are_known=bool(arrays["facts"][i, 1]),
            )
        )
    return samples
