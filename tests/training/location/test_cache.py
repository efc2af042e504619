"""Tests of kept samples: read as they were written, and made anew by another version."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from services.patching.locator_maps import Kind
from tests.training.location.drawn import Disk, sample
from training.errors import ArrayFileError
from training.location import cache
from training.location.cache import read_samples, write_samples
from training.location.samples import Sample


@pytest.fixture
def samples() -> list[Sample]:
    """Of different sizes, kinds and facts; the second shows nothing."""
    cells = [Disk(30, 30), Disk(80, 40, kind=Kind.SMUDGED), Disk(100, 80, kind=Kind.PLATELET), Disk(20, 70, is_known=False)]
    return [
        sample(cells, key="a", fold=2),
        sample([], 40, 56, key="b", platelets_are_marked=False),
        sample([Disk(24, 24)], 48, 64, key="c", fold=1, nuclei_are_known=False),
    ]


def test_samples_are_read_as_they_were_written(tmp_path: Path, samples: list[Sample]) -> None:
    write_samples(tmp_path / "drawn.safetensors", samples)
    read = read_samples(tmp_path / "drawn.safetensors")
    assert read is not None
    assert len(read) == len(samples)
    for written, found in zip(samples, read, strict=True):
        for name in (f.name for f in fields(Sample)):
            a, b = getattr(written, name), getattr(found, name)
            if isinstance(a, np.ndarray):
                assert (a.dtype, a.shape) == (b.dtype, b.shape), name
                assert np.array_equal(a, b), name
            else:
                assert (type(a), a) == (type(b), b), name


def test_a_file_of_another_version_is_not_used(tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    write_samples(tmp_path / "drawn.safetensors", samples)
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    assert read_samples(tmp_path / "drawn.safetensors") is None
    write_samples(tmp_path / "drawn.safetensors", samples)
    assert read_samples(tmp_path / "drawn.safetensors") is not None


def test_a_damaged_file_is_told(tmp_path: Path, samples: list[Sample]) -> None:
    path = tmp_path / "drawn.safetensors"
    write_samples(path, samples)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArrayFileError, match="checksum"):
        read_samples(path)
