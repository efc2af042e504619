"""The frame of the three programs: target after target, results that are written whatever ends the program, and its exit status."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Protocol

from tests.load.options import ended_by_signals
from tests.load.progress import Bars
from tests.load.results import Check
from tests.load.targets import Target, opened

INTERRUPTED = 130


class Completed(Protocol):
    """A report that says whether everything was measured."""

    complete: bool


def measure_all(
    report: Completed,
    names: Sequence[str],
    workloads: Sequence[str],
    seconds: float,
    measure: Callable[[Target, str, Bars], None],
    finish: Callable[[], None],
    address: str = "",
) -> bool:
    """Measure every workload on every target.

    Args:
        report: is complete when all was measured.
        names: of the targets, which are started one after the other.
        workloads: of each target.
        seconds: that one workload takes, for the progress bar.
        measure: measures one workload.
        finish: writes what there is; called in any case.
        address: of a gateway that runs already, instead of targets; empty for none.

    Returns:
        Whether it was interrupted.
    """
    try:
        with Bars(seconds * len(names) * len(workloads)) as bars:
            for name in names:
                bars.say(f"{name}: starting")
                with opened(name, address) as target:
                    for workload in workloads:
                        measure(target, workload, bars)
        report.complete = True
    except KeyboardInterrupt:
        return True
    finally:
        finish()
    return False


def say_checks(checks: Sequence[Check], interrupted: bool) -> int:
    """Print checks, each with whether it holds, and return the exit status: 1 where one does not hold, or where there is none."""
    for check in checks:
        print(f"{'    ' if check.holds else 'NOT '}{check.what}")
    if interrupted:
        return INTERRUPTED
    return 0 if checks and all(check.holds for check in checks) else 1


def ended(run: Callable[[argparse.Namespace], int], given: argparse.Namespace) -> int:
    """Run a program; SIGTERM ends it as Ctrl-C does, before it has begun to measure as well."""
    try:
        with ended_by_signals():
            return run(given)
    except KeyboardInterrupt:
        return INTERRUPTED
