"""Load test: how many images per second, how long each takes below that, and what it costs.

    make load                                        # the whole test: about 35 minutes
    python -m tests.load --target embedded --workloads crops --seconds 10
    python -m tests.load --address localhost:50051   # a gateway that runs already
    python -m tests.load --short                     # a minute, with thresholds; exits 1 where one does not hold

For every workload the test first finds the capacity: the answers per second of ever more callers who each wait for their
answer (closed loop). Then it sends at 50, 70 and 90 % of that, whatever has been answered (open loop), and takes the
latency from the intended time of sending, so that no waiting is hidden. All images are drawings; every answer holds three
neighbours per cell and the similarity maps. Ctrl-C ends the servers and writes what there is.

docs/load.md says what each figure means.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import replace
from typing import Final

from tests.benchmarks.workloads import LOADS
from tests.load.checks import checks_of, failures, unusable_calls
from tests.load.measuring import IN_FLIGHT, SHARES, Plan, measure
from tests.load.options import parser, targets_of
from tests.load.page import load_tables, machine_facts, page, write_page
from tests.load.plots import load_plots
from tests.load.program import INTERRUPTED, ended, measure_all
from tests.load.progress import Bars, console
from tests.load.results import LoadReport, Machine, WorkloadResult, write
from tests.load.targets import EMBEDDED, TARGETS, Target

SECONDS: Final = 60.0
_SEARCH_SHARE: Final = 0.25
_LEAST_SEARCH: Final = 2.5
SHORT: Final = Plan(seconds=6.0, search_seconds=2.5, in_flight=(1, 2, 4, 8), shares=SHARES[:2], arrivals="fixed", timeout=15.0)
ATTEMPTS: Final = 3
"""The short form measures again where a threshold does not hold: the machine may have become slower between two steps."""


def arguments() -> argparse.ArgumentParser:
    """The parser of this program."""
    made = parser(__doc__, SECONDS, "seconds of each open loop, and of the loop that gives the capacity")
    made.add_argument(
        "--arrivals", choices=("poisson", "fixed"), help="of the open loop: at random, or evenly (default: poisson; fixed with --short)"
    )
    made.add_argument("--seed", type=int, default=1, help="of the arrivals (default: 1)")
    made.add_argument(
        "--short",
        action="store_true",
        help=f"about a minute: one process, mix, 50 and 70 %%; thresholds are checked, up to {ATTEMPTS} attempts; exit status 1 where one does not hold",
    )
    return made


def plan_of(given: argparse.Namespace) -> Plan:
    """How long to measure."""
    base = SHORT if given.short else Plan(SECONDS, _SEARCH_SHARE * SECONDS, IN_FLIGHT, SHARES)
    if given.seconds is not None:
        base = replace(base, seconds=given.seconds, search_seconds=max(_SEARCH_SHARE * given.seconds, _LEAST_SEARCH))
    return replace(base, arrivals=given.arrivals or base.arrivals, seed=given.seed)


def run(given: argparse.Namespace) -> int:
    """Measure, write the results, and return the exit status."""
    plan, short = plan_of(given), bool(given.short)
    names = targets_of(given, (EMBEDDED,) if short else TARGETS)
    workloads = list(dict.fromkeys(given.workloads or (["mix"] if short else LOADS)))
    options = {"seconds": f"{plan.seconds:g}", "arrivals": plan.arrivals, "seed": str(plan.seed)}
    report = LoadReport(Machine.here(), options)

    def measure_workload(target: Target, workload: str, bars: Bars) -> None:
        measure_one(target, workload, plan, bars, report, attempts=ATTEMPTS if short else 1)

    def finish() -> None:
        report.checks = [check for result in report.results for check in checks_of(result)] if short else []
        write(report, given.out / "load.json")
        facts = machine_facts(report.machine, report.options, complete=report.complete)
        write_page(page("Load test", facts, load_tables(report), load_plots(report), report.checks), given.out / "load.html")
        console.print(f"{given.out / 'load.json'}\n{given.out / 'load.html'}", highlight=False)

    if measure_all(report, names, workloads, plan.total, measure_workload, finish, given.address):
        return INTERRUPTED
    for sentence in failures(report.checks):
        print(sentence, file=sys.stderr)
    return 1 if failures(report.checks) else 0


def measure_one(target: Target, workload: str, plan: Plan, bars: Bars, report: LoadReport, attempts: int) -> None:
    """Measure a workload, again where a threshold of the short form does not hold; the last attempt stays in the report."""
    images = LOADS[workload]()
    for attempt in range(1, attempts + 1):
        result = WorkloadResult(target.name, workload)
        report.results.append(result)
        asyncio.run(measure(target, workload, images, plan, bars, result))
        if result.capacity is not None:
            bars.say(f"{target.name}, {workload}: {result.capacity.rate:.1f} images/s with {result.capacity.in_flight} in flight")
        if attempt == attempts or unusable_calls(result) or not failures(checks_of(result)):
            return
        report.results.remove(result)
        bars.say(f"{target.name}, {workload}: measured again, because: {failures(checks_of(result))[0]}")


def main() -> int:
    """Entry point."""
    return ended(run, arguments().parse_args())


if __name__ == "__main__":
    sys.exit(main())
