"""The priority of a request goes with it through tasks and over the wire."""

from __future__ import annotations

import asyncio

import pytest

from services.common.admission.priority import Priority, current_priority, enter_priority, priority_metadata, working_for
from services.common.guard import guarded
from services.common.local_stub import LocalContext
from services.common.tracing import metadata


def test_interactive_comes_first() -> None:
    assert sorted([Priority.BATCH, Priority.INTERACTIVE]) == [Priority.INTERACTIVE, Priority.BATCH]
    assert [priority.label for priority in Priority] == ["interactive", "batch"]


def test_work_has_its_priority_as_long_as_it_lasts() -> None:
    assert current_priority() is Priority.INTERACTIVE
    with working_for(Priority.BATCH):
        assert current_priority() is Priority.BATCH
    assert current_priority() is Priority.INTERACTIVE


async def test_tasks_of_the_work_have_it_and_others_do_not() -> None:
    async def told() -> Priority:
        await asyncio.sleep(0)
        return current_priority()

    with working_for(Priority.BATCH):
        of_batch = asyncio.create_task(told())
    other = asyncio.create_task(told())
    assert [await of_batch, await other] == [Priority.BATCH, Priority.INTERACTIVE]


@pytest.mark.parametrize("priority", list(Priority))
async def test_the_called_service_goes_on_with_the_priority_of_the_caller(priority: Priority) -> None:
    with working_for(priority):
        sent = metadata()

    async def served() -> Priority:
        async with guarded("/S/M", context=LocalContext(None, sent)):
            return current_priority()

    assert await asyncio.create_task(served()) is priority


@pytest.mark.parametrize("value", ["", "urgent", "BATCH"])
def test_a_priority_that_is_not_known_is_the_usual_one(value: str) -> None:
    with working_for(Priority.BATCH):
        enter_priority([("dl4all-priority", value)])
        assert current_priority() is Priority.INTERACTIVE
        enter_priority(None)
        assert priority_metadata() == ()
