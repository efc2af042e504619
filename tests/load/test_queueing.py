"""The simulation against theory: M/M/1, M/D/1, M/M/1/K, M/M/2, and shared cores."""

from __future__ import annotations

import math

import pytest

from tests.load.queueing import Part, Service, always, exponential, resampled, simulate

IMAGES = 60_000


@pytest.mark.parametrize("load", [0.3, 0.7, 0.85])
def test_times_without_memory_wait_as_in_mm1(load: float) -> None:
    found = simulate(Service([Part("one", 1.0)], work=exponential), load, IMAGES, seed=1)
    assert found.latencies.mean() == pytest.approx(1.0 / (1.0 - load), rel=0.1)
    assert found.percentile(0.95) == pytest.approx(-math.log(0.05) / (1.0 - load), rel=0.1)
    assert found.busy["one"] == pytest.approx(load, rel=0.03)
    assert found.refused == 0


@pytest.mark.parametrize("load", [0.3, 0.7, 0.85])
def test_equal_times_wait_half_as_long(load: float) -> None:
    found = simulate(Service([Part("one", 1.0)], work=always), load, IMAGES, seed=2)
    assert found.latencies.mean() == pytest.approx(1.0 + load / (2.0 * (1.0 - load)), rel=0.06)
    assert found.latencies.min() == pytest.approx(1.0)


def test_two_servers_wait_as_in_mm2() -> None:
    load = 0.8
    found = simulate(Service([Part("two", 1.0, servers=2)], work=exponential), 2 * load, IMAGES, seed=3)
    assert found.latencies.mean() == pytest.approx(1.0 / (1.0 - load**2), rel=0.06)


def test_what_finds_no_room_is_refused_as_in_mm1k() -> None:
    load, room = 2.0, 5
    found = simulate(Service([Part("one", 1.0)], room=room, work=exponential), load, IMAGES, seed=4)
    refused = (1 - load) * load**room / (1 - load ** (room + 1))
    assert found.refused_share == pytest.approx(refused, rel=0.03)
    assert found.percentile(1.0) < 25.0


def test_two_parts_in_a_row_are_independent_queues() -> None:
    draws = [Part("first", 1.0), Part("second", 0.5)]
    found = simulate(Service(draws, work=always), 0.6, IMAGES, seed=5)
    assert found.latencies.mean() == pytest.approx(1.0 + 0.6 / 0.8 + 0.5, rel=0.03)
    assert found.busy["second"] == pytest.approx(0.3, rel=0.03)


def test_parts_that_share_cores_are_no_faster_than_the_cores() -> None:
    parts = [Part("first", 0.5, 2, "machine"), Part("second", 0.5, 2, "machine")]
    shared = simulate(Service(parts, {"machine": 1}), 0.7, IMAGES, seed=6)
    apart = simulate(Service([Part("first", 0.5), Part("second", 0.5)]), 0.7, IMAGES, seed=6)
    assert shared.percentile(0.95) > apart.percentile(0.95)
    overloaded = simulate(Service(parts, {"machine": 1}, room=10), 3.0, 5_000, seed=6)
    assert 1.0 - overloaded.refused_share == pytest.approx(1 / 3, rel=0.05)


def test_delay_uses_no_core() -> None:
    found = simulate(Service([Part("one", 1.0)], delay=2.0), 0.01, 2_000, seed=7)
    assert found.percentile(0.5) == pytest.approx(3.0)


def test_the_same_seed_gives_the_same_result() -> None:
    service = Service([Part("one", 1.0)], work=resampled([1.0, 2.0, 6.0]))
    one, two = simulate(service, 0.5, 3_000, seed=8), simulate(service, 0.5, 3_000, seed=8)
    assert one.latencies.tolist() == two.latencies.tolist()
    assert simulate(service, 0.5, 3_000, seed=9).latencies.tolist() != one.latencies.tolist()
    assert one.busy["one"] == pytest.approx(0.5, rel=0.1)


def test_without_images_there_is_nothing() -> None:
    found = simulate(Service([Part("one", 1.0)]), 1.0, 0)
    assert math.isnan(found.percentile(0.5))
    assert found.refused_share == 0.0
