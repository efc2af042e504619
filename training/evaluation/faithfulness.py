"""Are the similarity maps faithful? Deletion and insertion against maps that know nothing, and maps of a network that has forgotten.

    dl4all study faithfulness --data DIR/aml_cells [--release ID] [--cells 200]

Cells of calibration patients, each with its nearest known cell. Places of the feature map are taken away (blurred) or given back in the
order of a map, and the similarity is measured each time by the served file. A faithful map takes away similarity sooner than a random one
(deletion: lower is better) and gives it back sooner (insertion: higher is better). A Gaussian at the centre knows where cells lie and
nothing else. The randomisation check replaces weights by permuted ones, from the last layer to the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from rich.progress import track

from services.common.engines.base import PLACE_EMBEDDINGS
from services.common.engines.onnx_runtime import open_session
from services.common.releases import ReleaseStore
from services.common.settings import CommonSettings
from services.preprocessing.unsharpening import FocusParameters
from services.retrieval.library import ReferenceLibrary, open_library
from services.retrieval.neighbours import unit
from services.retrieval.search import ExactSearch
from services.retrieval.similarity import grad_cam, normalise_places, similarity_map
from training.command import explained, program_parser
from training.crops.packs import Pack
from training.crops.sources import Sources
from training.datasets.dataset import Subset
from training.datasets.single_cells import AML_CELLS
from training.export.onnx_model import INPUT
from training.metrics.by_patient import Interval, bootstrap_of
from training.recipes.config import Input, InputKind

Float = NDArray[np.float32]
Bytes = NDArray[np.uint8]
SHARES: Final = (0.0, 0.0625, 0.125, 0.25, 0.5, 0.75, 1.0)
"""Shares of the places that are taken away or given back."""
BLUR: Final = 12.0
"""Standard deviation in px of the blur that takes a place away: its colour stays, its structure goes."""
CENTRE: Final = 0.25
"""Standard deviation of the Gaussian map, as a share of the side."""
_OUTPUTS: Final = ("embedding", PLACE_EMBEDDINGS)


@dataclass(frozen=True)
class Curves:
    """Areas under the curves of similarity against the share of places, float64 (N,), by name of the map."""

    deletion: Mapping[str, NDArray[np.float64]]
    insertion: Mapping[str, NDArray[np.float64]]


def curves(session: Any, pack: Pack, library: ReferenceLibrary) -> Curves:
    """Measure every cell of a pack."""
    search = ExactSearch(library.embeddings)
    deletion: dict[str, list[float]] = {}
    insertion: dict[str, list[float]] = {}
    for number, pixels in enumerate(track(pack.pixels, "cells")):
        embedding, places = session.run(list(_OUTPUTS), {INPUT: pixels[None]})
        query, normal = unit(embedding), normalise_places(places[0])
        known = library.embeddings[search.nearest(query, 1)[0][0, 0]]
        blurred = np.asarray(cv2.GaussianBlur(pixels, (0, 0), BLUR), np.uint8)
        for name, scores in maps_of(normal, known, number).items():
            deletion.setdefault(name, []).append(_area(session, removals(pixels, blurred, scores), known))
            insertion.setdefault(name, []).append(_area(session, removals(blurred, pixels, scores), known))
    return Curves(*({name: np.array(v) for name, v in found.items()} for found in (deletion, insertion)))


def maps_of(places: Float, known: Float, seed: int) -> dict[str, Float]:
    """The maps that are compared, float32 (h, w) each."""
    height, width = places.shape[:2]
    y, x = (np.linspace(-0.5, 0.5, n, endpoint=False) + 0.5 / n for n in (height, width))
    return {
        "similarity map": similarity_map(places, known),
        "Grad-CAM": grad_cam(places, known),
        "random": np.random.default_rng(seed).random((height, width)).astype(np.float32),
        "centre": np.exp(-(y[:, None] ** 2 + x[None] ** 2) / (2 * CENTRE**2)).astype(np.float32),
    }


def removals(whole: Bytes, without: Bytes, scores: Float) -> Bytes:
    """Crops (len(SHARES), side, side, 3) in which the places of highest score are replaced, more and more of them."""
    height, width = scores.shape
    order = np.argsort(-scores.ravel(), kind="stable")
    made = []
    for share in SHARES:
        taken = np.zeros(order.size, np.uint8)
        taken[order[: round(share * order.size)]] = 1
        mask = cv2.resize(taken.reshape(height, width), whole.shape[1::-1], interpolation=cv2.INTER_NEAREST)[..., None] > 0
        made.append(np.where(mask, without, whole))
    return np.stack(made)


def _area(session: Any, crops: Bytes, known: Float) -> float:
    (embeddings,) = session.run(["embedding"], {INPUT: crops})
    return float(np.trapezoid(unit(embeddings) @ known, SHARES))


def differences(measured: Mapping[str, NDArray[np.float64]], patients: NDArray[np.str_], sign: float) -> dict[str, Interval]:
    """By how much each map does better than random and centre, by patient; above 0 is better."""
    found = {}
    for name in ("similarity map", "Grad-CAM"):
        for other in ("random", "centre"):
            better = sign * (measured[name] - measured[other])
            found[f"{name} better than {other}"] = bootstrap_of(partial(_mean, better), patients)
    return found


def _mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    return float((weights * values).sum() / weights.sum())


def forget(path: Path, folder: Path, crops: Bytes, library: ReferenceLibrary) -> list[tuple[int, float]]:
    """Correlation of the maps with the true ones after the weights of the last n layers were permuted, for growing n."""
    model = onnx.load(str(path))
    layers = [i for i in model.graph.initializer if len(i.dims) >= 2]
    used = {name: position for position, node in enumerate(model.graph.node) for name in node.input}
    layers.sort(key=lambda layer: -used.get(layer.name, 0))
    random = np.random.default_rng(0)
    true = _maps(path, crops, library)
    found = []
    for count, layer in enumerate(layers, start=1):
        values = numpy_helper.to_array(layer)
        layer.CopyFrom(numpy_helper.from_array(random.permutation(values.ravel()).reshape(values.shape), layer.name))
        if count in (1, 2, 4, 8, 16, len(layers)):
            onnx.save(model, str(folder / "forgotten.onnx"))
            maps = _maps(folder / "forgotten.onnx", crops, library)
            found.append((count, float(np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(true, maps, strict=True)]))))
    return found


def _maps(path: Path, crops: Bytes, library: ReferenceLibrary) -> list[Float]:
    session, search = open_session(path, threads=1), ExactSearch(library.embeddings)
    embeddings, places = session.run(list(_OUTPUTS), {INPUT: crops})
    nearest = search.nearest(unit(embeddings), 1)[0][:, 0]
    return [similarity_map(normalise_places(p), library.embeddings[n]) for p, n in zip(places, nearest, strict=True)]


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = program_parser("faithfulness", __doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folder of aml_cells, or a pack of it")
    parser.add_argument("--release", default="", help="release id or system; the default release if not given")
    parser.add_argument("--cells", type=int, default=200, help="cells that are measured (default: %(default)s)")
    parser.add_argument("--cache", type=Path, default=Path("build/packs"), help="folder where prepared crops are kept (default: %(default)s)")
    given = parser.parse_args(arguments)
    settings = CommonSettings()
    store = ReleaseStore(settings.releases, settings.model_repository)
    release = store.resolve(given.release)
    focus = FocusParameters(**release.preprocessing.model_dump())
    sources = Sources.find(given.data, given.cache)
    pack = sources.pack(AML_CELLS, Input(kind=InputKind.REGISTERED_SHARPENED, side=release.input.side), focus=focus)
    chosen = np.flatnonzero(pack.in_subset(Subset.CALIBRATION) & (pack.is_blast >= 0) & (pack.measures["accepted"] > 0.5))
    cells = pack.select(np.sort(np.random.default_rng(0).permutation(chosen)[: given.cells]))
    path, library = store.model_path(release.embedder), open_library(store.library_path(release))
    measured = curves(open_session(path, threads=1), cells, library)
    print(f"{release.id}, {len(cells)} cells of {len(np.unique(cells.groups))} calibration patients")
    for name, areas, sign in (("deletion", measured.deletion, -1.0), ("insertion", measured.insertion, 1.0)):
        print(f"{name}: " + ", ".join(f"{m} {v.mean():.4f}" for m, v in areas.items()))
        for what, interval in differences(areas, cells.groups, sign).items():
            print(f"  {what}: {interval}")
    with TemporaryDirectory() as folder:
        for count, correlation in forget(path, Path(folder), cells.pixels[:64], library):
            print(f"last {count} layers permuted: correlation with the true maps {correlation:.3f}")


if __name__ == "__main__":
    main()
