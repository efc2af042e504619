"""A folder is one slide: links, many other files, copies, parts; two slides are refused by name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from pydicom.uid import generate_uid

from services.common.errors import DomainError, InvalidImageError
from services.patching.slides import dicom_folder
from services.patching.slides.dicom_header import Syntax
from services.patching.slides.opening import open_slide
from tests.services.patching.slides.dicom_files import write_dicom, write_single

PIXELS = np.asarray(Image.fromarray(np.random.default_rng(0).integers(0, 256, (15, 23, 3), np.uint8)).resize((230, 150), Image.Resampling.BICUBIC))
HALF = np.ascontiguousarray(PIXELS[::2, ::2])
SAME: dict[str, Any] = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4", "FrameOfReferenceUID": "1.2.5"}


def refused(path: Path, root: Path | None = None) -> DomainError:
    with pytest.raises(DomainError) as caught:
        open_slide(path, root)
    return caught.value


def width(path: Path, root: Path | None = None) -> int:
    slide = open_slide(path, root)
    slide.read(0, 0, slide.facts.width, slide.facts.height)
    slide.close()
    return slide.facts.width


@pytest.mark.parametrize(
    "second",
    [
        {},
        {"StudyInstanceUID": "1.2.3"},
        {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4"},
        {**SAME, "ContainerIdentifier": "S-18"},
        {**SAME, "PyramidUID": "1.2.7"},
    ],
    ids=["study", "series", "frame of reference", "container", "pyramid"],
)
@pytest.mark.parametrize("pixels", [PIXELS, HALF], ids=["of one size", "of half the size"])
def test_two_slides_are_refused_by_name(tmp_path: Path, second: dict[str, Any], pixels: np.ndarray) -> None:
    write_dicom(tmp_path / "a.dcm", PIXELS, **SAME, ContainerIdentifier="S-17", PyramidUID="1.2.6")
    write_dicom(tmp_path / "b.dcm", pixels, **{"ContainerIdentifier": "S-17", "PyramidUID": "1.2.6", **second})
    error = refused(tmp_path)
    assert error.reason == "SLIDE_SEVERAL"
    assert "a.dcm and b.dcm" in error.message


def test_two_pictures_of_one_slide_are_refused_by_name(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", PIXELS, **SAME)
    write_dicom(tmp_path / "b.dcm", np.ascontiguousarray(PIXELS[:100]), **SAME)
    error = refused(tmp_path)
    assert error.reason == "SLIDE_SEVERAL"
    assert "a.dcm and b.dcm" in error.message


def test_a_slide_beside_another_kind_of_slide_is_refused_by_name(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", PIXELS)
    tifffile.imwrite(tmp_path / "b.svs", PIXELS, photometric="rgb")
    assert "a.dcm and b.svs" in refused(tmp_path).message
    (tmp_path / "b.svs").unlink()
    write_single(tmp_path / "c.dcm", PIXELS)
    assert "a.dcm and c.dcm" in refused(tmp_path).message


def test_the_resolutions_of_one_slide_are_read_whatever_lies_beside_them(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", HALF, **SAME)
    write_dicom(tmp_path / "b.dcm", PIXELS, **{**SAME, "SeriesInstanceUID": "1.2.99"})
    write_dicom(tmp_path / "label.dcm", HALF[:60], ImageType=["ORIGINAL", "PRIMARY", "LABEL", "NONE"])
    write_single(tmp_path / "photo.dcm", HALF, "1.2.840.10008.5.1.4.1.1.77.1.4")
    write_single(tmp_path / "DICOMDIR", HALF, "1.2.840.10008.1.3.10", syntax="1.2.840.10008.1.2.1.99")
    (tmp_path / "deeper").mkdir()
    slide = open_slide(tmp_path)
    assert (slide.facts.width, slide.facts.levels) == (230, 2)
    slide.close()


def test_a_copy_is_the_same_slide(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", PIXELS, **SAME)
    shutil.copy(tmp_path / "a.dcm", tmp_path / "a (copy).dcm")
    assert width(tmp_path) == 230
    with (tmp_path / "a (copy).dcm").open("ab") as file:
        file.write(bytes(8))
    assert refused(tmp_path).reason == "SLIDE_SEVERAL"


def test_many_other_files_hide_no_slide(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"a{number:03}.txt").write_text("not DICOM")
    write_dicom(tmp_path / "z.dcm", PIXELS)
    assert width(tmp_path) == 230


def test_more_files_than_are_looked_at_are_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        write_dicom(tmp_path / f"{number}.dcm", PIXELS, **SAME)
    monkeypatch.setattr(dicom_folder, "MAX_FILES", 3)
    assert "more than 3 files of slides" in refused(tmp_path).message
    monkeypatch.setattr(dicom_folder, "MAX_ENTRIES", 2)
    error = refused(tmp_path)
    assert error.reason == "SLIDE_TOO_LARGE"
    assert "more than 2 files" in error.message


def test_links_are_followed_where_they_stay_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "root" / "links").mkdir(parents=True)
    (tmp_path / "root" / "store").mkdir()
    write_dicom(tmp_path / "root" / "store" / "1234", PIXELS)
    write_dicom(tmp_path / "outside.dcm", PIXELS)
    links = tmp_path / "root" / "links"
    (links / "slide.dcm").symlink_to("../store/1234")
    assert width(links, tmp_path / "root") == 230
    assert refused(links).reason == "SLIDE_PATH_INVALID", "without a root, the folder is the bound"
    (links / "other.dcm").symlink_to(tmp_path / "outside.dcm")
    error = refused(links, tmp_path / "root")
    assert error.reason == "SLIDE_PATH_INVALID"
    assert "other.dcm leads out" in error.message
    (links / "other.dcm").unlink()
    (links / "lost.dcm").symlink_to("nowhere")
    error = refused(links, tmp_path / "root")
    assert error.reason == "SLIDE_UNREADABLE"
    assert "lost.dcm leads to no file" in error.message
    (links / "lost.dcm").unlink()
    (links / "loop.dcm").symlink_to("loop.dcm")
    assert refused(links, tmp_path / "root").reason == "SLIDE_UNREADABLE"


def test_a_folder_without_a_slide_says_what_it_holds(tmp_path: Path) -> None:
    assert refused(tmp_path).reason == "SLIDE_UNKNOWN_FORMAT"
    write_single(tmp_path / "report.dcm", HALF, "1.2.840.10008.5.1.4.1.1.88.11")
    assert "report.dcm is a DICOM object of another kind (Basic Text SR" in refused(tmp_path).message
    (tmp_path / "deeper").mkdir()
    assert "such as deeper, are not looked into" in refused(tmp_path).message
    tifffile.imwrite(tmp_path / "slide.svs", PIXELS, photometric="rgb")
    assert "slide.svs, a TIFF; name that file itself" in refused(tmp_path).message


def test_a_name_that_is_no_text_can_be_told(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", PIXELS)
    write_dicom(tmp_path / "b.dcm", PIXELS)
    os.rename(os.fsencode(tmp_path / "b.dcm"), os.fsencode(tmp_path) + b"/b\xe9\n.dcm")
    message = refused(tmp_path).message
    message.encode()
    assert "\n" not in message


def concatenated(path: Path, number: int, parts: int) -> Path:
    frames = range(12)[number * 6 : number * 6 + 6]
    return write_dicom(
        path,
        PIXELS,
        kept=frames,
        DimensionOrganizationType="TILED_FULL",
        **SAME,
        ConcatenationUID="1.2.8",
        SOPInstanceUIDOfConcatenationSource="1.2.9",
        InConcatenationNumber=number + 1,
        InConcatenationTotalNumber=parts,
        ConcatenationFrameOffsetNumber=6 * number,
    )


def test_the_parts_of_a_slide_are_one_slide_and_a_missing_one_is_told(tmp_path: Path) -> None:
    concatenated(tmp_path / "1.dcm", 0, 2)
    concatenated(tmp_path / "2.dcm", 1, 2)
    slide = open_slide(tmp_path)
    assert np.abs(slide.read(0, 0, 230, 150).astype(int) - PIXELS).mean() < 4
    slide.close()
    (tmp_path / "2.dcm").unlink()
    assert "only 1 of the 2 files" in refused(tmp_path).message
    assert "only 1 of the 2 files" in refused(tmp_path / "1.dcm").message


def test_parts_that_do_not_say_of_what_are_refused(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "slide.dcm", PIXELS, ConcatenationUID="1.2.8")
    assert "SOP Instance UID of Concatenation Source" in refused(path).message


def test_tiles_that_are_missing_are_told(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "slide.dcm", PIXELS, kept=range(6), DimensionOrganizationType="TILED_FULL")
    assert "only 6 of its 12 tiles" in refused(path).message


@pytest.mark.parametrize("name", ["StudyInstanceUID", "SeriesInstanceUID", "TotalPixelMatrixColumns"])
def test_what_a_slide_lacks_is_told(tmp_path: Path, name: str) -> None:
    lacking: dict[str, Any] = {name: None}
    path = write_dicom(tmp_path / "slide.dcm", PIXELS, **lacking)
    error = refused(path)
    assert error.reason == "SLIDE_UNSUPPORTED"
    assert "does not say its" in error.message


def test_an_object_of_another_kind_is_called_what_it_is(tmp_path: Path) -> None:
    path = write_single(tmp_path / "x.dcm", HALF, "1.2.840.10008.5.1.4.1.1.2", syntax=Syntax.EXPLICIT, SeriesInstanceUID=generate_uid())
    error = refused(path)
    assert error.reason == "SLIDE_UNSUPPORTED"
    assert "CT Image Storage" in error.message
    assert isinstance(error, InvalidImageError)
