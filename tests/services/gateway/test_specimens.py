"""What the images of a specimen share and add up to."""

from __future__ import annotations

import pytest

from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from services.common.errors import InvalidRequestError
from services.gateway.calling import Effort
from services.gateway.composition import JudgedImage
from services.gateway.decision import Counts
from services.gateway.fusion import CellVerdict
from services.gateway.judging import JudgedCell
from services.gateway.specimens import Specimen, Tally
from tests.services.gateway.fakes import RELEASE, located

BLURRED = imaging_pb2.ImageQuality(red_cell_radius=30.0, blur=30.0)


def _image(sha256: str, cells: int, suspected: int = 0, quality: imaging_pb2.ImageQuality | None = None) -> JudgedImage:
    header = located(total=cells, image_sha256=sha256, quality=quality or imaging_pb2.ImageQuality(red_cell_radius=30.0)).header
    judged = [JudgedCell(CellVerdict(0.0, (), i < suspected, False, ()), diagnosis_pb2.CellDiagnosis()) for i in range(cells)]
    return JudgedImage(header, judged, effort=Effort("onnxruntime"))


def test_an_image_takes_over_what_the_specimen_says_and_the_release_that_it_means() -> None:
    specimen = Specimen("S", "plain_resnet", RELEASE)
    for given in ({}, {"specimen": "S"}, {"release": "plain_resnet"}, {"release": RELEASE.id}):
        claimed = specimen.claim(diagnosis_pb2.DiagnoseRequest(request_id="a", **given))  # type: ignore[arg-type]
        assert (claimed.specimen, claimed.release, claimed.request_id) == ("S", RELEASE.id, "a")


@pytest.mark.parametrize("given", [{"specimen": "T"}, {"release": "dss"}])
def test_an_image_of_another_specimen_or_for_another_release_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Specimen("S", "", RELEASE).claim(diagnosis_pb2.DiagnoseRequest(**given))  # type: ignore[arg-type]
    assert (caught.value.reason, caught.value.field) == ("SPECIMEN_MIXED", next(iter(given)))


def test_images_add_up_and_the_same_image_counts_once() -> None:
    tally = Tally()
    tally.add(_image("a", 100, 3), suspected=True)
    tally.add(_image("b", 50), suspected=False)
    tally.add(_image("a", 100, 3), suspected=True)
    tally.add_failure()
    assert tally.images.counts == Counts(150, 3, 0)
    assert (tally.images.suspected, tally.images.failed, tally.duplicates, len(tally.seen)) == (1, 1, 1, 2)
    assert tally.effort.engine == "onnxruntime"


def test_cells_of_a_poor_image_count_but_do_not_reassure() -> None:
    tally = Tally()
    tally.add(_image("a", 100), suspected=False)
    tally.add(_image("b", 70, quality=BLURRED), suspected=False)
    assert (tally.images.counts.total, tally.images.clear.total, tally.images.poor) == (170, 100, 1)
