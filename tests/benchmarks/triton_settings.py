"""Which settings of Triton serve the CPU best: the shipped ``configs/cpu.pbtxt`` against variants of it.

    .venv/bin/python -m tests.benchmarks.triton_settings

Each variant runs a Triton of its own, one after the other, with the same calls: batches of 1 and 8 cells, 4 at once. The
figures are cells per second relative to the shipped settings in the same round; rounds alternate over the variants.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import tritonclient.grpc.aio as tritonclient
from rich.progress import track

from clients.cli.stack.parts import Ports, triton_part
from services.common.engines.base import EMBEDDING, LOGITS, PLACE_EMBEDDINGS
from services.common.model_repository import CPU_CONFIG_FILE
from services.common.parts import TRITON
from services.common.releases import ReleaseStore
from tests.paths import ROOT
from tests.running import Running, eventually

TWO_BY_ONE = "count: 2 }"
ONE_THREAD = '"intra_op_thread_count" value { string_value: "1" }'
VARIANTS = {
    "shipped": {},
    "wait 0.5 ms for others": {"delay_microseconds: 0": "delay_microseconds: 500"},
    "wait 2 ms for others": {"delay_microseconds: 0": "delay_microseconds: 2000"},
    "one instance, two threads": {TWO_BY_ONE: "count: 1 }", ONE_THREAD: ONE_THREAD.replace('"1"', '"2"')},
}
AT_ONCE = 4


async def cells_per_second(address: str, model: str, shape: tuple[int, ...], batch: int, calls: int) -> float:
    images = np.random.default_rng(0).integers(0, 256, (batch, *shape), np.uint8)
    outputs = [tritonclient.InferRequestedOutput(name) for name in (LOGITS, EMBEDDING, PLACE_EMBEDDINGS)]
    client = tritonclient.InferenceServerClient(address)

    async def caller() -> None:
        for _ in range(calls):
            given = tritonclient.InferInput("images", list(images.shape), "UINT8")
            given.set_data_from_numpy(images)
            await client.infer(model, [given], outputs=outputs)

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    seconds = time.perf_counter() - started
    await client.close()
    return AT_ONCE * calls * batch / seconds


def measure(changes: dict[str, str], model: str, shape: tuple[int, ...]) -> dict[int, float]:
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "model_repository"
        shutil.copytree(ROOT / "model_repository", repository)
        config = repository / model / CPU_CONFIG_FILE
        text = config.read_text()
        for old, new in changes.items():
            assert old in text, old
            text = text.replace(old, new)
        config.write_text(text)
        running = Running(triton_part(Ports.free(), further=("--model-repository", str(repository)))).start()
        try:
            eventually(lambda: b"Started Metrics Service" in running.log.read_bytes(), 60)
            asyncio.run(cells_per_second(running.address, model, shape, 8, 4))
            return {batch: asyncio.run(cells_per_second(running.address, model, shape, batch, 160 // batch)) for batch in (1, 8)}
        finally:
            running.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    release = ReleaseStore(ROOT / "releases", ROOT / "model_repository").resolve("")
    shape = (release.input.side, release.input.side, 3)
    rounds = [
        {name: measure(changes, release.network.model, shape) for name, changes in VARIANTS.items()}
        for _ in track(range(given.rounds), description=TRITON)
    ]
    for name in VARIANTS:
        for batch in (1, 8):
            ratio = statistics.median(found[name][batch] / found["shipped"][batch] for found in rounds)
            rate = statistics.median(found[name][batch] for found in rounds)
            print(
                json.dumps({"settings": name, "cells a call": batch, "at once": AT_ONCE, "cells/s": round(rate), "against shipped": round(ratio, 2)})
            )


if __name__ == "__main__":
    main()
