"""One victim for all attacks; its limits are scaled down."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from dl4all_client import DiagnosisClient
from services.common.phantom import PhantomOptions, encode_png, smear_field
from tests.hostile.victim import FULL, MIB, SETTINGS, GoodClient, judged, resident_bytes, start_victim
from tests.paths import ROOT
from tests.running import Running, eventually

RECORD: Final = ROOT / "build" / "hostile.jsonl"


@pytest.fixture(scope="package")
def field() -> bytes:
    return encode_png(smear_field(3, PhantomOptions(width=480, height=360, cells=4)))


@pytest.fixture(scope="package")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The victim's own copy of the releases."""
    return Path(shutil.copytree(ROOT / "releases", tmp_path_factory.mktemp("victim") / "releases"))


@pytest.fixture(scope="package")
def victim(releases: Path) -> Iterator[Running]:
    own = {"DL4ALL_RELEASES": str(releases), "DL4ALL_RETRIEVAL_ADDITIONS": str(releases.parent / "additions.sqlite")}
    running = start_victim({**SETTINGS, **own})
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


@pytest.fixture(scope="package")
def usual_seconds(victim: Running, field: bytes, right: tuple[int, list[float]]) -> float:
    """Longest of many undisturbed calls; measured in the nightly form only."""
    client = GoodClient(f"[::1]:{victim.part.port}", field, right, victim)
    with client.at_work():
        time.sleep(30.0 if FULL else 0.0)
    return max(client.seconds)


@pytest.fixture
def good(victim: Running, field: bytes, right: tuple[int, list[float]], usual_seconds: float, request: pytest.FixtureRequest) -> Iterator[GoodClient]:
    """A good client with an address of its own; it must have got every answer, and each must have been right."""
    client = GoodClient(f"[::1]:{victim.part.port}", field, right, victim)
    before = resident_bytes(victim)
    yield client
    assert client.seconds, "the good client never called"
    assert client.wrong == []
    eventually(lambda: victim.metrics()("dl4all_admission_held") == 0.0, what="all slots and bytes are given back")
    if FULL:
        figures = {
            "attack": request.node.name,
            "answers": len(client.seconds),
            "share_within_twice_the_usual": round(client.share_within(2.0 * usual_seconds), 3),
            "longest_seconds": round(max(client.seconds), 2),
            "usual_seconds": round(usual_seconds, 2),
            "grown_mib": (client.peak - before) // MIB,
        }
        RECORD.parent.mkdir(exist_ok=True)
        with RECORD.open("a") as record:
            record.write(json.dumps(figures) + "\n")


@pytest.fixture
def growth(victim: Running, right: object) -> Callable[[], int]:
    """Bytes by which the memory of the victim has grown since the test began."""
    before = resident_bytes(victim)
    return lambda: resident_bytes(victim) - before
