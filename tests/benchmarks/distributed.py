"""Five processes and a Triton against the ceiling of one process: throughput, latency, CPU time per cell by part.

    make bench

The ceiling is the plain loop of ``serving.py`` (the same functions on the same files: no gRPC, no messages, no servers)
in as many threads as there are cores. Both do the same work in one run, alternating, so that a noisy machine disturbs
both alike. The figure is the ratio of their throughputs. CPU time is read from the kernel, per process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.progress import track

from tests.benchmarks.plain_loop import PlainLoop
from tests.benchmarks.serving import check_same, served
from tests.benchmarks.workloads import workloads
from tests.running import Stack

CORES = len(os.sched_getaffinity(0))


class Ceiling:
    """The ceiling of one process: the plain loop in as many threads as cores.

    Args:
        maps: see ``PlainLoop``.
    """

    def __init__(self, maps: bool = True) -> None:
        self._loops = [PlainLoop(maps) for _ in range(CORES)]
        self._threads = ThreadPoolExecutor(CORES)

    def run(self, images: Sequence[bytes]) -> None:
        waiting = iter(images)

        def work(loop: PlainLoop) -> None:
            for image in waiting:
                loop.diagnose(image)

        list(self._threads.map(work, self._loops))


def compare(stack: Stack, images: list[bytes], rounds: int, in_flight: int, name: str) -> dict[str, object]:
    ceiling = Ceiling()
    address = stack["gateway"].address
    many = images * 2
    ceiling.run(many)
    _, answers = asyncio.run(served(address, images, in_flight))
    loop = PlainLoop()
    check_same([loop.diagnose(image) for image in images], answers)
    ratios, latencies, ceiling_seconds, served_seconds, cells = [], [], [], [], 0
    cpu = dict.fromkeys([*stack.parts, "client"], 0.0)
    ceiling_cpu = 0.0
    for _ in track(range(rounds), description=name):
        cpu_before, started = time.process_time(), time.perf_counter()
        ceiling.run(many)
        ceiling_seconds.append(time.perf_counter() - started)
        ceiling_cpu += time.process_time() - cpu_before
        before = {part: running.cpu_seconds() for part, running in stack.parts.items()}
        cpu_before, started = time.process_time(), time.perf_counter()
        found, answers = asyncio.run(served(address, many, in_flight))
        served_seconds.append(time.perf_counter() - started)
        cpu["client"] += time.process_time() - cpu_before
        for part, running in stack.parts.items():
            cpu[part] += running.cpu_seconds() - before[part]
        latencies += found
        cells += sum(answer.counts.total for answer in answers)
        ratios.append(ceiling_seconds[-1] / served_seconds[-1])
    return {
        "workload": name,
        "in flight": in_flight,
        "ceiling, images/s": round(len(many) / statistics.median(ceiling_seconds), 1),
        "served, images/s": round(len(many) / statistics.median(served_seconds), 1),
        "ratio, median": round(statistics.median(ratios), 3),
        "ratio, lowest": round(min(ratios), 3),
        "p50 ms": round(1000 * float(np.quantile(latencies, 0.5)), 1),
        "p99 ms": round(1000 * float(np.quantile(latencies, 0.99)), 1),
        "CPU ms per cell, ceiling": round(1000 * ceiling_cpu / cells, 2),
        "CPU ms per cell": {part: round(1000 * seconds / cells, 2) for part, seconds in cpu.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--in-flight", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    given = parser.parse_args()
    stack = Stack.make({"DL4ALL_HEALTH_INTERVAL_SECONDS": "1"})
    rows = []
    try:
        stack.start()
        for name, images in workloads().items():
            rows += [compare(stack, images, given.rounds, in_flight, name) for in_flight in given.in_flight]
    finally:
        stack.end()
    for row in rows:
        print(json.dumps(row))
    print(f"machine: {platform.processor() or platform.machine()}, {CORES} cores, Python {platform.python_version()}")
    if given.out:
        given.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
