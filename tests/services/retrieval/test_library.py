"""Tests of the reference library's file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.common.errors import BrokenReleaseError
from services.retrieval.library import arrays_of, open_library
from services.retrieval.neighbours import unit

Arrays = dict[str, Any]
"""Arrays by name: `numpy` takes them as keywords beside a flag."""
COUNT, DIMENSION = 6, 4


def _arrays() -> Arrays:
    generator = np.random.default_rng(0)
    texts = np.array([f"source/class/{i}.png" for i in range(COUNT)])
    return {
        "embeddings": unit(generator.normal(size=(COUNT, DIMENSION)).astype(np.float32)),
        "exemplars": np.arange(COUNT, dtype=np.int32),
        "patches": generator.integers(-127, 128, (COUNT, 2, 2, DIMENSION)).astype(np.int8),
        "patch_scales": np.linspace(0.01, 0.06, COUNT).astype(np.float32),
        "is_blast": np.arange(COUNT) % 2 == 0,
        "reference_ids": texts,
        "cell_classes": texts,
        "patients": texts,
        "image_sha256": texts,
        "centers": np.ones((COUNT, 2), np.float32),
        "radii": np.ones(COUNT, np.float32),
        "projection_mean": np.zeros(DIMENSION, np.float32),
        "projection": np.ones((2, DIMENSION), np.float32),
    }


def _write(path: Path, arrays: Arrays) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def _refused(path: Path) -> None:
    with pytest.raises(BrokenReleaseError) as caught:
        open_library(path)
    assert caught.value.reason == "LIBRARY_BROKEN"
    assert path.name in caught.value.message


def test_a_library_is_read_as_written(tmp_path: Path) -> None:
    arrays = _arrays()
    library = open_library(_write(tmp_path / "library.npz", arrays))
    assert len(library) == COUNT
    assert library.dimension == DIMENSION
    written = arrays_of(library)
    for name, array in arrays.items():
        np.testing.assert_array_equal(written[name], array)
    expected = arrays["patches"][3].astype(np.float32) * np.float32(0.04)
    places = library.places_of(3)
    assert places is not None
    np.testing.assert_allclose(places, expected, rtol=1e-6)
    assert places.dtype == np.float32


def test_missing_file(tmp_path: Path) -> None:
    _refused(tmp_path / "library.npz")


@pytest.mark.parametrize("content", [b"", b"not a library", b"PK\x03\x04 but nothing behind it", b"\x93NUMPY\x01\x00"])
def test_files_that_are_no_libraries(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "library.npz"
    path.write_bytes(content)
    _refused(path)


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.99])
def test_truncated_files(tmp_path: Path, kept: float) -> None:
    path = _write(tmp_path / "library.npz", _arrays())
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    _refused(path)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_damaged_files(tmp_path: Path, share: float) -> None:
    path = _write(tmp_path / "library.npz", _arrays())
    content = bytearray(path.read_bytes())
    start = int(share * len(content))
    content[start : start + 40] = bytes(b ^ 0x5A for b in content[start : start + 40])
    path.write_bytes(content)
    _refused(path)


def test_a_single_array_is_no_library(tmp_path: Path) -> None:
    path = tmp_path / "library.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    _refused(path)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda arrays: arrays.__delitem__("patients"),
        lambda arrays: arrays.update(extra=np.zeros(3)),
        lambda arrays: arrays.update(embeddings=2 * arrays["embeddings"]),
        lambda arrays: arrays.update(embeddings=np.full((COUNT, DIMENSION), np.nan, np.float32)),
        lambda arrays: arrays.update({name: array[:0] for name, array in arrays.items() if not name.startswith("projection")}),
        lambda arrays: arrays.update(embeddings=arrays["embeddings"][0]),
        lambda arrays: arrays.update(is_blast=arrays["is_blast"][:-1]),
        lambda arrays: arrays.update(patches=arrays["patches"][:-1]),
        lambda arrays: arrays.update(patches=arrays["patches"][..., :-1]),
        lambda arrays: arrays.update(projection=arrays["projection"][:, :-1]),
        lambda arrays: arrays.update(patients=np.array([object()] * COUNT)),
    ],
    ids=[
        "missing array",
        "extra array",
        "not unit",
        "nan",
        "empty",
        "flat",
        "labels short",
        "places short",
        "places narrow",
        "axes narrow",
        "pickled",
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, break_it: Callable[[Arrays], None]) -> None:
    arrays = _arrays()
    break_it(arrays)
    _refused(_write(tmp_path / "library.npz", arrays))


@pytest.mark.parametrize("compressed", [False, True])
def test_uncompressed_arrays_are_mapped_and_none_can_be_written(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "library.npz"
    (np.savez_compressed if compressed else np.savez)(path, **_arrays())
    library = open_library(path)
    assert isinstance(library.embeddings, np.memmap) != compressed
    np.testing.assert_array_equal(library.place_embeddings, _arrays()["patches"])
    with pytest.raises(ValueError, match="read-only"):
        library.embeddings[0] = 0


def test_references_that_are_no_exemplars_have_no_places(tmp_path: Path) -> None:
    arrays = _arrays()
    arrays["exemplars"] = np.array([1, -1, 0, -1, -1, -1], np.int32)
    arrays["patches"], arrays["patch_scales"] = arrays["patches"][:2], arrays["patch_scales"][:2]
    library = open_library(_write(tmp_path / "library.npz", arrays))
    assert library.places_of(1) is None
    places = library.places_of(2)
    assert places is not None
    np.testing.assert_allclose(places, arrays["patches"][0] * np.float32(0.01), rtol=1e-6)


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4, 9], [0, 1, 2, 3, 4, -2], [0, 0, 1, 2, 3, 4]])
def test_exemplars_that_do_not_fit_their_places_are_refused(tmp_path: Path, rows: list[int]) -> None:
    arrays = _arrays()
    arrays["exemplars"] = np.array(rows, np.int32)
    _refused(_write(tmp_path / "library.npz", arrays))


def test_a_library_without_exemplars_is_one_of_exemplars_alone(tmp_path: Path) -> None:
    arrays = _arrays()
    del arrays["exemplars"]
    assert open_library(_write(tmp_path / "library.npz", arrays)).exemplars.tolist() == list(range(COUNT))


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.99])
def test_truncated_uncompressed_files(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "library.npz"
    np.savez(path, **_arrays())
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    _refused(path)
