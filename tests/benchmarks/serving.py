"""A warm server over gRPC against a plain loop over the same functions and ONNX files, explanations included.

    make bench

Both do the same work on the same phantoms in one run, alternating, so that a noisy machine disturbs both alike. The
figure is the ratio of their throughputs; 1.0 means that gRPC, the servicers and the gateway cost nothing. Before anything
is timed, both must give every image the same finding and the same numbers of cells.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from rich.progress import track

from dl4all.diagnosis.v1 import diagnosis_pb2, diagnosis_pb2_grpc
from dl4all_client.channel import open_aio_channel
from dl4all_client.requests import finding_name
from services.gateway.decision import Counts
from tests.benchmarks.plain_loop import PlainAnswer, PlainLoop
from tests.benchmarks.workloads import explained_request, workloads
from tests.integration.conftest import start_server


async def served(address: str, images: Sequence[bytes], in_flight: int) -> tuple[list[float], list[diagnosis_pb2.Diagnosis]]:
    """Latencies in seconds, and the answers, in the order of the images."""
    slots = asyncio.Semaphore(in_flight)
    async with open_aio_channel(address) as channel:
        stub = diagnosis_pb2_grpc.DiagnosisServiceStub(channel)

        async def one(image: bytes) -> tuple[float, diagnosis_pb2.Diagnosis]:
            request = explained_request(image)
            async with slots:
                started = time.perf_counter()
                answer = await stub.Diagnose(request, timeout=60)
                return time.perf_counter() - started, answer.diagnosis

        answers = await asyncio.gather(*(one(image) for image in images))
    return [latency for latency, _ in answers], [diagnosis for _, diagnosis in answers]


def answer_of(diagnosis: diagnosis_pb2.Diagnosis) -> PlainAnswer:
    """What a server said of an image, as the plain loop says it."""
    counts = diagnosis.counts
    return PlainAnswer(finding_name(diagnosis.finding), Counts(counts.total, counts.suspected, counts.indeterminate))


def check_same(plain: Sequence[PlainAnswer], answers: Sequence[diagnosis_pb2.Diagnosis]) -> None:
    """End the program where loop and server disagree: then they did not do the same work."""
    differing = [(number, one, answer_of(other)) for number, (one, other) in enumerate(zip(plain, answers, strict=True)) if one != answer_of(other)]
    if differing:
        number, one, other = differing[0]
        raise SystemExit(f"Loop and server disagree on {len(differing)} images, first on image {number}: {one} and {other}.")


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


async def compare(address: str, images: list[bytes], rounds: int, in_flight: int, name: str) -> dict[str, object]:
    loop = PlainLoop()

    async def plain() -> list[PlainAnswer]:
        return [loop.diagnose(image) for image in images]

    _, answers = await served(address, images, in_flight)
    check_same(await plain(), answers)
    pairs = [(await timed(plain), await timed(lambda: served(address, images, in_flight))) for _ in track(range(rounds), description=name)]
    ratios = sorted(plain_seconds / served_seconds for plain_seconds, served_seconds in pairs)
    return {
        "workload": name,
        "in flight": in_flight,
        "plain loop, images/s": round(len(images) / statistics.median(p for p, _ in pairs), 1),
        "server, images/s": round(len(images) / statistics.median(s for _, s in pairs), 1),
        "ratio, median": round(statistics.median(ratios), 3),
        "ratio, lowest": round(ratios[0], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    given = parser.parse_args()
    rows = []
    for workers in (1, 2):
        running = start_server(DL4ALL_WORKERS=str(workers))
        try:
            for name, images in workloads().items():
                for in_flight in (1, 4):
                    row = asyncio.run(compare(running.address, images, given.rounds, in_flight, name))
                    rows.append({"workers": workers, **row})
        finally:
            running.terminate()
            running.wait()
    for row in rows:
        print(json.dumps(row))
    print(f"machine: {platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    if given.out:
        given.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
