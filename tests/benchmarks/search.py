"""Search over gRPC against bare FAISS called with the same batch, and how quickly a library of a million cells opens.

    make bench-search

The server is the retrieval service in a process of its own, with a release whose library is drawn: 100,000 cells of 64 numbers. Both answer the same
queries in one run, in turns; the figure is the ratio of their medians. Bare FAISS only finds; the service also names what it found.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np

from clients.cli.stack.parts import Ports, service_part
from dl4all.retrieval.v1 import retrieval_pb2, retrieval_pb2_grpc
from services.common.releases import RELEASE_FILE, sha256_of
from services.retrieval.library import ReferenceLibrary, open_library
from services.retrieval.neighbours import unit
from services.retrieval.search import ExactSearch
from tests.paths import ROOT
from tests.running import Running
from training.releases import reference_library as library

DIMENSION = 64
RELEASE = "plain-resnet-1"


def draw(count: int, seed: int = 0) -> ReferenceLibrary:
    """A library of random cells, of which a thousand are exemplars."""
    random = np.random.default_rng(seed)
    names = np.char.add("drawn/cell/", np.arange(count).astype(np.str_))
    exemplars = library.exemplar_rows(count)
    places, scales = library.quantised(random.normal(size=(int((exemplars >= 0).sum()), 8, 8, DIMENSION)).astype(np.float32) + 0.2)
    return ReferenceLibrary(
        embeddings=unit(random.normal(size=(count, DIMENSION)).astype(np.float32)),
        exemplars=exemplars,
        place_embeddings=places,
        place_scales=scales,
        is_blast=random.random(count) < 0.5,
        reference_ids=names,
        cell_classes=np.full(count, "cell"),
        patients=np.char.add("p", (np.arange(count) % 500).astype(np.str_)),
        image_sha256=np.full(count, "0" * 64),
        centers=np.zeros((count, 2), np.float32),
        radii=np.ones(count, np.float32),
        projection_mean=np.zeros(DIMENSION, np.float32),
        projection=np.ones((2, DIMENSION), np.float32),
        addition_ids=np.full(count, -1, np.int64),
    )


def releases_with(folder: Path, drawn: ReferenceLibrary) -> Path:
    """A folder of releases that holds one, with another library."""
    releases = folder / "releases"
    shutil.copytree(ROOT / "releases" / RELEASE, releases / RELEASE)
    library.save(drawn, releases / RELEASE / "library.npz")
    content = json.loads((releases / RELEASE / RELEASE_FILE).read_text(encoding="utf-8"))
    content["library"]["sha256"] = sha256_of(releases / RELEASE / "library.npz")
    (releases / RELEASE / RELEASE_FILE).write_text(json.dumps(content), encoding="utf-8")
    (releases / "index.json").write_text(json.dumps({"default": RELEASE, "current": {content["system"]: RELEASE}}), encoding="utf-8")
    return releases


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100_000, help="of the library (default: %(default)s)")
    parser.add_argument("--large", type=int, default=1_000_000, help="of the library that is opened (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=1024, help="queries per call (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="(default: %(default)s)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dl4all-bench-search-") as temporary:
        _compare(Path(temporary), given.cells, given.batch, given.rounds)
        path = Path(temporary) / "large.npz"
        library.save(draw(given.large), path)
        started = time.perf_counter()
        opened = open_library(path)
        search = ExactSearch(opened.embeddings)
        seconds = time.perf_counter() - started
        search.nearest(opened.embeddings[:1], 3)
        print(f"a library of {given.large} x {DIMENSION} ({path.stat().st_size / 1e6:.0f} MB) opens in {seconds:.2f} s")


def _compare(folder: Path, cells: int, batch: int, rounds: int) -> None:
    drawn = draw(cells)
    ports = Ports.free()
    running = Running(service_part("retrieval", ports, {"DL4ALL_RELEASES": str(releases_with(folder, drawn)), "DL4ALL_WORKERS": "1"}))
    index = faiss.IndexFlatIP(DIMENSION)
    index.add(drawn.embeddings)
    faiss.omp_set_num_threads(1)
    random = np.random.default_rng(1)
    times: dict[str, list[float]] = {"bare": [], "served": []}
    try:
        running.start().wait_serving()
        with running.channel() as channel:
            stub = retrieval_pb2_grpc.RetrievalServiceStub(channel)
            for _ in range(rounds):
                queries = unit(random.normal(size=(batch, DIMENSION)).astype(np.float32))
                request = retrieval_pb2.SearchRequest(
                    release=RELEASE, queries=[retrieval_pb2.SearchQuery(query_id=i, embedding=q) for i, q in enumerate(queries)]
                )
                started = time.perf_counter()
                _, expected = index.search(queries, 3)
                times["bare"].append(time.perf_counter() - started)
                started = time.perf_counter()
                answer = stub.Search(request, timeout=60)
                times["served"].append(time.perf_counter() - started)
                found = [[int(n.reference_id.rsplit("/", 1)[1]) for n in o.found.neighbours] for o in answer.outcomes]
                assert np.array_equal(found, expected), "the service finds other cells than FAISS"
    finally:
        running.end()
    bare, served = (statistics.median(times[name]) for name in ("bare", "served"))
    print(
        f"{cells} cells, batches of {batch}, one thread: bare FAISS {batch / bare:.0f} queries a second, served {batch / served:.0f}; ratio {bare / served:.2f}"
    )


if __name__ == "__main__":
    main()
