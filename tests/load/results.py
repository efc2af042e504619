"""Results of a load test, as they are written to JSON and read from it. Times are milliseconds, memory is MiB, rates are per second."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

from pydantic import TypeAdapter

from tests.load.calls import Call, Outcome
from tests.load.figures import percentile

Result = TypeVar("Result")
_GRID: Final = (*(i / 50 for i in range(50)), 0.99, 0.995, 0.999, 1.0)


@dataclass(frozen=True)
class Latency:
    """Latencies of answered calls from their intended time of sending, milliseconds.

    Attributes:
        count: answered calls.
        mean, p50, p95, p99: mean and percentiles.
        shares, quantiles: percentiles as shares 0..1 and their values, for plots.
    """

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    shares: list[float] = field(default_factory=list)
    quantiles: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, calls: Sequence[Call]) -> Latency | None:
        """The latencies of those calls that were answered; None where none was."""
        found = [1000.0 * call.latency for call in calls if call.outcome is Outcome.ANSWERED]
        if not found:
            return None
        p50, p95, p99 = (round(percentile(found, share), 2) for share in (0.50, 0.95, 0.99))
        grid = [share for share in _GRID if share < 1.0 - 0.5 / len(found)] + [1.0]
        return cls(len(found), round(sum(found) / len(found), 2), p50, p95, p99, grid, [round(percentile(found, share), 2) for share in grid])


@dataclass(frozen=True)
class Ends:
    """How calls ended: numbers by outcome, gRPC statuses that are not OK, and refusals that said when to try again."""

    answered: int
    refused: int
    lost: int
    wrong: int
    codes: dict[str, int] = field(default_factory=dict)
    refusals_with_time: int = 0

    @classmethod
    def of(cls, calls: Sequence[Call]) -> Ends:
        """Count calls."""
        numbers = {outcome: sum(call.outcome is outcome for call in calls) for outcome in Outcome}
        codes: dict[str, int] = {}
        for call in calls:
            if call.code != "OK":
                codes[call.code] = codes.get(call.code, 0) + 1
        timed = sum(call.retry_seconds is not None for call in calls)
        return cls(numbers[Outcome.ANSWERED], numbers[Outcome.REFUSED], numbers[Outcome.LOST], numbers[Outcome.WRONG], codes, timed)


@dataclass(frozen=True)
class Usage:
    """What a phase used.

    Attributes:
        seconds: how long it took.
        cpu_ms_per_image: CPU time for each answered image, by part; the generator is ``generator``.
        generator_share: share 0..1 of the CPU time of generator and parts that the generator used; None where the parts are not ours.
        busy: share 0..1 of the machine's CPU time that generator and parts used.
        peak_mib: most memory, by part.
    """

    seconds: float
    cpu_ms_per_image: dict[str, float]
    generator_share: float | None
    busy: float
    peak_mib: dict[str, float]


@dataclass(frozen=True)
class ClosedStep:
    """A closed loop: calls in flight, and answers per second."""

    in_flight: int
    rate: float
    latency: Latency | None
    ends: Ends
    usage: Usage


@dataclass(frozen=True)
class OpenStep:
    """An open loop.

    Attributes:
        share: of the capacity that was offered, 0..1.
        offered: images per second that were sent.
        kept_up: answered rate over offered rate.
        latency, ends, usage: of its calls.
    """

    share: float
    offered: float
    kept_up: float
    latency: Latency | None
    ends: Ends
    usage: Usage


@dataclass
class WorkloadResult:
    """One workload on one target.

    Attributes:
        target, workload: their names.
        cells_per_image: mean number of cells of an answer.
        unloaded: one call at a time.
        search: closed loops with ever more calls in flight.
        capacity: the loop with the fewest calls in flight that reaches the highest rate, measured once more.
        open: open loops at shares of that rate.
    """

    target: str
    workload: str
    cells_per_image: float = 0.0
    unloaded: ClosedStep | None = None
    search: list[ClosedStep] = field(default_factory=list)
    capacity: ClosedStep | None = None
    open: list[OpenStep] = field(default_factory=list)


@dataclass(frozen=True)
class Check:
    """A threshold within one run.

    Attributes:
        what: that is checked, a sentence.
        value, limit: measured, and allowed.
        holds: whether it does.
    """

    what: str
    value: float | None
    limit: float
    holds: bool


@dataclass(frozen=True)
class Machine:
    """Where and when it was measured."""

    processor: str
    cores: int
    python: str
    started: str

    @classmethod
    def here(cls) -> Machine:
        """This machine, now."""
        return cls(_processor(), len(os.sched_getaffinity(0)), platform.python_version(), datetime.now(UTC).isoformat(timespec="seconds"))


def _processor() -> str:
    """Name of the processor, as the kernel says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


@dataclass
class LoadReport:
    """A whole load test; ``complete`` is False where it was ended early."""

    machine: Machine
    options: dict[str, str]
    results: list[WorkloadResult] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    complete: bool = False


def write(result: object, path: Path) -> None:
    """Write a result as JSON; infinite numbers and those that are none become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(TypeAdapter(type(result)).dump_json(result, indent=2) + b"\n")


def read(kind: type[Result], path: Path) -> Result:
    """Read a result that ``write`` wrote.

    Raises:
        SystemExit: there is no such file.
    """
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except FileNotFoundError:
        raise SystemExit(f"There is no {path}: run the load test first, or name its JSON file.") from None
