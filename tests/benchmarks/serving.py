"""A warm server over gRPC against a plain loop over the same functions and ONNX files, explanations included.

    make bench

Both do the same work on the same phantoms in one run, alternating, so that a noisy machine disturbs both alike. The
figure is the ratio of their throughputs; 1.0 means that gRPC, the servicers and the gateway cost nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import cv2
import grpc
import numpy as np
from rich.progress import track

from dl4all.diagnosis.v1 import diagnosis_pb2, diagnosis_pb2_grpc
from dl4all_client import diagnose_request
from services.common.engines.onnx_runtime import open_session
from services.common.image_codec import decode_image
from services.common.maps import feature_map_message, read_feature_map
from services.common.phantom import CellKind, PhantomOptions, encode_png, single_cell, smear_field
from services.common.releases import Release, ReleaseStore
from services.common.settings import CommonSettings
from services.gateway.decision import Counts, decide
from services.gateway.fusion import blast_probability, judge_cell
from services.gateway.rules import cell_rule, image_rule
from services.patching.cells import central_cell, locate_cells, looks_like_single_cell
from services.patching.crops import batches
from services.patching.quality import measure_exposure
from services.preprocessing.registration import register
from services.preprocessing.unsharpening import FocusParameters, sharpen_adaptively
from services.retrieval.library import ReferenceLibrary, open_library
from services.retrieval.neighbours import Float, project, unit, vote
from services.retrieval.search import ExactSearch
from services.retrieval.similarity import normalise_places, quantise, similarity_map
from tests.integration.conftest import start_server

NEIGHBOURS = 3


class PlainLoop:
    """The science, called one image after the other in one thread: no gRPC, no asyncio, no messages."""

    def __init__(self) -> None:
        settings = CommonSettings()
        store = ReleaseStore(settings.releases, settings.model_repository)
        self.release: Release = store.resolve("")
        self.library: ReferenceLibrary = open_library(store.library_path(self.release))
        self.search = ExactSearch(self.library.embeddings)
        self.session = open_session(store.model_path(self.release.network), threads=1)
        self.focus = FocusParameters(**dict(self.release.preprocessing))
        cv2.setNumThreads(1)

    def diagnose(self, encoded: bytes) -> str:
        image = decode_image(encoded)
        cells = locate_cells(image.pixels).cells
        measure_exposure(image.pixels)
        single = looks_like_single_cell(cells, *image.pixels.shape[:2])
        if single:
            cells = tuple(c for c in [central_cell(cells, *image.pixels.shape[:2])] if c is not None)
        verdicts = []
        for batch in batches(image.pixels, cells):
            sharpened = []
            for _, cell, crop in batch:
                x, y = cell.center_x - crop.origin_x, cell.center_y - crop.origin_y
                registered = register(np.ascontiguousarray(crop.pixels), x, y, cell.radius, self.release.input.side)
                sharpened.append(sharpen_adaptively(registered.pixels, registered.upscale_factor, self.focus))
            pixels = np.stack([s.pixels for s in sharpened])
            logits, embedding, places = self.session.run(["logits", "embedding", "patch_embeddings"], {"images": pixels})
            queries = unit(embedding)
            k = self.release.calibration.voting_neighbours
            indices, distances = self.search.nearest(queries, k)
            votes = vote(distances, self.library.is_blast[indices])
            project(queries, self.library.projection_mean, self.library.projection)
            for i, (_, s) in enumerate(zip(batch, sharpened, strict=True)):
                own = normalise_places(read_feature_map(feature_map_message(places[i]), places.shape[3], "places"))
                for index in indices[i, :NEIGHBOURS]:
                    quantise(similarity_map(own, self.library.embeddings[index]))
                    quantise(similarity_map(cast(Float, self.library.places_of(int(index))), queries[i]))
                verdicts.append(
                    judge_cell(float(blast_probability(logits[i])), float(votes[i]), s.accepted, [str(r) for r in s.reasons], cell_rule(self.release))
                )
        counts = Counts(len(verdicts), sum(v.suspected for v in verdicts), sum(v.indeterminate for v in verdicts))
        return str(decide(counts, image_rule(self.release), single_cell=single).finding)


def workloads() -> dict[str, list[bytes]]:
    fields = [encode_png(smear_field(seed, PhantomOptions(width=800, height=600, cells=8))) for seed in range(8)]
    kinds = list(CellKind)
    cells = [encode_png(single_cell(seed, kinds[seed % len(kinds)])) for seed in range(24)]
    return {"fields 800x600, 8 cells": fields, "single cells 264x264": cells}


async def served(address: str, images: list[bytes], in_flight: int) -> None:
    slots = asyncio.Semaphore(in_flight)
    async with grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", 1 << 25)]) as channel:
        stub = diagnosis_pb2_grpc.DiagnosisServiceStub(channel)

        async def one(image: bytes) -> None:
            request = diagnose_request(image)
            request.display.CopyFrom(diagnosis_pb2.DisplayOptions(neighbours=NEIGHBOURS, include_maps=True))
            async with slots:
                await stub.Diagnose(request, timeout=60)

        await asyncio.gather(*(one(image) for image in images))


async def timed(work: Callable[[], Awaitable[None]]) -> float:
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


async def compare(address: str, images: list[bytes], rounds: int, in_flight: int, name: str) -> dict[str, object]:
    loop = PlainLoop()

    async def plain() -> None:
        for image in images:
            loop.diagnose(image)

    await plain()
    await served(address, images, in_flight)
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
