"""Measure one workload on one target: unloaded, at ever more calls in flight, and in open loops below its capacity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.load.arrivals import fixed, poisson
from tests.load.calls import TIMEOUT, Call, Caller, Outcome
from tests.load.figures import steady_rate
from tests.load.loops import closed_loop, open_loop
from tests.load.metering import Meter
from tests.load.progress import Bars
from tests.load.results import ClosedStep, Ends, Latency, OpenStep, WorkloadResult
from tests.load.targets import Target

IN_FLIGHT: Final = (1, 2, 3, 4, 6, 8, 12, 16)
SHARES: Final = (0.5, 0.7, 0.9)
ENOUGH: Final = 0.97
"""The fewest calls in flight that reach this share of the highest rate give the capacity."""
_GAIN: Final = 1.03
"""The search ends after two steps that gain less."""


@dataclass(frozen=True)
class Plan:
    """How long to measure.

    Attributes:
        seconds: of each open loop, and of the loop that gives the capacity.
        search_seconds: of each closed loop of the search.
        in_flight: numbers of the search.
        shares: of the capacity that open loops offer.
        arrivals: ``poisson`` or ``fixed``.
        seed: of the arrivals.
        timeout: deadline of a call, seconds.
    """

    seconds: float
    search_seconds: float
    in_flight: Sequence[int] = IN_FLIGHT
    shares: Sequence[float] = SHARES
    arrivals: str = "poisson"
    seed: int = 1
    timeout: float = TIMEOUT

    @property
    def total(self) -> float:
        """Seconds that all of it takes, about."""
        return self.search_seconds * len(self.in_flight) + self.seconds * (1 + len(self.shares))

    def times(self, rate: float, number: int) -> list[float]:
        """When to send in an open loop, seconds."""
        return list(fixed(rate, self.seconds) if self.arrivals == "fixed" else poisson(rate, self.seconds, self.seed + number))


async def measure(target: Target, workload: str, images: Sequence[bytes], plan: Plan, bars: Bars, result: WorkloadResult) -> None:
    """Fill a result step by step, so that what there is remains where the test is ended early."""
    name = f"{target.name}, {workload}"
    async with Caller(target, images, plan.timeout) as caller:
        for image in range(min(len(images), 8)):
            await caller.call(float(image))
        await find_capacity(caller, target, name, plan, bars, result)
        if result.capacity is None or result.capacity.rate <= 0.0:
            return
        for number, share in enumerate(plan.shares):
            step = await offer(caller, target, name, plan, bars, share, number, result)
            result.open.append(step)


async def find_capacity(caller: Caller, target: Target, name: str, plan: Plan, bars: Bars, result: WorkloadResult) -> None:
    """Closed loops with ever more calls in flight, then the best of them once more."""
    idle = 0
    for in_flight in plan.in_flight:
        best = max((step.rate for step in result.search), default=0.0)
        async with bars.phase(f"{name}: {in_flight} in flight", plan.search_seconds):
            step, _ = await closed_step(caller, target, in_flight, plan.search_seconds)
        result.search.append(step)
        if step.rate <= 0.0:
            break
        if in_flight == 1:
            result.unloaded = step
        idle = idle + 1 if step.rate < _GAIN * best else 0
        if idle == 2:
            break
    chosen = fewest_for_capacity([(step.in_flight, step.rate) for step in result.search])
    async with bars.phase(f"{name}: capacity, {chosen} in flight", plan.seconds):
        result.capacity, calls = await closed_step(caller, target, chosen, plan.seconds)
    answered = [call.cells for call in calls if call.outcome is Outcome.ANSWERED]
    result.cells_per_image = round(sum(answered) / max(len(answered), 1), 3)


def fewest_for_capacity(steps: Sequence[tuple[int, float]]) -> int:
    """The fewest calls in flight, of (calls in flight, rate), that reach ``ENOUGH`` of the highest rate."""
    most = max(rate for _, rate in steps)
    return min(in_flight for in_flight, rate in steps if rate >= ENOUGH * most)


async def offer(caller: Caller, target: Target, name: str, plan: Plan, bars: Bars, share: float, number: int, result: WorkloadResult) -> OpenStep:
    """An open loop at a share of the capacity."""
    assert result.capacity is not None
    calls: list[Call] = []
    arrivals = plan.times(share * result.capacity.rate, number)
    async with bars.phase(f"{name}: open loop, {share:.0%}", plan.seconds):
        meter = Meter(target)
        caller.start()
        await open_loop(caller, arrivals, calls.append)
    ends = Ends.of(calls)
    usual = 0.0 if result.capacity.latency is None else result.capacity.latency.p50 / 1000.0
    return OpenStep(
        share=share,
        offered=round(len(arrivals) / plan.seconds, 3),
        kept_up=round(kept_up(calls, plan.seconds, usual), 4),
        latency=Latency.of(calls),
        ends=ends,
        usage=meter.usage(ends.answered),
    )


def kept_up(calls: Sequence[Call], seconds: float, latency: float) -> float:
    """Answered rate over offered rate while calls were sent; above 1 is 1.

    Args:
        calls: all of an open loop.
        seconds: how long calls were sent.
        latency: at capacity, seconds; a call that is sent later than so long before the end is not expected to have an answer.
    """
    offered = sum(call.intended <= seconds - latency for call in calls)
    answered = sum(call.outcome is Outcome.ANSWERED and call.ended <= seconds for call in calls)
    return min(answered / offered, 1.0) if offered else 0.0


async def closed_step(caller: Caller, target: Target, in_flight: int, seconds: float) -> tuple[ClosedStep, list[Call]]:
    """A closed loop, and its calls."""
    calls: list[Call] = []
    meter = Meter(target)
    await closed_loop(caller, in_flight, seconds, calls.append)
    rate = steady_rate([call.ended for call in calls if call.outcome is Outcome.ANSWERED], in_flight)
    ends = Ends.of(calls)
    return ClosedStep(in_flight, round(rate, 3), Latency.of(calls), ends, meter.usage(ends.answered)), calls
