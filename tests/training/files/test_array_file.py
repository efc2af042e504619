"""Tests of the one file format of checkpoints, networks and packs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.properties import examples
from training.errors import ArrayFileError
from training.files.array_file import read_arrays, write_arrays

ARRAYS = st.dictionaries(
    st.text("abc/_0", min_size=1, max_size=8),
    hnp.arrays(st.sampled_from([np.uint8, np.int64, np.float32]), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)),
    max_size=4,
)
WORDS = st.dictionaries(st.text(max_size=5), st.one_of(st.integers(-9, 9), st.text(max_size=5), st.lists(st.booleans(), max_size=2)), max_size=3)


@settings(max_examples=examples(60), deadline=None)
@given(ARRAYS, WORDS)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, np.ndarray], about: dict[str, object]) -> None:
    path = tmp_path_factory.mktemp("arrays") / "file"
    write_arrays(path, arrays, about)
    found, words = read_arrays(path)
    assert words == about
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].shape == array.shape
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "some.file"
    write_arrays(path, {"weights": np.arange(100, dtype=np.float32)}, {"kind": "test"})
    return path


@pytest.mark.parametrize("from_end", [1, 200, 399])
def test_a_changed_value_is_told(written: Path, from_end: int) -> None:
    content = bytearray(written.read_bytes())
    content[-from_end] ^= 1
    written.write_bytes(content)
    with pytest.raises(ArrayFileError, match="does not match its checksum"):
        read_arrays(written)


def test_changed_words_are_told(written: Path) -> None:
    written.write_bytes(written.read_bytes().replace(b"test", b"tast"))
    with pytest.raises(ArrayFileError, match="does not match its checksum"):
        read_arrays(written)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 something else", b"\xff" * 64])
def test_another_file_is_told(written: Path, content: bytes) -> None:
    written.write_bytes(content)
    with pytest.raises(ArrayFileError, match="cannot be read"):
        read_arrays(written)


def test_a_truncated_file_is_told(written: Path) -> None:
    written.write_bytes(written.read_bytes()[:-7])
    with pytest.raises(ArrayFileError):
        read_arrays(written)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArrayFileError, match=r"gone\.file"):
        read_arrays(tmp_path / "gone.file")
