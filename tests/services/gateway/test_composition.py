"""An image over fake services: order, limits, deadlines and failures."""

from __future__ import annotations

import asyncio

import pytest

from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from services.common.admission.priority import Priority, current_priority
from services.common.errors import DependencyUnavailableError, InternalError
from services.gateway.composition import Composer, JudgedImage
from services.gateway.decision import Counts
from services.gateway.request_context import RequestContext
from services.gateway.rules import image_rule
from tests.services.gateway.fakes import BLAST, IMAGE, NORMAL, PATCH_RELEASE, RELEASE, Down, FakeServices, admission, context, located


async def _judge(services: FakeServices, wanted: RequestContext | None = None, images: int = 4, batches: int = 2) -> JudgedImage:
    return await Composer(services.stubs, admission(images), batches).judge(IMAGE, wanted or context(services.release))


async def test_cells_of_all_pieces_come_in_order() -> None:
    services = FakeServices([located(0, 1, total=5), located(2, 3), located(4)], logits=lambda cell: BLAST if cell == 3 else NORMAL)
    services.votes = lambda cell: float(cell == 3)
    image = await _judge(services)
    assert [c.judged.cell_id for c in image.cells] == [0, 1, 2, 3, 4]
    assert image.counts == Counts(5, 1, 0)
    assert len(services.requests("Enhance")) == 3, "one batch a piece"
    (located_request,) = services.requests("LocateCells")
    assert (located_request.image, located_request.microns_per_pixel) == (b"x", 0.25)


async def test_an_image_without_cells_runs_no_model() -> None:
    services = FakeServices([located(total=0)])
    image = await _judge(services)
    assert image.cells == []
    assert [name for name, _ in services.called] == ["LocateCells"]


@pytest.mark.parametrize(
    "pieces",
    [[], [located(0)], [located(0, total=2)], [located(0, total=1), located(1)], [located(0, total=2), located(1, total=2)]],
    ids=["nothing", "no header", "too few", "too many", "two headers"],
)
async def test_what_patching_cannot_have_meant_is_refused(pieces: list[patching_pb2.LocateCellsResponse]) -> None:
    with pytest.raises(InternalError):
        await _judge(FakeServices(pieces))


async def test_only_so_many_batches_of_an_image_are_judged_at_once() -> None:
    services = FakeServices([located(0, total=6), *(located(n) for n in range(1, 6))])
    services.gate = asyncio.Event()
    judging = asyncio.create_task(_judge(services, batches=2))
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(services.requests("Enhance")) == 2
    services.gate.set()
    assert len((await judging).cells) == 6


async def test_only_so_many_images_are_judged_at_once_and_others_wait_their_turn() -> None:
    services = FakeServices([located(0, total=1)])
    services.gate = asyncio.Event()
    composer = Composer(services.stubs, admission(1), 2)
    first, second = (asyncio.create_task(composer.judge(IMAGE, context())) for _ in range(2))
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(services.requests("LocateCells")) == 1
    services.gate.set()
    await asyncio.gather(first, second)
    assert len(services.requests("LocateCells")) == 2


async def test_an_image_whose_deadline_passes_before_it_has_a_slot_calls_no_service() -> None:
    services = FakeServices([located(0, total=1)])
    services.gate = asyncio.Event()
    composer = Composer(services.stubs, admission(1), 2)
    first = asyncio.create_task(composer.judge(IMAGE, context()))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await composer.judge(IMAGE, context(seconds=0.2))
    services.gate.set()
    await first
    assert len(services.requests("LocateCells")) == 1
    await composer.judge(IMAGE, context())


async def test_a_failed_batch_ends_the_image_and_frees_its_slot() -> None:
    services = FakeServices([located(0, total=3), located(1), located(2)])
    services.failures["Classify"] = Down()
    composer = Composer(services.stubs, admission(1), 1)
    with pytest.raises(DependencyUnavailableError):
        await composer.judge(IMAGE, context())
    assert len(services.requests("Classify")) == 1, "the rest would be wasted work"
    services.failures.clear()
    assert len((await composer.judge(IMAGE, context())).cells) == 3


async def test_patching_that_is_down_is_unavailable() -> None:
    services = FakeServices([located(0, total=1)])
    services.failures["LocateCells"] = Down()
    with pytest.raises(DependencyUnavailableError) as caught:
        await _judge(services)
    assert caught.value.metadata["dependency"] == "patching"


async def test_a_cancelled_image_cancels_its_batches() -> None:
    services = FakeServices([located(0, total=2), located(1)])
    services.gate = asyncio.Event()
    judging = asyncio.create_task(_judge(services))
    for _ in range(20):
        await asyncio.sleep(0)
    judging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await judging
    for _ in range(20):
        await asyncio.sleep(0)
    assert services.at_once == 0
    assert services.requests("Classify") == []


async def test_the_latent_map_comes_where_it_is_asked_for() -> None:
    image = await _judge(FakeServices([located(0, total=1)]), context(latent_map=True))
    assert [r.reference_id for r in image.latent_map] == ["a/1"]


async def test_a_release_of_patches_judges_them_first_and_locates_cells_by_them() -> None:
    services = FakeServices([located(0, total=1)], release=PATCH_RELEASE)
    side = PATCH_RELEASE.patches.side if PATCH_RELEASE.patches else 0
    services.patches = [_cut(side, 0, 1)]
    image = await _judge(services)
    assert [name for name, _ in services.called][:3] == ["CutPatches", "ClassifyPatches", "LocateCells"]
    assert len(image.patches) == 2
    assert len(services.requests("LocateCells")[0].activations.patches) == 2
    assert [m.name for m in image.stats.models][-1] == "all_idb_patches_1"


def _cut(side: int, *numbers: int) -> patching_pb2.CutPatchesResponse:
    piece = patching_pb2.CutPatchesResponse(kind=imaging_pb2.ImageKind.IMAGE_KIND_FIELD)
    for number in numbers:
        piece.patches.add(patch_id=number, pixels=bytes(3 * side * side), x=number * 200, y=0, side=256)
    return piece


def test_an_image_is_decided_by_what_its_header_says_of_it() -> None:
    notes = imaging_pb2.ImageQuality(notes=["PHANTOM"], red_cell_radius=30.0, blur=30.0)
    field = JudgedImage(located(total=0, quality=notes).header).decide(image_rule(RELEASE))
    assert (field.sha256, field.phantom) == ("0" * 64, True)
    assert [str(reason) for reason in field.poor] == ["IMAGE_BLURRED"]
    assert {"PHANTOM", "IMAGE_BLURRED"} <= {str(reason) for reason in field.decision.reasons}
    cell = JudgedImage(located(total=0, quality=notes, kind=imaging_pb2.IMAGE_KIND_CELL).header).decide(image_rule(RELEASE))
    assert "SINGLE_CELL" in {str(reason) for reason in cell.decision.reasons}
    assert cell.poor == (), "a crop is judged by the focus of its cell"


async def test_the_work_of_an_image_grows_by_its_cells_and_patches() -> None:
    services = FakeServices([located(0, 1, total=2)], release=PATCH_RELEASE)
    side = PATCH_RELEASE.patches.side if PATCH_RELEASE.patches else 0
    services.patches, services.gate = [_cut(side, 0, 1, 2)], asyncio.Event()
    images = admission(1, image_pixels=1, cell_pixels=1000)
    judging = asyncio.create_task(Composer(services.stubs, images, 2).judge(IMAGE, context(PATCH_RELEASE)))
    while not services.requests("Enhance"):
        await asyncio.sleep(0)
    assert images._budget.held == 1 + 5 * 1000
    services.gate.set()
    await judging
    assert images._budget.held == 0


async def test_the_other_services_are_told_the_priority_of_an_image() -> None:
    services, told = FakeServices([located(0, total=1)]), list[Priority]()
    services.changes["Classify"] = lambda _: told.append(current_priority())
    composer = Composer(services.stubs, admission(1), 2)
    for priority in Priority:
        await composer.judge(IMAGE, context(priority=priority))
    assert told == list(Priority)
    assert current_priority() is Priority.INTERACTIVE
