"""Sums over a specimen's images: the real servicer, over images that are judged already."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from services.common import metrics
from services.common.errors import InvalidRequestError
from services.common.releases import ReleaseStore
from services.gateway.cells import JudgedCell
from services.gateway.composition import JudgedImage
from services.gateway.fusion import CellVerdict
from services.gateway.judging import CellAnswer, CellEvidence
from services.gateway.request_context import EncodedImage, RequestContext
from services.gateway.run_stats import RunStats, ServedFile
from services.gateway.servicer import DiagnosisServicer
from services.gateway.settings import GatewaySettings
from tests.paths import ROOT
from tests.services.gateway.fakes import admission
from training.releases.write import activate

SHARP = imaging_pb2.ImageQuality(red_cell_radius=30.0)
BLURRED = imaging_pb2.ImageQuality(red_cell_radius=30.0, blur=30.0)


def image(
    name: str, cells: int, suspected: int = 0, indeterminate: int = 0, quality: imaging_pb2.ImageQuality = SHARP, model: str = "net"
) -> JudgedImage:
    header = patching_pb2.LocateCellsHeader(kind=imaging_pb2.ImageKind.IMAGE_KIND_FIELD, image_sha256=name, quality=quality, cell_count=cells)
    verdicts = [CellVerdict(0.0, ("normal",), i < suspected, suspected <= i < suspected + indeterminate, ()) for i in range(cells)]
    judged = [CellAnswer(JudgedCell(i, v), CellEvidence(imaging_pb2.Cell(cell_id=i))) for i, v in enumerate(verdicts)]
    served = [ServedFile(model, 1, model)] if cells else []
    return JudgedImage(header=header, cells=judged, stats=RunStats("onnxruntime" if cells else "", served))


class Judged:
    """A fake composer: judged images by request id."""

    def __init__(self, images: dict[str, JudgedImage], before: Callable[[str], None]) -> None:
        self.images, self.before, self.releases = images, before, list[str]()

    async def judge(self, image: EncodedImage, context: RequestContext) -> JudgedImage:
        self.before(context.request_id)
        self.releases.append(context.release.id)
        return self.images[context.request_id]


class Context:
    def time_remaining(self) -> None:
        return None

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReleaseStore, Path]:
    releases = tmp_path_factory.mktemp("served") / "releases"
    shutil.copytree(ROOT / "releases", releases)
    return ReleaseStore(releases, ROOT / "model_repository"), releases


def specimen(
    store: ReleaseStore, *images: JudgedImage, release: str = "", max_answer_bytes: int = 0, before: Callable[[str], None] = lambda _: None
) -> tuple[diagnosis_pb2.SpecimenDiagnosis, list[Any], list[str]]:
    limits: dict[str, Any] = {"max_answer_bytes": max_answer_bytes} if max_answer_bytes else {}
    settings = GatewaySettings(stream_window=1, **limits)
    servicer = DiagnosisServicer(settings, store, cast(Any, None), admission(1))
    judged = Judged({str(i): judged for i, judged in enumerate(images)}, before)
    servicer._images._composer = cast(Any, judged)

    async def requests() -> AsyncIterator[diagnosis_pb2.DiagnoseSpecimenRequest]:
        for i in range(len(images)):
            asked = diagnosis_pb2.DiagnoseRequest(request_id=str(i), release=release, image=b"x")
            yield diagnosis_pb2.DiagnoseSpecimenRequest(request=asked)

    async def collect() -> list[Any]:
        return [answer async for answer in servicer.DiagnoseSpecimen(requests(), cast(Any, Context()))]

    *answers, last = asyncio.run(collect())
    return last.specimen, [a.image for a in answers], judged.releases


def test_images_add_up_and_what_ran_is_that_of_all(store: tuple[ReleaseStore, Path]) -> None:
    found, answers, _ = specimen(store[0], image("a", 150), image("b", 100, 0, 2), image("a", 150), image("c", 0))
    assert (found.counts.total, found.counts.indeterminate, found.images, found.duplicates, found.failures) == (250, 2, 3, 1, 0)
    assert found.finding == diagnosis_pb2.FINDING_NO_BLASTS_SEEN
    assert len(answers) == 4
    assert found.provenance.engine == "onnxruntime", "the last image had no cell"
    assert [f.name for f in found.provenance.served_files] == ["net", "library"]


def test_an_image_full_of_blasts_is_not_outnumbered(store: tuple[ReleaseStore, Path]) -> None:
    found, answers, _ = specimen(store[0], image("a", 12, 12), image("b", 400), image("c", 400))
    (first,) = [a.diagnosis for a in answers if a.request_id == "0"]
    assert first.finding == diagnosis_pb2.FINDING_BLASTS_SUSPECTED
    assert found.finding == diagnosis_pb2.FINDING_INDETERMINATE
    assert "BLASTS_SUSPECTED_IN_IMAGES" in found.reasons
    assert found.requires_review


def test_blurred_images_are_never_no_blasts_seen(store: tuple[ReleaseStore, Path]) -> None:
    found, _, _ = specimen(store[0], image("a", 200, quality=BLURRED), image("b", 200, quality=BLURRED))
    assert found.finding == diagnosis_pb2.FINDING_INDETERMINATE
    assert {"POOR_IMAGES", "TOO_FEW_CELLS"} <= set(found.reasons)


def test_an_image_whose_answer_is_too_large_failed_and_its_cells_do_not_count(store: tuple[ReleaseStore, Path]) -> None:
    found, answers, _ = specimen(store[0], image("a", 200), image("b", 5000), max_answer_bytes=30_000)
    assert [a.WhichOneof("result") for a in answers] == ["diagnosis", "error"]
    assert (found.counts.total, found.images, found.failures) == (200, 1, 1)
    assert found.finding == diagnosis_pb2.FINDING_INDETERMINATE
    assert "IMAGES_FAILED" in found.reasons


def test_all_images_are_judged_by_one_release_whatever_the_index_says_meanwhile(store: tuple[ReleaseStore, Path]) -> None:
    held, folder = store

    def switch(request_id: str) -> None:
        if request_id == "1":
            activate(held.held("dss-1"), folder, as_default=True)

    found, answers, releases = specimen(held, image("a", 100), image("b", 100), image("c", 100), before=switch)
    assert releases == ["plain-resnet-1"] * 3
    assert {a.diagnosis.provenance.release for a in answers} == {found.provenance.release} == {"plain-resnet-1"}
    assert held.resolve("").id == "dss-1", "the switch was made"
    activate(held.held("plain-resnet-1"), folder, as_default=True)


def _counted(method: str) -> float:
    return metrics.REQUESTS.labels("dl4all.diagnosis.v1.DiagnosisService", method, "OK")._value.get()  # type: ignore[no-any-return]


def test_images_of_a_specimen_are_counted_as_such(store: tuple[ReleaseStore, Path]) -> None:
    before = _counted("DiagnoseSpecimen#image"), _counted("DiagnoseStream#image")
    specimen(store[0], image("a", 3), image("b", 4))
    assert (_counted("DiagnoseSpecimen#image"), _counted("DiagnoseStream#image")) == (before[0] + 2, before[1])


def test_a_part_that_this_version_does_not_know_ends_the_specimen_before_anything_is_counted(store: tuple[ReleaseStore, Path]) -> None:
    servicer = DiagnosisServicer(GatewaySettings(), store[0], cast(Any, None), admission(1))

    async def requests() -> AsyncIterator[diagnosis_pb2.DiagnoseSpecimenRequest]:
        yield diagnosis_pb2.DiagnoseSpecimenRequest()

    async def collect() -> list[Any]:
        return [answer async for answer in servicer.DiagnoseSpecimen(requests(), cast(Any, Context()))]

    with pytest.raises(InvalidRequestError) as caught:
        asyncio.run(collect())
    assert caught.value.reason == "PART_UNKNOWN"
