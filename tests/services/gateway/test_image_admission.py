"""Images are let in by their work: interactive ones first, those of batches few at once, and none that would wait too long."""

from __future__ import annotations

import asyncio
import io
from contextlib import AsyncExitStack, nullcontext
from typing import Any, cast

import pytest
from PIL import Image

from services.common import metrics
from services.common.admission.budget import Holding
from services.common.admission.caller import Caller
from services.common.admission.priority import Priority, enter_priority
from services.common.errors import OverloadedError
from services.common.local_stub import LocalContext
from services.gateway.image_admission import ImageAdmission, ImageWork, work_of
from services.gateway.request_context import EncodedImage
from services.gateway.settings import GatewaySettings
from tests.services.gateway.fakes import IMAGE, admission, context

MEGAPIXEL = 1_000_000
LIMITS: dict[str, Any] = {"work_in_flight": 40 * MEGAPIXEL, "image_pixels": 1, "cell_pixels": MEGAPIXEL}


def _image(megapixels: int) -> EncodedImage:
    encoded = io.BytesIO()
    Image.new("RGB", (1000, 1000 * megapixels)).save(encoded, "BMP")
    return EncodedImage(encoded.getvalue()[:64], 0, 0.0)


async def _let_in(stack: AsyncExitStack, by: ImageAdmission, image: EncodedImage = IMAGE, **of: Any) -> ImageWork:
    return await stack.enter_async_context(by.let_in(image, context(**of)))


def _value(metric: Any, priority: Priority) -> float:
    return metric.labels(priority.label)._value.get()  # type: ignore[no-any-return]


def _shown(metric: Any, priority: Priority) -> float:
    """A value that is computed when it is asked for."""
    return next(sample.value for of in metric.collect() for sample in of.samples if sample.labels["priority"] == priority.label)


async def test_a_place_is_free_again_after_a_failure_and_waiting_ends_at_the_deadline() -> None:
    images = admission(1)

    async def fail() -> None:
        async with images.let_in(IMAGE, context()):
            with pytest.raises(TimeoutError):
                async with images.let_in(IMAGE, context(seconds=0.1)):
                    pass
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    async with images.let_in(IMAGE, context()):
        pass


def test_the_work_of_an_image_is_its_pixels_and_its_cells_and_at_most_a_share() -> None:
    limits = GatewaySettings(work_in_flight=40 * MEGAPIXEL, image_pixels=100, cell_pixels=1000).image_limits()
    assert (work_of(limits, 0), work_of(limits, 50), work_of(limits, 50, 3)) == (100, 150, 3150)
    assert work_of(limits, 10**9) == 10 * MEGAPIXEL


async def test_an_image_counts_by_the_pixels_of_its_header_and_then_by_its_cells() -> None:
    images = admission(16, **LIMITS)
    async with AsyncExitStack() as stack:
        work = await _let_in(stack, images, _image(3))
        assert images._budget.held == 3 * MEGAPIXEL + 1
        work.found(2)
        assert images._budget.held == 5 * MEGAPIXEL + 1
        work.found(1, 5 * MEGAPIXEL)
        assert images._budget.held == 6 * MEGAPIXEL + 1
        await _let_in(stack, images)
        assert images._budget.held == 6 * MEGAPIXEL + 2, "what has no header counts as the least"
    assert images._budget.held == 0


async def test_work_that_was_given_up_is_no_work_that_was_done() -> None:
    images = admission(1)
    async with AsyncExitStack() as stack:
        await _let_in(stack, images)
        held = next(iter(images._budget._holdings))
    assert held.worth > 0
    kept: list[Holding] = []

    async def fail() -> None:
        async with images.let_in(IMAGE, context()):
            kept.extend(images._budget._holdings)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert kept[0].worth == 0


async def test_batches_have_few_images_at_once_and_interactive_ones_go_before_those_that_wait() -> None:
    images = admission(3, batch_images_in_flight=2)
    order: list[str] = []

    async def work(name: str, priority: Priority, seconds: float = 0.0) -> None:
        async with images.let_in(IMAGE, context(priority=priority)):
            order.append(name)
            await asyncio.sleep(seconds)

    async with AsyncExitStack() as stack:
        for priority in (Priority.BATCH, Priority.BATCH):
            await _let_in(stack, images, priority=priority)
        waiting = asyncio.create_task(work("third of a batch", Priority.BATCH))
        await asyncio.sleep(0.01)
        assert order == []
        assert _value(metrics.IMAGES_WAITING, Priority.BATCH) == 1
        await work("interactive", Priority.INTERACTIVE)
        blocked = await _let_in(stack, images)
        assert isinstance(blocked, ImageWork)
        later = asyncio.create_task(work("later interactive", Priority.INTERACTIVE, 0.02))
        await asyncio.sleep(0.01)
    await asyncio.gather(waiting, later)
    assert order == ["interactive", "later interactive", "third of a batch"]
    assert _value(metrics.IMAGES_WAITING, Priority.BATCH) == 0


async def test_batches_never_take_what_is_kept_for_interactive_images() -> None:
    images = admission(16, batch_images_in_flight=16, **LIMITS)
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await _let_in(stack, images, _image(10), priority=Priority.BATCH)
        third = asyncio.create_task(_let_in(stack, images, _image(10), priority=Priority.BATCH))
        await asyncio.sleep(0.01)
        assert not third.done()
        await _let_in(stack, images, _image(10))
        third.cancel()


async def test_who_would_wait_too_long_is_refused_at_once_and_is_told_when_to_come_again() -> None:
    images = admission(1, work_in_flight=4 * MEGAPIXEL, interactive_wait_seconds=1.0, batch_wait_seconds=0.2)
    before = {priority: _value(metrics.IMAGES_REFUSED, priority) for priority in Priority}
    async with AsyncExitStack() as stack:
        await _let_in(stack, images)
        loop = asyncio.get_running_loop()
        started = loop.time()
        with pytest.raises(OverloadedError) as caught:
            await _let_in(stack, images, priority=Priority.BATCH)
        waiting = [asyncio.create_task(_let_in(stack, images)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError) as later:
            await _let_in(stack, images)
        assert loop.time() - started < 0.1
        for task in waiting:
            task.cancel()
    assert (caught.value.reason, later.value.reason) == ("OVERLOADED", "OVERLOADED")
    assert caught.value.retry_after is not None
    assert later.value.retry_after is not None
    assert 0.2 < caught.value.retry_after < 0.5 < later.value.retry_after < 2.0
    assert {p: _value(metrics.IMAGES_REFUSED, p) - before[p] for p in Priority} == {Priority.INTERACTIVE: 1, Priority.BATCH: 1}


@pytest.mark.parametrize(
    ("priority", "seconds", "is_refused"), [("batch", 60, True), ("batch", None, True), ("other", 60, False), ("other", 0.01, True)]
)
async def test_a_call_is_refused_on_its_headers_where_no_image_would_be_let_in(priority: str, seconds: float | None, is_refused: bool) -> None:
    images = admission(1, work_in_flight=4 * MEGAPIXEL, batch_wait_seconds=0.2)

    async def call() -> None:
        enter_priority([("dl4all-priority", priority)])
        images.refuse_early(cast(Any, LocalContext(seconds, ())))

    def refused() -> float:
        return sum(_value(metrics.IMAGES_REFUSED, p) for p in Priority if p.label == priority or priority == "other")

    before = refused()
    async with images.let_in(IMAGE, context()):
        with pytest.raises(OverloadedError) if is_refused else nullcontext():
            await asyncio.create_task(call())
    assert refused() == before + is_refused
    await asyncio.create_task(call())


async def test_few_images_of_batches_wait() -> None:
    images = admission(1, batch_images_waiting=1)
    async with AsyncExitStack() as stack:
        await _let_in(stack, images)
        waiting = asyncio.create_task(_let_in(stack, images, priority=Priority.BATCH))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await _let_in(stack, images, priority=Priority.BATCH)
        waiting.cancel()


async def test_who_cannot_begin_before_the_deadline_is_refused_at_once() -> None:
    images = admission(1, work_in_flight=4 * MEGAPIXEL)
    async with AsyncExitStack() as stack:
        await _let_in(stack, images)
        with pytest.raises(OverloadedError):
            await _let_in(stack, images, seconds=0.05)


async def test_the_expected_wait_is_shown_by_priority() -> None:
    images = admission(1, work_in_flight=4 * MEGAPIXEL)
    async with AsyncExitStack() as stack:
        assert images._budget.expected_wait(Priority.BATCH) == 0.0
        await _let_in(stack, images)
        waiting = asyncio.create_task(_let_in(stack, images, priority=Priority.BATCH))
        await asyncio.sleep(0)
        interactive, batch = (_shown(metrics.IMAGES_EXPECTED_WAIT, p) for p in Priority)
        assert 0.1 < interactive < 0.5 < 2 * interactive <= batch + 0.01
        waiting.cancel()


async def test_another_caller_is_let_in_before_one_who_has_much() -> None:
    images = admission(2)
    order: list[str] = []

    async def work(name: str) -> None:
        async with images.let_in(IMAGE, context(caller=Caller(name))):
            order.append(name)

    async with AsyncExitStack() as stack:
        await _let_in(stack, images, caller=Caller("a"))
        async with images.let_in(IMAGE, context(caller=Caller("a"))):
            waiting = [asyncio.create_task(work("a")), asyncio.create_task(work("b"))]
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        assert order[0] == "b"
    await asyncio.gather(*waiting)
    assert order == ["b", "a"]


async def test_an_image_whose_caller_has_gone_never_begins() -> None:
    images = admission(1)
    begun: list[str] = []

    async def work() -> None:
        async with images.let_in(IMAGE, context(priority=Priority.BATCH)):
            begun.append("gone")

    async with AsyncExitStack() as stack:
        await _let_in(stack, images)
        waiting = asyncio.create_task(work())
        await asyncio.sleep(0.01)
        waiting.cancel()
    await asyncio.sleep(0.01)
    assert begun == []
    assert images._budget.held == 0
