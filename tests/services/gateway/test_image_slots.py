"""Slots for images: so many at once, others wait until their deadline."""

from __future__ import annotations

import pytest

from services.gateway.deadline import Deadline
from services.gateway.image_slots import ImageSlots


async def test_a_slot_is_free_again_after_a_failure_and_waiting_ends_at_the_deadline() -> None:
    slots = ImageSlots(1)

    async def fail() -> None:
        async with slots.taken(Deadline(5.0)):
            with pytest.raises(TimeoutError):
                async with slots.taken(Deadline(0.01)):
                    pass
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    async with slots.taken(Deadline(5.0)):
        pass
