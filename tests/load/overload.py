"""Overload test: four times as many images as the service can answer, and somebody who waits for an answer meanwhile.

    make load-overload                               # about half an hour
    python -m tests.load.overload --target embedded --short

First the capacity is measured, as the load test does. Then three runs, each of four parts:

  calm       interactive images alone at 70 % of the capacity (open loop)
  peak       as many callers as reached the capacity, each waiting for its answer (closed loop)
  overload   images with priority BATCH at four times the capacity, and interactive images at 20 % of it
  after      interactive images at 20 % go on alone

Reported are medians of the three runs: answers per second under overload over those of the peak just before, the time to a refusal, the
99th percentile of interactive calls under overload over that in calm, calls that were lost, memory, and the time until
latency is as before. Exit status 1 where a threshold does not hold. docs/load.md says what each figure means.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.benchmarks.workloads import LOADS
from tests.load.arrivals import poisson
from tests.load.calls import BATCH, Call, Caller, Outcome
from tests.load.loops import open_loop
from tests.load.measuring import IN_FLIGHT, Plan, closed_step, find_capacity
from tests.load.metering import Meter
from tests.load.options import parser, targets_of
from tests.load.overload_page import overload_page
from tests.load.overload_results import OverloadReport, OverloadResult, OverloadRun, by_second, checks_of, goodput, growth, recovery, refusal_ms
from tests.load.page import write_page
from tests.load.program import ended, measure_all, say_checks
from tests.load.progress import Bars, console
from tests.load.results import ClosedStep, Ends, Latency, Machine, Usage, WorkloadResult, write
from tests.load.targets import Target
from tests.load.watching import watched

SECONDS: Final = 120.0
SHORT_SECONDS: Final = 15.0
CALM: Final = 0.7
LOW: Final = 0.2
TIMES: Final = 4.0
RUNS: Final = 3
AFTER_SECONDS: Final = 10.0
_SAMPLE_SECONDS: Final = 1.0


@dataclass(frozen=True)
class OverloadPlan:
    """How long each part lasts, seconds, and how many runs there are."""

    seconds: float
    calm_seconds: float
    peak_seconds: float
    capacity: Plan
    after_seconds: float = AFTER_SECONDS
    runs: int = RUNS
    times: float = TIMES

    @property
    def total(self) -> float:
        """Seconds that all of it takes, about."""
        return self.capacity.total + self.runs * (self.seconds + self.calm_seconds + self.peak_seconds + self.after_seconds)


def plan_of(seconds: float, *, short: bool) -> OverloadPlan:
    """The plan for overloads of so many seconds."""
    numbers = (1, 4, 8) if short else IN_FLIGHT
    capacity = Plan(min(seconds, 60.0), min(max(seconds / 6, 2.5), 10.0), numbers, shares=())
    return OverloadPlan(seconds, max(seconds / 2, 8.0), max(seconds / 4, 8.0), capacity)


def arguments() -> argparse.ArgumentParser:
    """The parser of this program."""
    made = parser(__doc__, SECONDS, f"seconds of each overload, above 3; {SHORT_SECONDS:g} with --short", ("mix",))
    made.add_argument("--times", type=float, default=TIMES, help=f"how many times the capacity is offered (default: {TIMES:g})")
    made.add_argument("--runs", type=int, default=RUNS, help=f"runs whose medians count (default: {RUNS})")
    made.add_argument("--short", action="store_true", help=f"overloads of {SHORT_SECONDS:g} s, and a shorter search for the capacity")
    return made


async def overload(target: Target, images: Sequence[bytes], plan: OverloadPlan, bars: Bars, result: OverloadResult) -> None:
    """Fill a result run by run."""
    name, found = f"{target.name}, {result.workload}", WorkloadResult(target.name, result.workload)
    async with Caller(target, images) as interactive, Caller(target, images) as batch:
        for image in range(min(len(images), 8)):
            await interactive.call(float(image))
        await find_capacity(interactive, target, name, plan.capacity, bars, found)
        result.capacity = found.capacity
        if result.capacity is None or result.capacity.rate <= 0:
            return
        bars.say(f"{name}: {result.capacity.rate:.1f} images/s with {result.capacity.in_flight} in flight")
        for number in range(plan.runs):
            result.runs.append(await _run(target, interactive, batch, result.capacity, plan, bars, name, number))
            result.checks = checks_of(result)


async def _run(
    target: Target, interactive: Caller, batch: Caller, capacity: ClosedStep, plan: OverloadPlan, bars: Bars, name: str, number: int
) -> OverloadRun:
    rate = capacity.rate
    calm: list[Call] = []
    async with bars.phase(f"{name}, run {number + 1}: calm, {CALM:.0%}", plan.calm_seconds):
        interactive.start()
        await open_loop(interactive, poisson(CALM * rate, plan.calm_seconds, seed=3 * number), calm.append)
    usual = Latency.of(calm)
    async with bars.phase(f"{name}, run {number + 1}: peak, {capacity.in_flight} in flight", plan.peak_seconds):
        peak, _ = await closed_step(interactive, target, capacity.in_flight, plan.peak_seconds)

    own: list[Call] = []
    others: list[Call] = []
    watched_seconds = plan.seconds + plan.after_seconds
    async with (
        bars.phase(f"{name}, run {number + 1}: {plan.times:g} times the capacity", watched_seconds),
        watched(target.leaders, _SAMPLE_SECONDS, lambda: interactive.now) as memory,
    ):
        meter = Meter(target)
        interactive.start()
        batch.start()
        usage, _, _ = await asyncio.gather(
            _usage(meter, plan.seconds, own, others),
            open_loop(interactive, poisson(LOW * rate, watched_seconds, seed=3 * number + 1), own.append),
            open_loop(batch, poisson(plan.times * rate, plan.seconds, seed=3 * number + 2), others.append, BATCH),
        )
    under = [call for call in own if call.intended < plan.seconds]
    both = Ends.of(under), Ends.of(others)
    normal = 0.0 if usual is None else usual.p95 / 1000.0
    return OverloadRun(
        calm=usual,
        calm_ends=Ends.of(calm),
        peak=peak,
        interactive=Latency.of(under),
        goodput=round(goodput([*own, *others], plan.seconds), 3),
        refusal_ms=refusal_ms(others),
        interactive_ends=both[0],
        batch_ends=both[1],
        growth=growth(list(memory.values()), plan.seconds),
        recovery=recovery(own, plan.seconds, plan.after_seconds, normal),
        usage=usage,
        seconds=by_second(own, others, watched_seconds),
        memory=memory,
    )


async def _usage(meter: Meter, seconds: float, *calls: Sequence[Call]) -> Usage:
    """What is used in these seconds, for the images that are answered by then."""
    await asyncio.sleep(seconds)
    return meter.usage(sum(call.outcome is Outcome.ANSWERED for some in calls for call in some))


def run(given: argparse.Namespace) -> int:
    """Measure, write the results, and return the exit status."""
    seconds = float(given.seconds or (SHORT_SECONDS if given.short else SECONDS))
    if seconds <= 3:
        raise SystemExit("--seconds must be above 3.")
    base = plan_of(seconds, short=given.short)
    plan = OverloadPlan(base.seconds, base.calm_seconds, base.peak_seconds, base.capacity, runs=given.runs, times=given.times)
    names = targets_of(given)
    workloads = list(dict.fromkeys(given.workloads or ["mix"]))
    options = {"seconds": f"{seconds:g}", "times the capacity": f"{plan.times:g}", "runs": str(plan.runs)}
    report = OverloadReport(Machine.here(), options, seconds)

    def measure(target: Target, workload: str, bars: Bars) -> None:
        result = OverloadResult(target.name, workload)
        report.results.append(result)
        asyncio.run(overload(target, LOADS[workload](), plan, bars, result))

    def finish() -> None:
        write(report, given.out / "overload.json")
        write_page(overload_page(report), given.out / "overload.html")
        console.print(f"{given.out / 'overload.json'}\n{given.out / 'overload.html'}", highlight=False)

    interrupted = measure_all(report, names, workloads, plan.total, measure, finish, given.address)
    return say_checks([check for result in report.results for check in result.checks], interrupted)


def main() -> int:
    """Entry point."""
    return ended(run, arguments().parse_args())


if __name__ == "__main__":
    sys.exit(main())
