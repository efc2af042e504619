"""Capacity page: what an image costs by part, pods and cores for a load, and what breaks first as load grows.

    python -m tests.load.capacity                    # reads build/load/load.json and prints Markdown
    python -m tests.load.capacity --update           # also writes it into docs/capacity.md

The costs are those of `five` in the JSON file of the load test. What breaks first is simulated (tests/load/queueing.py)
with these costs; the simulation is checked against the latencies that the load test measured in its open loops.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.load.options import OUT
from tests.load.planning import CORES_OF_POD, ROOM, UTILISATION, busiest, cores, cost, in_pods, one_machine, pods, validate
from tests.load.queueing import Service, Simulated, simulate
from tests.load.results import LoadReport, WorkloadResult, read
from tests.load.targets import EMBEDDED, FIVE, TITLES
from tests.paths import ROOT

LOADS_PER_HOUR: Final = (1_000, 10_000, 100_000, 1_000_000)
PRESENT: Final = 1_000
TIMES: Final = (10, 100, 1_000)
PAGE: Final = ROOT / "docs" / "capacity.md"
BEGIN: Final = "<!-- figures: python -m tests.load.capacity --update -->"
END: Final = "<!-- end of figures -->"
_IMAGES: Final = 20_000
_BROKEN: Final = 0.01
"""An arrangement that refuses more than this share does not hold."""


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load", type=Path, default=OUT / "load.json", help="JSON file of the load test (default: build/load/load.json)")
    parser.add_argument("--present", type=int, default=PRESENT, help=f"images an hour of the present load (default: {PRESENT})")
    parser.add_argument("--room", type=int, default=ROOM, help=f"images that one gateway holds at most (default: {ROOM})")
    parser.add_argument("--update", action="store_true", help="write the figures into docs/capacity.md, between its two marks")
    given = parser.parse_args()
    text = "\n".join(sections(read(LoadReport, given.load), given.present, given.room))
    print(text)
    if given.update:
        PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")
        subprocess.run([sys.executable, "-m", "mdformat", str(PAGE)], cwd=ROOT, check=True)
    return 0


def updated(page: str, text: str) -> str:
    """The page with other figures between its marks."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}"


def sections(report: LoadReport, present: int, room: int, images: int = _IMAGES) -> Iterator[str]:
    """The figures as Markdown, line by line.

    Args:
        report: of the load test.
        present: images an hour of the present load.
        room: images that one gateway holds at most.
        images: of each simulation.
    """
    whole = [result for result in report.results if result.capacity is not None and result.capacity.rate > 0 and result.unloaded is not None]
    in_parts = [result for result in whole if result.target == FIVE]
    machine = report.machine
    yield f"Measured on {machine.processor}, {machine.cores} cores, Python {machine.python}, {machine.started[:10]}."
    if not report.complete:
        yield "\nThe load test was ended early; this is what there was."
    if in_parts:
        yield "\n### What an image costs\n"
        yield from costs(in_parts)
        yield "\n### Pods and cores for a load\n"
        yield from plans(in_parts)
    yield "\n### One process\n"
    yield from processes([result for result in whole if result.target == EMBEDDED])
    if in_parts:
        yield "\n### What breaks first\n"
        yield from breaking(in_parts[-1], present, room, machine.cores, images)
    yield "\n### How good the simulation is\n"
    yield from validation(whole, machine.cores, images)


def costs(results: Sequence[WorkloadResult]) -> Iterator[str]:
    """CPU milliseconds by part."""
    parts = list(cost(results[0]))
    yield from _table(("CPU ms", *parts, "sum"), [row for result in results for row in _costs(result, parts)])


def _costs(result: WorkloadResult, parts: Sequence[str]) -> list[tuple[str, ...]]:
    used, cells = cost(result), max(result.cells_per_image, 1e-9)
    per_image = (*(f"{used[part]:.1f}" for part in parts), f"{sum(used.values()):.1f}")
    per_cell = (*(f"{used[part] / cells:.1f}" for part in parts), f"{sum(used.values()) / cells:.1f}")
    return [(f"{result.workload}, an image ({result.cells_per_image:.1f} cells)", *per_image), (f"{result.workload}, a cell", *per_cell)]


def plans(results: Sequence[WorkloadResult]) -> Iterator[str]:
    """Pods by part and their cores, for round loads."""
    parts = list(cost(results[0]))
    rows = []
    for result in results:
        for load in LOADS_PER_HOUR:
            found = pods(cost(result), load)
            used = sum(pod.cores_used for pod in found.values())
            rows.append((f"{result.workload}, {load:,} an hour", *(str(found[part].pods) for part in parts), str(cores(found)), f"{used:.1f}"))
    yield from _table(("load", *(f"{part} ({CORES_OF_POD.get(part, 1)})" for part in parts), "cores of all pods", "cores in use"), rows)


def processes(results: Sequence[WorkloadResult]) -> Iterator[str]:
    """Machines that run `dl4all serve`, for round loads."""
    if not results:
        yield "The load test did not measure it."
        return
    rows = []
    for result in results:
        assert result.capacity is not None
        rate = result.capacity.rate
        needed = [max(1, -(-load // int(3600 * UTILISATION * rate or 1))) for load in LOADS_PER_HOUR]
        peak = sum(result.capacity.usage.peak_mib.values())
        rows.append((result.workload, f"{rate:.1f}", f"{peak:.0f}", *(f"{number:,}" for number in needed)))
    yield from _table(("workload", "images/s", "peak MiB", *(f"{load:,} an hour" for load in LOADS_PER_HOUR)), rows)


def breaking(result: WorkloadResult, present: int, room: int, machine_cores: int, images: int) -> Iterator[str]:
    """Simulations of the present load and of multiples of it."""
    rows, said = [], []
    for times in (1, *TIMES):
        load = times * present
        planned = {part: pod.pods for part, pod in pods(cost(result), load).items()}
        arrangements = {
            f"one machine, {machine_cores} cores": one_machine(result, machine_cores, room),
            "one pod of each part": in_pods(result, dict.fromkeys(planned, 1), room),
            "the pods of the table, one gateway": in_pods(result, {**planned, "gateway": 1}, room),
            "the pods of the table": in_pods(result, planned, room),
        }
        found = {name: _simulated(service, load / 3600.0, images) for name, service in arrangements.items()}
        rows += [(f"{times:,} ({load:,} an hour)", name, *_cells(*one)) for name, one in found.items()]
        broken = [f"{name} ({part})" for name, (simulated, part, _) in found.items() if simulated.refused_share > _BROKEN]
        verdict = f"these do not: {'; '.join(broken)}" if broken else "all arrangements answer everything"
        said.append(f"- At {times:,} times the present load, {verdict}.")
    yield f"Present load: {present:,} images an hour, {result.workload}. One gateway holds {room} images.\n"
    yield from _table(("times the present load", "arrangement", "answered", "p50 ms", "p99 ms", "busiest part, busy"), rows)
    yield "\nWhat answers less than 99 %, and the part that breaks:\n"
    yield from said


def _simulated(service: Service, rate: float, images: int) -> tuple[Simulated, str, float]:
    """A simulation, its busiest part, and for what share of the time that is busy; on one machine the cores are what is busy."""
    found = simulate(service, rate, images)
    if not service.cores:
        return found, *busiest(found)
    used = sum(one.seconds for one in service.parts) * rate * (1 - found.refused_share)
    return found, "cores", min(1.0, used / sum(service.cores.values()))


def _cells(found: Simulated, part: str, share: float) -> tuple[str, ...]:
    answered = 1.0 - found.refused_share
    times = (f"{1000 * found.percentile(0.5):.0f}", f"{1000 * found.percentile(0.99):.0f}")
    return (f"{answered:.0%}" if answered >= 0.1 else f"{answered:.1%}", *times, f"{part}, {share:.0%}")


def validation(results: Sequence[WorkloadResult], machine_cores: int, images: int) -> Iterator[str]:
    """Measured and simulated latencies of the open loops, and the error."""
    rows, errors = [], []
    for result in results:
        for one in validate(result, machine_cores, images):
            pairs = [f"{wanted:.0f}, {found:.0f}" for wanted, found in zip(one.measured, one.simulated, strict=True)]
            rows.append((f"{TITLES.get(result.target, result.target)}: {result.workload}", f"{one.share:.0%}", *pairs))
            errors.append(one.errors)
    yield from _table(("ms, measured and simulated", "load", "p50", "p95", "p99"), rows)
    if errors:
        middles = [statistics.median(abs(error[i]) for error in errors) for i in range(3)]
        yield f"\nMedian error: {middles[0]:.0%} of p50, {middles[1]:.0%} of p95, {middles[2]:.0%} of p99."


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heading)} |"
    yield f"| {' | '.join('--' for _ in heading)} |"
    for row in rows:
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    sys.exit(main())
