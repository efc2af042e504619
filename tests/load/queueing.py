"""A simulation of a service as queues: discrete events, seeded, no clock and no files.

Images arrive at random and pass through parts, one after the other. A part has so many servers, which are worker threads or replicas, and may share the
cores of a machine with other parts. Whoever finds no free server or no free core waits, first come, first served. A service holds so many images at
most; what comes beyond that is refused at once.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

Draw = Callable[[np.random.Generator], float]
"""Draws how much larger than the mean the work of an image is; mean 1."""
_ARRIVE: Final = 0
_DONE: Final = 1


def always(_: np.random.Generator) -> float:
    """Every image takes the mean."""
    return 1.0


def exponential(draws: np.random.Generator) -> float:
    """Times without memory, as in M/M/1."""
    return float(draws.exponential())


def resampled(measured: Sequence[float]) -> Draw:
    """Times as they were measured, scaled to the mean 1.

    Args:
        measured: times of single calls, in any unit.
    """
    values = np.asarray(measured, np.float64) / np.mean(measured)
    return lambda draws: float(values[int(draws.integers(len(values)))])


@dataclass(frozen=True)
class Part:
    """A part of a service.

    Attributes:
        name: of the part.
        seconds: mean time of an image on one server, s.
        servers: images that it works on at once.
        machine: whose cores it shares; empty where every server has a core of its own.
    """

    name: str
    seconds: float
    servers: int = 1
    machine: str = ""


@dataclass(frozen=True)
class Service:
    """What is simulated.

    Attributes:
        parts: in the order in which an image passes through them.
        cores: of each machine.
        room: images that the service holds at most, waiting ones included; 0 for no bound.
        delay: seconds that every image takes besides, without using a core.
        work: how images differ.
    """

    parts: Sequence[Part]
    cores: Mapping[str, int] = field(default_factory=dict)
    room: int = 0
    delay: float = 0.0
    work: Draw = always


@dataclass(frozen=True)
class Simulated:
    """What came of it.

    Attributes:
        latencies: of the answered images, s, in the order of their ends.
        offered, refused: images.
        busy: share 0..1 of the time of its servers in which a part worked or waited for a core, by part.
        seconds: when the last image ended.
    """

    latencies: np.ndarray
    offered: int
    refused: int
    busy: Mapping[str, float]
    seconds: float

    def percentile(self, share: float) -> float:
        """Latency below which a share 0..1 of the answered images lies, s; NaN without any."""
        return float(np.quantile(self.latencies, share)) if len(self.latencies) else float("nan")

    @property
    def refused_share(self) -> float:
        """Share 0..1 of the images that was refused."""
        return self.refused / max(self.offered, 1)


@dataclass
class _Image:
    arrived: float
    size: float
    stage: int = 0


class _Run:
    """The state of a simulation."""

    def __init__(self, service: Service, seed: int) -> None:
        self.service = service
        self.draws = np.random.default_rng(seed)
        self.events: list[tuple[float, int, int, _Image]] = []
        self.order = itertools.count()
        self.free = [part.servers for part in service.parts]
        self.cores = dict(service.cores)
        self.queues: list[deque[_Image]] = [deque() for _ in service.parts]
        self.wanting_core: dict[str, deque[_Image]] = {machine: deque() for machine in service.cores}
        self.inside = 0
        self.busy = [0.0] * len(service.parts)
        self.holding: dict[int, float] = {}

    def later(self, now: float, kind: int, image: _Image) -> None:
        heapq.heappush(self.events, (now, next(self.order), kind, image))

    def enter(self, now: float, image: _Image) -> None:
        """An image comes to its next part."""
        if self.free[image.stage]:
            self.serve(now, image)
        else:
            self.queues[image.stage].append(image)

    def serve(self, now: float, image: _Image) -> None:
        """An image gets a server; it may have to wait for a core."""
        self.free[image.stage] -= 1
        self.holding[id(image)] = now
        machine = self.service.parts[image.stage].machine
        if machine and not self.cores[machine]:
            self.wanting_core[machine].append(image)
        else:
            self.work(now, image)

    def work(self, now: float, image: _Image) -> None:
        part = self.service.parts[image.stage]
        if part.machine:
            self.cores[part.machine] -= 1
        self.later(now + part.seconds * image.size, _DONE, image)

    def leave(self, now: float, image: _Image) -> None:
        """An image is done with a part: its core and its server go to whoever waits."""
        stage = image.stage
        part = self.service.parts[stage]
        self.busy[stage] += now - self.holding.pop(id(image))
        self.free[stage] += 1
        if part.machine:
            self.cores[part.machine] += 1
            if self.wanting_core[part.machine]:
                self.work(now, self.wanting_core[part.machine].popleft())
        if self.queues[stage]:
            self.serve(now, self.queues[stage].popleft())


def simulate(service: Service, rate: float, images: int, seed: int = 1, warm: float = 0.1) -> Simulated:
    """Let images arrive at random (Poisson) until all have been answered or refused.

    Args:
        service: what they pass through.
        rate: images per second.
        images: that arrive.
        seed: of all draws; the same seed gives the same result.
        warm: share 0..1 of the images, the first ones, whose latencies do not count.
    """
    run = _Run(service, seed)
    arrivals = np.cumsum(run.draws.exponential(1.0 / rate, images)).tolist()
    for arrival in arrivals:
        run.later(arrival, _ARRIVE, _Image(arrival, 0.0))
    counted_from = arrivals[int(warm * images)] if images else 0.0
    latencies: list[float] = []
    refused, offered, now = 0, 0, 0.0
    while run.events:
        now, _, kind, image = heapq.heappop(run.events)
        counts = image.arrived >= counted_from
        if kind == _ARRIVE:
            offered += counts
            if service.room and run.inside >= service.room:
                refused += counts
                continue
            run.inside += 1
            image.size = service.work(run.draws)
            run.enter(now, image)
            continue
        run.leave(now, image)
        image.stage += 1
        if image.stage < len(service.parts):
            run.enter(now, image)
            continue
        run.inside -= 1
        if counts:
            latencies.append(now - image.arrived + service.delay)
    busy = {part.name: total / (part.servers * now) if now else 0.0 for part, total in zip(service.parts, run.busy, strict=True)}
    return Simulated(np.array(latencies), offered, refused, busy, now)
