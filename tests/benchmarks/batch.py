"""``dl4all batch run`` against the ceiling of one process, and against the streams of five processes and a Triton.

    make bench-batch

The ceiling is the plain loop in as many threads as cores, without maps, because a batch asks for none. The first comparison runs the services in the
batch's worker. The second one has five processes and a Triton; there the batch is compared with bare streams of the SDK that keep as many images under
way. The two sides of a comparison alternate on the same images. The rate of a batch is that of its rows, from the first to the last, journal and
Parquet included; its start is told apart, because a batch of thousands starts once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.progress import track

from clients.batch.merging import read_results
from clients.batch.store import Store
from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all_client import AsyncDiagnosisClient, ServiceError, diagnose_request
from tests.benchmarks.distributed import CORES, Ceiling
from tests.benchmarks.workloads import CROPS, FIELDS, crops, fields
from tests.chaos.batch import run_quietly
from tests.running import Stack

_STREAMS = 2
_SECONDS = 600.0
_WARM = 0.1
"""Share of the rows that are left out at the start of a batch, while its window grows and models warm up."""


def archive(folder: Path, images: Sequence[bytes], count: int) -> list[bytes]:
    """Write ``count`` images, and return them."""
    folder.mkdir()
    named = [images[number % len(images)] for number in range(count)]
    for number, image in enumerate(named):
        (folder / f"{number:05d}.png").write_bytes(image)
    return named


def batch(source: Path, out: Path, *options: str) -> tuple[float, float]:
    """Images a second of the rows of a batch, and seconds of the whole command."""
    started = time.perf_counter()
    run_quietly(["run", str(source), "--out", str(out), *options], _SECONDS)
    whole = time.perf_counter() - started
    rows = read_results(Store(str(out)))
    assert set(rows["status"].to_pylist()) == {"answered"}
    finished = sorted(rows["finished_at"].cast(pa.int64()).to_pylist())
    first = int(_WARM * len(finished))
    return 1000.0 * (len(finished) - 1 - first) / (finished[-1] - finished[first]), whole


async def streamed(address: str, images: Sequence[bytes], streams: int = _STREAMS) -> float:
    """Images a second of bare streams that share the images; every answer must be a diagnosis."""
    waiting = iter(enumerate(images))

    async def requests() -> AsyncIterator[diagnosis_pb2.DiagnoseRequest]:
        for number, image in waiting:
            yield diagnose_request(image, request_id=str(number), priority="batch")

    async def stream(client: AsyncDiagnosisClient) -> None:
        async for _, answer in client.diagnose_stream(requests()):
            if isinstance(answer, ServiceError):
                raise answer

    async with AsyncDiagnosisClient(address) as client:
        started = time.perf_counter()
        await asyncio.gather(*(stream(client) for _ in range(streams)))
        return len(images) / (time.perf_counter() - started)


def alternating(rounds: int, name: str, bare: Callable[[], float], batched: Callable[[int], tuple[float, float]]) -> dict[str, Any]:
    """Both sides by turns."""
    bares, batches, wholes = [], [], []
    for number in track(range(rounds), description=name):
        bares.append(bare())
        rate, whole = batched(number)
        batches.append(rate)
        wholes.append(whole)
    ratios = sorted(b / a for a, b in zip(bares, batches, strict=True))
    return {
        "compared": name,
        "bare, images/s": round(statistics.median(bares), 1),
        "batch, images/s": round(statistics.median(batches), 1),
        "ratio, median": round(statistics.median(ratios), 3),
        "ratio, lowest": round(ratios[0], 3),
        "whole command, s": round(statistics.median(wholes), 1),
    }


def compare(name: str, images: Sequence[bytes], count: int, rounds: int, address: str) -> list[dict[str, Any]]:
    """Both comparisons for one workload."""
    with tempfile.TemporaryDirectory(prefix="dl4all-bench-") as temporary:
        folder = Path(temporary)
        named = archive(folder / "images", images, count)
        ceiling = Ceiling(maps=False)

        def bare() -> float:
            started = time.perf_counter()
            ceiling.run(named)
            return len(named) / (time.perf_counter() - started)

        def embedded(number: int) -> tuple[float, float]:
            return batch(folder / "images", folder / f"embedded-{number}")

        def remote(number: int) -> tuple[float, float]:
            return batch(folder / "images", folder / f"remote-{number}", "--address", address)

        bare()
        rows = [alternating(rounds, f"{name}: ceiling of one process", bare, embedded)]
        asyncio.run(streamed(address, named))
        rows.append(alternating(rounds, f"{name}: streams of five processes", lambda: asyncio.run(streamed(address, named)), remote))
        return rows


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fields", type=int, default=200)
    parser.add_argument("--crops", type=int, default=600)
    given = parser.parse_args()
    stack = Stack.make({"DL4ALL_HEALTH_INTERVAL_SECONDS": "1", "DL4ALL_WORKERS": str(CORES)})
    rows = []
    try:
        stack.start()
        for name, images, count in ((FIELDS, fields(), given.fields), (CROPS, crops(), given.crops)):
            rows += compare(name, images, count, given.rounds, stack["gateway"].address)
    finally:
        stack.end()
    for row in rows:
        print(json.dumps(row))
    print(f"machine: {platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")


if __name__ == "__main__":
    main()
