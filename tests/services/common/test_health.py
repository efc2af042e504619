"""Tests of readiness and of the health service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common import health
from services.common.health import LIVE, HealthServicer, Needs, Readiness, composed, model_name, release_name

SERVING, NOT_SERVING, UNKNOWN = 1, 2, 3
NAME = "dl4all.test.v1.TestService"


class Part:
    """A dependency; ready, not ready, broken or hanging, as a test says."""

    def __init__(self) -> None:
        self.ready: bool | None = True
        self.error: Exception | None = None
        self.probed = 0

    async def probe(self) -> bool:
        self.probed += 1
        if self.error is not None:
            raise self.error
        if self.ready is None:
            await asyncio.sleep(60)
        return bool(self.ready)


@pytest.fixture
def parts() -> dict[str, Part]:
    return {"net/1": Part(), "other/1": Part()}


@pytest.fixture
def readiness(parts: dict[str, Part]) -> Readiness:
    needs = Needs({n: p.probe for n, p in parts.items()}, {"first": ["net/1"], "second": ["net/1", "other/1"]}, "first", tuple(parts))
    return Readiness([NAME], {NAME: lambda: needs}, timeout=0.2)


async def test_all_is_well(readiness: Readiness) -> None:
    names = ("", NAME, LIVE, release_name("first"), release_name("second"), model_name("net/1"), model_name("other/1"))
    assert await readiness.statuses() == dict.fromkeys(names, SERVING)


@pytest.mark.parametrize("how", ["not ready", "broken", "hanging"])
async def test_the_default_release_decides(readiness: Readiness, parts: dict[str, Part], how: str) -> None:
    def spoil(part: Part) -> None:
        part.ready = {"not ready": False, "broken": True, "hanging": None}[how]
        part.error = OSError("gone") if how == "broken" else None

    spoil(parts["other/1"])
    found = await readiness.statuses()
    assert (found[""], found[NAME], found[release_name("first")], found[release_name("second")]) == (SERVING, SERVING, SERVING, NOT_SERVING)
    spoil(parts["net/1"])
    found = await readiness.statuses()
    assert {name: status for name, status in found.items() if status == SERVING} == {LIVE: SERVING}


async def test_recovery_needs_nothing(readiness: Readiness, parts: dict[str, Part]) -> None:
    parts["net/1"].ready = False
    assert (await readiness.statuses())[""] == NOT_SERVING
    parts["net/1"].ready = True
    assert (await readiness.statuses())[""] == SERVING


async def test_draining_is_not_serving_but_live(readiness: Readiness) -> None:
    readiness.drain()
    found = await readiness.statuses()
    assert found.pop(LIVE) == SERVING
    assert set(found.values()) == {NOT_SERVING}


async def test_checks_that_come_together_share_one_round(readiness: Readiness, parts: dict[str, Part]) -> None:
    await asyncio.gather(*(readiness.statuses() for _ in range(50)))
    assert parts["net/1"].probed == 1
    await readiness.statuses()
    assert parts["net/1"].probed == 2


async def test_a_service_without_releases_needs_all_that_it_names(parts: dict[str, Part]) -> None:
    readiness = Readiness([NAME], {NAME: lambda: Needs({"net/1": parts["net/1"].probe})}, timeout=0.2)
    assert (await readiness.statuses())[""] == SERVING
    parts["net/1"].ready = False
    assert (await readiness.statuses())[""] == NOT_SERVING


async def test_what_composes_others_needs_all_that_they_need(parts: dict[str, Part]) -> None:
    net, other = parts.values()
    inner = {
        "patching": lambda: Needs({"disk": net.probe}),
        "classification": lambda: Needs({"net/1": other.probe}, {"first": ["net/1"]}, "first"),
        "retrieval": lambda: Needs({}, {"first": [], "second": []}, "first"),
    }
    readiness = Readiness([NAME], {NAME: composed(inner)}, timeout=0.2)
    found = await readiness.statuses()
    assert (found[NAME], found[release_name("first")]) == (SERVING, SERVING)
    assert found[release_name("second")] == NOT_SERVING, "classification does not hold it"
    for part in (net, other):
        part.ready = False
        assert (await readiness.statuses())[NAME] == NOT_SERVING
        part.ready = True
    assert (await readiness.statuses())[NAME] == SERVING


async def test_services_that_need_the_same_share_its_probes(parts: dict[str, Part]) -> None:
    part = parts["net/1"]
    shared = composed({"classification": lambda: Needs({"net/1": part.probe})})
    readiness = Readiness(["a", "b"], {"a": shared, "b": shared}, timeout=0.2)
    part.ready = False
    found = await readiness.statuses()
    assert (found["a"], found["b"], part.probed) == (NOT_SERVING, NOT_SERVING, 1)


async def test_a_release_that_is_taken_in_is_named_and_may_become_the_default(parts: dict[str, Part]) -> None:
    releases, default = {"first": ["net/1"]}, ["first"]
    readiness = Readiness([NAME], {NAME: lambda: Needs({n: p.probe for n, p in parts.items()}, releases, default[0])}, timeout=0.2)
    assert release_name("second") not in await readiness.statuses()
    releases["second"] = ["other/1"]
    parts["other/1"].ready = False
    found = await readiness.statuses()
    assert (found[release_name("first")], found[release_name("second")], found[""]) == (SERVING, NOT_SERVING, SERVING)
    default[0] = "second"
    assert (await readiness.statuses())[""] == NOT_SERVING
    parts["other/1"].ready = True
    found = await readiness.statuses()
    assert (found[release_name("second")], found[""]) == (SERVING, SERVING)


@asynccontextmanager
async def served(servicer: HealthServicer) -> AsyncIterator[Any]:
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await servicer.start()
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield health_pb2_grpc.HealthStub(channel)
    finally:
        await servicer.stop()
        await server.stop(5)


async def test_check_probes_now_and_refuses_unknown_names(readiness: Readiness, parts: dict[str, Part]) -> None:
    async with served(HealthServicer(readiness, interval=60)) as stub:
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == SERVING
        parts["net/1"].ready = False
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="nobody"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_watch_says_what_is_then_what_changes_and_ends_with_the_server(readiness: Readiness, parts: dict[str, Part]) -> None:
    servicer = HealthServicer(readiness, interval=0.05)
    seen: list[int] = []
    async with served(servicer) as stub:

        async def watch() -> None:
            call = stub.Watch(health_pb2.HealthCheckRequest(service=NAME))
            while (answer := await call.read()) is not grpc.aio.EOF:
                seen.append(answer.status)

        async def until(count: int) -> None:
            async with asyncio.timeout(10):
                while len(seen) < count:
                    await asyncio.sleep(0.01)

        watching = asyncio.create_task(watch())
        await until(1)
        for number, ready in enumerate((False, True), start=2):
            parts["net/1"].ready = ready
            await until(number)
        readiness.drain()
        await until(4)
        await servicer.stop()
        await asyncio.wait_for(watching, 10)
    assert seen == [SERVING, NOT_SERVING, SERVING, NOT_SERVING]


async def test_so_many_may_watch_and_no_more(readiness: Readiness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MAX_WATCHERS", 1)
    async with served(HealthServicer(readiness, interval=0.05)) as stub, asyncio.timeout(10):
        first = stub.Watch(health_pb2.HealthCheckRequest(service=LIVE))
        assert (await first.read()).status == SERVING
        second = stub.Watch(health_pb2.HealthCheckRequest(service=LIVE))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await second.read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        first.cancel()
        while True:
            third = stub.Watch(health_pb2.HealthCheckRequest(service=LIVE))
            try:
                assert (await third.read()).status == SERVING
            except grpc.aio.AioRpcError:
                continue
            break


async def test_a_server_that_accepts_nothing_is_not_serving(parts: dict[str, Part]) -> None:
    accepts = [True]
    readiness = Readiness([NAME], {NAME: Needs}, 0.2, lambda: accepts[0])
    assert (await readiness.statuses())[NAME] == SERVING
    accepts[0] = False
    found = await readiness.statuses()
    assert (found[NAME], found[""], found[LIVE]) == (NOT_SERVING, NOT_SERVING, SERVING)


async def test_watch_of_an_unknown_name_waits_for_it(readiness: Readiness) -> None:
    async with served(HealthServicer(readiness, interval=0.05)) as stub:
        call = stub.Watch(health_pb2.HealthCheckRequest(service="nobody"))
        assert (await call.read()).status == UNKNOWN
        call.cancel()


async def test_watch_of_a_release_hears_when_it_is_taken_in() -> None:
    releases: dict[str, tuple[str, ...]] = {}
    readiness = Readiness([NAME], {NAME: lambda: Needs(releases=releases)}, timeout=0.2)
    async with served(HealthServicer(readiness, interval=0.05)) as stub, asyncio.timeout(10):
        call = stub.Watch(health_pb2.HealthCheckRequest(service=release_name("new")))
        assert (await call.read()).status == UNKNOWN
        releases["new"] = ()
        assert (await call.read()).status == SERVING
        call.cancel()


async def test_a_service_that_cannot_tell_its_needs_is_not_serving_and_is_probed_again() -> None:
    broken = True

    def needs() -> Needs:
        if broken:
            raise OSError("a folder went away")
        return Needs()

    readiness = Readiness([NAME], {NAME: needs}, timeout=0.2)
    assert await readiness.statuses() == {"": NOT_SERVING, NAME: NOT_SERVING, LIVE: SERVING}
    broken = False
    assert (await readiness.statuses())[NAME] == SERVING


async def test_looking_goes_on_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    readiness = Readiness([NAME], {NAME: Needs}, timeout=0.2)
    health = HealthServicer(readiness, interval=0.01)
    await health.start()
    looked, again, statuses = 0, asyncio.Event(), readiness.statuses

    async def failing() -> dict[str, int]:
        nonlocal looked
        looked += 1
        if looked == 1:
            raise OSError("once")
        again.set()
        return await statuses()

    monkeypatch.setattr(readiness, "statuses", failing)
    async with asyncio.timeout(10):
        await again.wait()
    await health.stop()
