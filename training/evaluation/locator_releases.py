"""What the releases say of cells that a locator finds: their AUC on calibration patients, with cells by the stain and by the locator.

dl4all study locator-releases --data DATA --locator model_repository/locator_1/1/model.onnx

The networks of the shipped releases learned from crops that were located by the stain. A locator that outlines cells otherwise gives them other crops.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from services.common.releases import Release, ReleaseStore
from services.gateway.rules import cell_rule
from services.preprocessing.unsharpening import FocusParameters
from services.retrieval.library import open_library
from training.command import explained, program_parser
from training.crops.making import prepare
from training.crops.packs import Pack
from training.datasets.dataset import Dataset, Subset
from training.datasets.single_cells import AML_CELLS, read_aml_cells
from training.files.whole_files import write_json
from training.metrics.by_patient import Interval, auc, bootstrap_of
from training.recipes.config import Input, InputKind
from training.releases.verdicts import Judged, decide, judge

Double = NDArray[np.float64]
ALLOWED: Final = 0.003
"""A release whose AUC falls by more is to be trained anew on cells that the locator found."""
STAIN, LEARNED = "stain", "locator"


def calibration_cells(root: Path) -> Dataset:
    """The unambiguous cells of the calibration patients of ``aml_cells``."""
    dataset = read_aml_cells(root)
    return replace(dataset, images=tuple(i for i in dataset.images if i.subset is Subset.CALIBRATION and i.is_blast is not None))


def compare(dataset: Dataset, store: ReleaseStore, locator: Path) -> dict[str, Any]:
    """AUC of every release by both ways to locate, and how far the cells agree.

    Args:
        dataset: calibration cells.
        store: of the releases.
        locator: ONNX file.
    """
    packs: dict[tuple[int, str], tuple[Pack, Pack]] = {}
    found: dict[str, Any] = {"releases": {}}
    for release in store.releases:
        key = (release.input.side, release.preprocessing.model_dump_json())
        if key not in packs:
            packs[key] = both_ways(dataset, release, locator)
        found["releases"][release.id] = _of_release(release, store, *packs[key])
    by_stain, by_locator = next(iter(packs.values()))
    return {**found, **agreement(by_stain, by_locator), "images": len(dataset.images)}


def both_ways(dataset: Dataset, release: Release, locator: Path) -> tuple[Pack, Pack]:
    """Crops of the cells that both ways find, as the release takes them: by the stain, and by the locator."""
    wanted = Input(kind=InputKind.REGISTERED_SHARPENED, side=release.input.side)
    focus = FocusParameters(**release.preprocessing.model_dump())
    one, other = (prepare(dataset, wanted, focus, path) for path in (None, locator))
    shared = np.intersect1d(one.keys, other.keys)
    return one.select(np.isin(one.keys, shared)), other.select(np.isin(other.keys, shared))


def agreement(by_stain: Pack, by_locator: Pack) -> dict[str, float]:
    """How far centres and radii of the same cells agree: shares of the radius by the stain."""
    one, other = by_stain.measures, by_locator.measures
    apart = np.hypot(one["center_x"] - other["center_x"], one["center_y"] - other["center_y"]) / one["radius"]
    ratio = other["radius"] / one["radius"]
    return {
        "cells": len(by_stain),
        "centre, median": float(np.median(apart)),
        "centre, 95th percentile": float(np.percentile(apart, 95)),
        "radius ratio, median": float(np.median(ratio)),
        "radius ratio, 5th percentile": float(np.percentile(ratio, 5)),
        "radius ratio, 95th percentile": float(np.percentile(ratio, 95)),
    }


def _of_release(release: Release, store: ReleaseStore, by_stain: Pack, by_locator: Pack) -> dict[str, Any]:
    path = store.model_path(release.network)
    judged = {name: judge(path, pack, f"{release.id}, {name}") for name, pack in ((STAIN, by_stain), (LEARNED, by_locator))}
    scores = {name: _fused(release, store, j) for name, j in judged.items()}
    labels = by_stain.is_blast.astype(np.int64)
    values = {name: auc(s, labels) for name, s in scores.items()}
    difference = difference_of_auc(scores[LEARNED], scores[STAIN], labels, by_stain.groups)
    networks = {f"{name}, network": auc(j.probability, labels) for name, j in judged.items()}
    accepted = {f"{name}, accepted": float(j.accepted.mean()) for name, j in judged.items()}
    return {**values, **networks, **accepted, "difference": difference.value, "low": difference.low, "high": difference.high}


def _fused(release: Release, store: ReleaseStore, judged: Judged) -> Double:
    """Probability of blast of every cell, network and neighbours together, as the gateway gives it."""
    references = open_library(store.library_path(release), f"{release.embedder.model}/{release.embedder.version}")
    return decide(judged, references, cell_rule(release), release.calibration.voting_neighbours).fused


def difference_of_auc(one: Double, other: Double, labels: NDArray[np.int64], patients: NDArray[np.str_]) -> Interval:
    """AUC by ``one`` less that by ``other`` on the same cells, with its interval by patient."""
    return bootstrap_of(lambda weights: auc(one, labels, weights) - auc(other, labels, weights), patients)


def table(record: Mapping[str, Any]) -> Iterator[str]:
    """Markdown lines."""
    yield "| release | AUC, cells by the stain | by the locator | difference | 95 % interval by patient | |"
    yield "|---|---|---|---|---|---|"
    for name, row in record["releases"].items():
        verdict = "trained anew" if row["difference"] < -ALLOWED else ""
        yield (
            f"| `{name}` | {row[STAIN]:.4f} | {row[LEARNED]:.4f} | {row['difference']:+.4f} | {row['low']:+.4f} to {row['high']:+.4f} | {verdict} |"
        )
    yield ""
    yield (
        f"{record['cells']} of {record['images']} cells are found both ways. Centres differ by {record['centre, median']:.1%} of the radius "
        f"(95th percentile {record['centre, 95th percentile']:.1%}), radii by a factor of {record['radius ratio, median']:.3f} "
        f"({record['radius ratio, 5th percentile']:.3f} to {record['radius ratio, 95th percentile']:.3f})."
    )


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, keep and print the figures."""
    parser = program_parser("locator-releases", __doc__)
    parser.add_argument("--data", type=Path, help="folder that holds aml_cells")
    parser.add_argument("--locator", type=Path, default=Path("model_repository/locator_1/1/model.onnx"), help="exported locator")
    parser.add_argument("--releases", type=Path, default=Path("releases"), help="folder of releases")
    parser.add_argument("--model-repository", type=Path, default=Path("model_repository"), help="folder of models")
    parser.add_argument("--record", type=Path, default=Path("docs/runs/locator-releases.json"), help="where figures are kept")
    parser.add_argument("--print", action="store_true", dest="only_print", help="print the table of the record and do nothing else")
    given = parser.parse_args(arguments)
    if not given.only_print:
        if given.data is None:
            parser.error("--data is missing")
        cells = calibration_cells(given.data / AML_CELLS)
        write_json(given.record, compare(cells, ReleaseStore(given.releases, given.model_repository), given.locator))
    print("\n".join(table(json.loads(given.record.read_text(encoding="utf-8")))))


if __name__ == "__main__":
    main()
