"""Soak test: constant load at 70 % of the capacity for minutes or hours, and what becomes of memory, open files and threads.

    make soak MINUTES=30
    python -m tests.load.soak --minutes 240 --target five --workloads mix

First the capacity is measured, as the load test does. Then images arrive at random at 70 % of it, and every process is
looked at every few seconds. The first third of the time, ten minutes at most, is warm-up and does not count. Of the rest,
a straight line is laid through the memory of each part. Memory is constant where the confidence interval of its slope
holds 0, or where the slope is below 16 MiB or one per cent an hour. Open files and threads are constant where the median of the
last third is that of the first. Exit status 1 where something grows. docs/load.md says what each figure means.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import Final

from tests.benchmarks.workloads import LOADS
from tests.load.arrivals import poisson
from tests.load.calls import Caller
from tests.load.loops import open_loop
from tests.load.measuring import IN_FLIGHT, Plan, find_capacity
from tests.load.metering import Meter
from tests.load.options import parser, targets_of
from tests.load.page import write_page
from tests.load.program import ended, measure_all, say_checks
from tests.load.progress import Bars, console
from tests.load.results import Machine, WorkloadResult, write
from tests.load.soak_results import SoakReport, SoakResult, Totals, conclude, soak_page
from tests.load.targets import EMBEDDED, Target
from tests.load.watching import watched

MINUTES: Final = 30.0
SHARE: Final = 0.7
_CAPACITY_SECONDS: Final = 20.0


def arguments() -> argparse.ArgumentParser:
    """The parser of this program."""
    made = parser(__doc__, _CAPACITY_SECONDS, "seconds of the loop that gives the capacity", ("mix",))
    made.add_argument("--minutes", type=float, default=MINUTES, help=f"how long the load lasts, on each target (default: {MINUTES:g})")
    made.add_argument("--every", type=float, default=5.0, help="seconds between two looks at the processes (default: 5)")
    made.add_argument("--rate", type=float, help="images per second, instead of 70 %% of a measured capacity")
    return made


async def soak(target: Target, images: Sequence[bytes], given: argparse.Namespace, bars: Bars, result: SoakResult) -> None:
    """Fill a result while the load lasts, so that what there is remains where it is ended early."""
    seconds, name = 60.0 * given.minutes, f"{target.name}, {result.workload}"
    totals = Totals()
    async with Caller(target, images) as caller:
        for image in range(min(len(images), 8)):
            await caller.call(float(image))
        rate = given.rate or await _rate(caller, target, name, given.seconds or _CAPACITY_SECONDS, bars)
        result.offered = round(rate, 3)
        bars.say(f"{name}: {rate:.1f} images/s for {given.minutes:g} minutes")
        meter = Meter(target)
        caller.start()
        try:
            async with bars.phase(f"{name}: soak", seconds), watched(target.leaders, given.every, lambda: caller.now) as result.series:
                await open_loop(caller, poisson(rate, seconds, seed=1), totals.add)
        finally:
            result.totals = totals
            result.usage = meter.usage(totals.answered)
            conclude(result)


async def _rate(caller: Caller, target: Target, name: str, seconds: float, bars: Bars) -> float:
    found = WorkloadResult(target.name, name)
    await find_capacity(caller, target, name, Plan(seconds, max(seconds / 4, 2.0), IN_FLIGHT, shares=()), bars, found)
    if found.capacity is None or found.capacity.rate <= 0:
        raise SystemExit(f"{name}: no image was answered.")
    return SHARE * found.capacity.rate


def run(given: argparse.Namespace) -> int:
    """Measure, write the results, and return the exit status."""
    names = targets_of(given, (EMBEDDED, "five"))
    if given.address:
        raise SystemExit("The soak test looks into processes, so it starts them itself: give --target instead of --address.")
    workloads = list(dict.fromkeys(given.workloads or ["mix"]))
    report = SoakReport(Machine.here(), {"minutes": f"{given.minutes:g}", "load": f"{SHARE:.0%} of capacity" if given.rate is None else "given"})

    def measure(target: Target, workload: str, bars: Bars) -> None:
        result = SoakResult(target.name, workload)
        report.results.append(result)
        asyncio.run(soak(target, LOADS[workload](), given, bars, result))

    def finish() -> None:
        write(report, given.out / "soak.json")
        write_page(soak_page(report), given.out / "soak.html")
        console.print(f"{given.out / 'soak.json'}\n{given.out / 'soak.html'}", highlight=False)

    interrupted = measure_all(report, names, workloads, 60.0 * given.minutes, measure, finish)
    return say_checks([check for result in report.results for check in result.checks], interrupted)


def main() -> int:
    """Entry point."""
    return ended(run, arguments().parse_args())


if __name__ == "__main__":
    sys.exit(main())
