"""The parser is told of plain RGB where it would refuse a label; every other byte is the file's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.patching.slides.dicom_folder import dicom_file
from services.patching.slides.dicom_header import Syntax
from services.patching.slides.dicom_streams import streams_of
from tests.properties import examples
from tests.services.patching.slides.dicom_files import write_dicom

PIXELS = np.full((150, 230, 3), 200, np.uint8)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labelled") / "slide.dcm"
    return write_dicom(path, PIXELS, syntax=Syntax.EXPLICIT, encode=lambda tile: tile.tobytes(), PhotometricInterpretation="YBR_FULL")


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_only_the_label_reads_otherwise(labelled: Path, data: st.DataObject) -> None:
    content = labelled.read_bytes()
    expected = content.replace(b"YBR_FULL", b"RGB     ")
    assert expected != content
    (stream,) = (opened.stream for opened in streams_of(dicom_file(labelled).files))
    with stream:
        for _ in range(4):
            at, count = data.draw(st.integers(0, 1500)), data.draw(st.integers(0, 3000))
            stream.seek(at)
            assert stream.read(count) == expected[at : at + count]


def test_a_label_that_it_knows_is_left(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "slide.dcm", PIXELS)
    (stream,) = (opened.stream for opened in streams_of(dicom_file(path).files))
    with stream:
        assert stream.read() == path.read_bytes()
