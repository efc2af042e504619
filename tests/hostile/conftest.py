"""One victim for all attacks; its limits are scaled down."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from dl4all_client import DiagnosisClient
from services.common.phantom import PhantomOptions, encode_png, smear_field
from tests.hostile.victim import SCALED, GoodClient, judged, resident_bytes, start_victim
from tests.running import Running


@pytest.fixture(scope="package")
def field() -> bytes:
    return encode_png(smear_field(3, PhantomOptions(width=480, height=360, cells=4)))


@pytest.fixture(scope="package")
def victim() -> Iterator[Running]:
    running = start_victim(SCALED)
    yield running
    running.end()


@pytest.fixture(scope="package")
def attacked(victim: Running) -> str:
    """Where attackers connect."""
    return f"127.0.0.1:{victim.part.port}"


@pytest.fixture(scope="package")
def right(victim: Running, field: bytes) -> tuple[int, list[float]]:
    with DiagnosisClient(victim.address, timeout=60.0) as client:
        for _ in range(5):
            client.diagnose(field)
        return judged(client.diagnose(field))


@pytest.fixture
def good(victim: Running, field: bytes, right: tuple[int, list[float]]) -> Iterator[GoodClient]:
    """A good client with an address of its own; it must have got every answer, and each must have been right."""
    client = GoodClient(f"[::1]:{victim.part.port}", field, right)
    yield client
    assert client.seconds, "the good client never called"
    assert client.wrong == []


@pytest.fixture
def growth(victim: Running, right: object) -> Callable[[], int]:
    """Bytes by which the memory of the victim has grown since the test began."""
    before = resident_bytes(victim)
    return lambda: resident_bytes(victim) - before
