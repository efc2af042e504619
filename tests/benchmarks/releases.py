"""Costs of a cell by release: parameters, sizes, and CPU milliseconds of the network alone and of the whole Diagnose.

    make bench-releases

All releases do the same work in turns, round after round, on the same drawn cells; the measure is the CPU time of the thread (network) or of the
process (Diagnose with all services in it, similarity maps and three neighbours included), not elapsed time. Ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import onnxruntime
from rich.progress import track

from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all_client import diagnose_request
from services.common.engines.onnx_runtime import open_session
from services.common.logs import configure_logs
from services.common.phantom import CellKind, encode_png, single_cell
from services.common.releases import Model, Release, ReleaseStore, Role
from services.common.settings import CommonSettings
from services.embedded import embedded_services

BATCHES = (1, 8)
CELLS = 24
MIB = 2**20


class Cost:
    """Measurements of one release, one value per round."""

    def __init__(self) -> None:
        self.network: dict[int, list[float]] = {size: [] for size in BATCHES}
        self.whole: list[float] = []


def network_milliseconds(session: onnxruntime.InferenceSession, side: int, batch: int) -> float:
    """CPU ms per cell of a session with one thread."""
    pixels = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)
    wanted = [output.name for output in session.get_outputs()]
    repeats = max(1, CELLS // batch)
    session.run(wanted, {"images": pixels})
    started = time.thread_time()
    for _ in range(repeats):
        session.run(wanted, {"images": pixels})
    return 1000 * (time.thread_time() - started) / (repeats * batch)


async def whole_milliseconds(diagnose: Callable[[diagnosis_pb2.DiagnoseRequest], Awaitable[object]], images: list[bytes], release: str) -> float:
    """CPU ms per cell of the process, one call after the other."""
    started = time.process_time()
    for image in images:
        request = diagnose_request(image, release=release)
        request.display.CopyFrom(diagnosis_pb2.DisplayOptions(neighbours=3, include_maps=True))
        await diagnose(request)
    return 1000 * (time.process_time() - started) / len(images)


async def measure(store: ReleaseStore, rounds: int) -> dict[str, Cost]:
    """Measure every release of a store, in turns."""
    kinds = list(CellKind)
    images = [encode_png(single_cell(seed, kinds[seed % len(kinds)])) for seed in range(CELLS)]
    sessions = {r.id: open_session(store.model_path(r.network), threads=1) for r in store.releases}
    costs = {r.id: Cost() for r in store.releases}
    async with embedded_services(CommonSettings()) as services:
        diagnose = services.stubs["gateway"].Diagnose
        for release in store.releases:
            await whole_milliseconds(diagnose, images[:4], release.id)
        for _ in track(range(rounds), description="rounds"):
            for release in store.releases:
                for size in BATCHES:
                    costs[release.id].network[size].append(network_milliseconds(sessions[release.id], release.input.side, size))
                costs[release.id].whole.append(await whole_milliseconds(diagnose, images, release.id))
    return costs


def row(release: Release, store: ReleaseStore, cost: Cost, reference: Cost) -> str:
    """A release as a row of the table."""
    network = " | ".join(f"{statistics.median(cost.network[size]):.1f}" for size in BATCHES)
    ratio = statistics.median(own / other for own, other in zip(cost.network[8], reference.network[8], strict=True))
    models = _models(release)
    sizes = f"{' and '.join(_mebibytes(store, model) for model in models)} | {store.library_path(release).stat().st_size / MIB:.1f}"
    served = "int8" if release.network.files[Role.CPU].file.endswith("_int8.onnx") else "float32"
    return (
        f"| `{release.id}` | {' and '.join(_parameters(store, model) for model in models)} | {served} | {sizes} | {network} | {ratio:.2f} | {statistics.median(cost.whole):.1f} "
        f"| {_int8_gate(store, release)} |"
    )


def _mebibytes(store: ReleaseStore, model: Model) -> str:
    return f"{store.model_path(model).stat().st_size / MIB:.1f}"


def _models(release: Release) -> list[Model]:
    """The network of cells and, where there is one, that of patches."""
    return [release.network, *([release.patches.network] if release.patches else [])]


def _about(store: ReleaseStore, model: Model) -> dict[str, object]:
    content: dict[str, object] = json.loads((store.model_path(model).parents[1] / "metadata.json").read_text(encoding="utf-8"))
    return content


def _parameters(store: ReleaseStore, model: Model) -> str:
    found = re.search(r"([\d,]+) (?:trained of ([\d,]+) )?parameters", str(_about(store, model)["architecture"]))
    if found is None:
        return "not noted"
    trained, every = found.groups()
    return trained if every in (None, trained) else f"{trained} of {every}"


def _int8_gate(store: ReleaseStore, release: Release) -> str:
    training = _about(store, release.network).get("training")
    gates = training.get("gates", []) if isinstance(training, dict) else []
    return next((gate.partition(": ")[2] for gate in gates if gate.startswith("model_int8")), "not tried")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="turns of every release (default: %(default)s)")
    given = parser.parse_args()
    configure_logs("ERROR")
    settings = CommonSettings()
    store = ReleaseStore(Path(settings.releases), Path(settings.model_repository))
    costs = asyncio.run(measure(store, given.rounds))
    reference = costs[store.resolve("").id]
    print(
        "| release | trained parameters | served on the CPU | its files, MiB | library, MiB | network, ms a cell, alone | ms a cell, 8 at once "
        "| against the default | whole Diagnose, ms a cell | int8 against float32, when built |\n" + "|---" * 10 + "|"
    )
    for release in store.releases:
        print(row(release, store, costs[release.id], reference))


if __name__ == "__main__":
    main()
