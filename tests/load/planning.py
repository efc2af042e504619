"""From measured costs to pods and cores, and to simulations of other loads. Pure: reads no file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.load.metering import GENERATOR
from tests.load.queueing import Part, Service, Simulated, resampled, simulate
from tests.load.results import OpenStep, WorkloadResult

UTILISATION: Final = 0.7
"""Share of its cores that a pod is planned to use; the load test measures latency at this load too."""
CORES_OF_POD: Final[Mapping[str, int]] = {"gateway": 1, "patching": 2, "preprocessing": 2, "classification": 1, "triton": 2, "retrieval": 1}
"""Cores that one pod of a part can use: two threads compute in patching, preprocessing and Triton (`DL4ALL_WORKERS`); one interpreter runs the rest."""
ORDER: Final = ("gateway", "patching", "preprocessing", "classification", "triton", "retrieval")
"""The way of an image."""
ROOM: Final = 64
"""Images that one gateway holds for one caller: `DL4ALL_MAX_CONCURRENT_CALLS` (72) without its reserve of a ninth."""
_HOUR: Final = 3600.0
_MACHINE: Final = "machine"


@dataclass(frozen=True)
class Pods:
    """Pods of one part.

    Attributes:
        cores_used: CPU time per second, s/s.
        pods: how many, each planned to ``UTILISATION``.
    """

    cores_used: float
    pods: int


def cost(result: WorkloadResult) -> dict[str, float]:
    """CPU milliseconds per image by part, at capacity, without the generator."""
    assert result.capacity is not None
    used = result.capacity.usage.cpu_ms_per_image
    return {part: used[part] for part in (*ORDER, *used) if part in used and part != GENERATOR}


def pods(cost_ms: Mapping[str, float], images_per_hour: float) -> dict[str, Pods]:
    """Pods for a load; at least one of each part.

    Args:
        cost_ms: CPU milliseconds per image by part.
        images_per_hour: the load.
    """
    found = {}
    for part, ms in cost_ms.items():
        used = images_per_hour / _HOUR * ms / 1000.0
        found[part] = Pods(used, max(1, math.ceil(used / (UTILISATION * CORES_OF_POD.get(part, 1)))))
    return found


def cores(found: Mapping[str, Pods]) -> int:
    """Cores of all pods."""
    return sum(pod.pods * CORES_OF_POD.get(part, 1) for part, pod in found.items())


def one_machine(result: WorkloadResult, machine_cores: int, room: int = ROOM) -> Service:
    """The measured machine with all parts on it.

    An image takes as much core time as the capacity says (cores over images per second), shared among the parts as their CPU time is. What one
    call alone takes longer than that is delay without work. How images differ is taken from the latencies of single calls.

    Args:
        result: of the load test.
        machine_cores: of the machine.
        room: images that are held at most.
    """
    assert result.capacity is not None
    assert result.unloaded is not None
    assert result.unloaded.latency is not None
    whole = machine_cores / result.capacity.rate
    by_part = cost(result)
    total = sum(by_part.values()) or 1.0
    parts = [Part(part, whole * ms / total, machine_cores, _MACHINE) for part, ms in by_part.items()] or [
        Part("service", whole, machine_cores, _MACHINE)
    ]
    delay = max(0.0, result.unloaded.latency.mean / 1000.0 - whole)
    return Service(parts, {_MACHINE: machine_cores}, room, delay, resampled(_even(result.unloaded.latency.quantiles, result.unloaded.latency.shares)))


def in_pods(result: WorkloadResult, numbers: Mapping[str, int], room: int = ROOM) -> Service:
    """So many pods of each part, each with cores of its own; an image takes the measured CPU time in each."""
    assert result.unloaded is not None
    assert result.unloaded.latency is not None
    by_part = cost(result)
    parts = [Part(part, ms / 1000.0, numbers.get(part, 1) * CORES_OF_POD.get(part, 1)) for part, ms in by_part.items()]
    work = resampled(_even(result.unloaded.latency.quantiles, result.unloaded.latency.shares))
    return Service(parts, room=room * numbers.get("gateway", 1), work=work)


def busiest(simulated: Simulated) -> tuple[str, float]:
    """The part whose servers are busy for most of the time, and for what share 0..1 of it."""
    return max(simulated.busy.items(), key=lambda item: item[1])


@dataclass(frozen=True)
class Validation:
    """A measured open loop and the simulation of the same load; latencies in ms."""

    share: float
    measured: tuple[float, float, float]
    simulated: tuple[float, float, float]

    @property
    def errors(self) -> tuple[float, ...]:
        """Simulated over measured, less 1, for p50, p95 and p99."""
        return tuple(found / wanted - 1.0 for wanted, found in zip(self.measured, self.simulated, strict=True))


def validate(result: WorkloadResult, machine_cores: int, images: int = 20_000) -> list[Validation]:
    """Simulate every open loop of a result. Only the closed loops were used to make the simulation."""
    service = one_machine(result, machine_cores)
    return [_validation(step, service, images) for step in result.open if step.latency is not None]


def _validation(step: OpenStep, service: Service, images: int) -> Validation:
    assert step.latency is not None
    found = simulate(service, step.offered, images)
    simulated = (found.percentile(0.5), found.percentile(0.95), found.percentile(0.99))
    return Validation(
        step.share, (step.latency.p50, step.latency.p95, step.latency.p99), (1000 * simulated[0], 1000 * simulated[1], 1000 * simulated[2])
    )


def _even(quantiles: Sequence[float], shares: Sequence[float]) -> list[float]:
    """Quantiles at even shares, which stand for equally many images."""
    return [value for value, share in zip(quantiles, shares, strict=True) if share < 0.99] or list(quantiles)
