"""Leases: one holder, a rising token, fencing."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clients.batch.errors import LeaseLostError
from clients.batch.lease import LEASE_SECONDS, Claimer, newest
from clients.batch.plan import shard_folder
from clients.batch.store import Store


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path) if request.param == "folder" else f"memory://{tmp_path.name}-lease")


def claim(store: Store, shard: int = 0) -> int | None:
    lease = Claimer(store).claim(shard)
    return None if lease is None else lease.token


def test_a_shard_has_one_holder_and_a_rising_token(store: Store) -> None:
    first = Claimer(store).claim(0)
    assert first is not None
    assert first.token == 1
    assert claim(store) is None
    assert claim(store, 1) == 1
    first.release(3, 1)
    assert newest(store, 0).token == 1
    assert claim(store) == 2


def test_of_many_claimers_one_gets_the_shard(store: Store) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: claim(store), range(24)))
    assert found.count(1) == 1
    assert found.count(None) == 23


def test_a_silent_holder_loses_the_shard_and_is_told(store: Store) -> None:
    holder = Claimer(store).claim(0)
    assert holder is not None
    clock = Clock()
    other = Claimer(store, clock=clock)
    assert other.claim(0) is None
    clock.now = LEASE_SECONDS - 0.1
    assert other.claim(0) is None
    holder.renew(1, 0)
    clock.now = LEASE_SECONDS + 0.1
    assert other.claim(0) is None, "it has said something meanwhile"
    clock.now = 2 * LEASE_SECONDS + 0.3
    taken = other.claim(0)
    assert taken is not None
    assert taken.token == 2
    with pytest.raises(LeaseLostError, match="taken over"):
        holder.check()
    with pytest.raises(LeaseLostError):
        holder.renew(2, 0)
    taken.check()


def test_a_holder_that_was_silent_for_too_long_stops_by_itself(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = Claimer(store).claim(0)
    assert holder is not None
    clock = Clock()
    clock.now = holder._written + LEASE_SECONDS + 1
    monkeypatch.setattr("clients.batch.lease.time.monotonic", clock)
    with pytest.raises(LeaseLostError, match="silent for too long"):
        holder.renew(0, 0)


def test_a_holder_of_this_machine_that_has_ended_is_followed_at_once(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    program = "import sys; from clients.batch.lease import Claimer; from clients.batch.store import Store; print(Claimer(Store(sys.argv[1])).claim(0).token)"
    done = subprocess.run([sys.executable, "-c", program, store.location], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
    assert claim(store) == 2


def test_what_a_holder_says_is_read(store: Store) -> None:
    holder = Claimer(store).claim(0)
    assert holder is not None
    holder.renew(5, 2)
    beat = newest(store, 0).beat
    assert beat is not None
    assert (beat.done, beat.failed, beat.is_released) == (5, 2, False)
    holder.release(6, 2)
    beat = newest(store, 0).beat
    assert beat is not None
    assert beat.is_released


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", json.dumps({"worker": "x"}).encode()])
def test_an_unreadable_lease_is_held_until_it_is_silent(store: Store, content: bytes) -> None:
    store.write(f"{shard_folder(0)}/lease-000004.json", content)
    clock = Clock()
    other = Claimer(store, clock=clock)
    assert other.claim(0) is None
    clock.now = LEASE_SECONDS + 1
    lease = other.claim(0)
    assert lease is not None
    assert lease.token == 5
