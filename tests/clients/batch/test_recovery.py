"""Waiting for a gateway."""

from __future__ import annotations

import asyncio
import time

import pytest

from clients.batch.errors import GatewayNotReadyError
from clients.batch.recovery import Recovery


class Health:
    def __init__(self, *answers: bool) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, release: str) -> bool:
        self.asked += 1
        return self.answers.pop(0) if self.answers else True


async def test_it_holds_everything_back_until_the_gateway_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clients.batch.recovery._FIRST_PAUSE", 0.01)
    health = Health(False, False, True)
    recovery = Recovery(health)
    waiting = asyncio.ensure_future(recovery.wait("r", "gone", time.monotonic()))
    await asyncio.sleep(0)
    passing = asyncio.ensure_future(recovery.passed())
    await asyncio.sleep(0.005)
    assert not passing.done()
    await waiting
    await asyncio.wait_for(passing, 1.0)
    assert health.asked == 3


async def test_images_of_one_outage_wait_once() -> None:
    health = Health()
    recovery = Recovery(health)
    sent = time.monotonic()
    await asyncio.gather(*(recovery.wait("r", "gone", sent) for _ in range(5)))
    assert health.asked == 1
    await recovery.wait("r", "gone", time.monotonic())
    assert health.asked == 2


async def test_it_gives_up_after_its_patience() -> None:
    recovery = Recovery(Health(*[False] * 100), patience=0.1)
    with pytest.raises(GatewayNotReadyError, match="connection refused"):
        await recovery.wait("r", "connection refused", time.monotonic())
    await asyncio.wait_for(recovery.passed(), 1.0)
    with pytest.raises(GatewayNotReadyError, match="refuses all images"):
        recovery.hold(0.0)


async def test_a_pause_that_the_gateway_asks_for_is_kept() -> None:
    recovery = Recovery(Health())
    recovery.hold(0.05)
    recovery.hold(0.01)
    started = time.monotonic()
    await recovery.passed()
    assert time.monotonic() - started >= 0.045
