"""From a finished run of patches to a release: export, thresholds, figures, files. Files are written only if every check passed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from services.common.cell_classes import PATCH_LABELS
from services.common.engines.onnx_runtime import open_session
from services.common.releases import ReleaseStore, sha256_of
from services.patching.grid import OVERLAP
from services.patching.grid import SIDE as PATCH_SIDE
from training.architectures.network import parameter_count
from training.crops.composition import Composition, compose_fields
from training.crops.packs import Pack
from training.crops.sources import Sources
from training.datasets.composed_fields import COMPOSED_FIELDS, RED_CELL_RADIUS, ComposedField
from training.datasets.dataset import Subset
from training.datasets.single_cells import AML_CELLS
from training.errors import RecipeError
from training.export.model_configs import write_model_configs
from training.export.onnx_model import ServedPatchNetwork, export_onnx
from training.learning.classification_task import logits_of
from training.metrics.by_patient import Interval, auc, balanced_accuracy, bootstrap_by_patient, bootstrap_of
from training.metrics.multi_label import label_accuracy, label_threshold, sample_jaccard
from training.recipes.config import Recipe
from training.releases.build import SCORED_FILE, check_id, model_name
from training.releases.calibration import fit_temperature, patient_class_weights
from training.releases.evidence import EVERY_RELEASE, MYELOID, ORIGINS
from training.releases.patch_location import JudgedField, best_location, count_cells, judge_field, judge_patches
from training.releases.write import PatchReleaseParts, install_release, write_patch_release
from training.runs.folder import FINAL, Trained, load_trained

Figures = dict[str, Interval | float]
Double = NDArray[np.float64]
MODEL_FILE: Final = "model.onnx"
LIMITS: Final = (
    *EVERY_RELEASE,
    *MYELOID,
    "The network of patches was trained on fields composed of single cells, not on photographed ones: its figures on composed fields say "
    "how well it learned them, those on other sources in docs/results.md say how far that carries.",
    "Fails on dark, unevenly lit fields and on stains unlike its own: see chula_fields and aria_fields in docs/results.md.",
    "Where cells are found rests on class activations of patches alone: no position was ever trained on.",
)


@dataclass(frozen=True)
class PatchBuildOptions:
    """Options of a build.

    Attributes:
        run: folder of a finished run of patches.
        release: id of the release.
        cells: release or system whose cell network, library and calibration are taken over.
        releases, model_repository: where that one is, and where this one is written.
        replace: whether a release of this id may be replaced.
        composition: of the whole fields that location is tuned and measured on.
    """

    run: Path
    release: str
    cells: str
    releases: Path
    model_repository: Path
    replace: bool = False
    composition: Composition = field(default_factory=Composition)


@dataclass(frozen=True)
class _Tuned:
    min_probability: Mapping[str, float]
    suppression_radius: float
    min_activation: float


def build(options: PatchBuildOptions, sources: Sources) -> Figures:
    """Build a release. It is made whole in a folder beside the others and moved there at the end.

    Returns:
        All figures of the release.

    Raises:
        GateError: the export does not say what the network says.
        TrainingError: the run, the data or the id are at fault.
    """
    model = model_name(options.release)
    check_id(options.release, model, options.releases, options.model_repository, replace=options.replace)
    store = ReleaseStore(options.releases, options.model_repository)
    cells = store.resolve(options.cells)
    trained = load_trained(options.run / FINAL)
    recipe = Recipe.model_validate(trained.about["recipe"])
    pack = _pack(trained, recipe, sources)
    with TemporaryDirectory(prefix=".release-", dir=options.model_repository.parent) as temporary:
        staging = Path(temporary)
        releases, models = staging / "releases", staging / "model_repository"
        for name in {cells.network.model, cells.embedder.model}:
            shutil.copytree(options.model_repository / name, models / name)
        (releases / options.release).mkdir(parents=True)
        shutil.copyfile(store.library_path(cells), releases / options.release / cells.library.file)
        path = models / model / "1" / MODEL_FILE
        gap = _export(trained, pack, path)
        write_model_configs(path.parents[1], path, pack.header.side)
        tuned, figures = _measure(path, pack, sources, options.composition)
        figures = {"largest difference of ONNX and torch, calibration patches": gap, **figures}
        _log_scoring(options, path, figures)
        parts = _parts(options.release, model, path, trained, recipe, pack, tuned, figures)
        write_patch_release(cells, parts, releases, models)
        install_release(options.release, model, staging, options.releases, options.model_repository)
    return figures


def _pack(trained: Trained, recipe: Recipe, sources: Sources) -> Pack:
    if trained.about["target"] != COMPOSED_FIELDS:
        raise RecipeError(f"A release of patches is built of {COMPOSED_FIELDS}; this run was trained on {trained.about['target']}.")
    pack = sources.pack(COMPOSED_FIELDS, recipe.fine_tuning.input)
    if pack.digest() != trained.about["target_digest"]:
        raise RecipeError("The patches are not those that the network was trained on: make the same pack with `dl4all data compose`.")
    return pack


def _export(trained: Trained, pack: Pack, path: Path) -> float:
    """Export with a temperature per label, fitted on calibration patients; returns the largest difference from torch."""
    calibrating = pack.in_subset(Subset.CALIBRATION)
    logits = logits_of(trained.network, pack.pixels[calibrating], trained.normaliser, torch.device("cpu")).astype(np.float64)
    labels, patients = pack.labels[calibrating].astype(np.int64), pack.groups[calibrating]
    temperatures = tuple(fit_temperature(logits[:, k], labels[:, k], patient_class_weights(labels[:, k], patients)) for k in range(len(PATCH_LABELS)))
    served = ServedPatchNetwork(trained.network, list(trained.normaliser.mean), list(trained.normaliser.std), temperatures)
    return export_onnx(served, pack.header.side, path, pack.pixels[calibrating])


def _measure(path: Path, pack: Pack, sources: Sources, composition: Composition) -> tuple[_Tuned, Figures]:
    """Tune on calibration patients, then measure them and, once, the test patients."""
    session = open_session(path, threads=1)
    probabilities = _sigmoid(judge_patches(session, pack.pixels)[0])
    labels = pack.labels.astype(np.int64)
    calibrating = pack.in_subset(Subset.CALIBRATION)
    thresholds = {name: label_threshold(probabilities[calibrating, k], labels[calibrating, k] > 0) for k, name in enumerate(PATCH_LABELS)}
    fields, judged = _judged(session, sources, composition, pack.header.side, Subset.CALIBRATION)
    radius, min_activation = best_location(fields, judged)
    tuned = _Tuned(thresholds, radius, round(min_activation, 4))
    figures: Figures = {}
    for subset in (Subset.CALIBRATION, Subset.TEST):
        who, chosen = f"{subset.value} patients", pack.in_subset(subset)
        figures |= patch_figures(probabilities[chosen], labels[chosen], pack.groups[chosen], thresholds, who)
        if subset is Subset.TEST:
            fields, judged = _judged(session, sources, composition, pack.header.side, subset)
        figures |= location_figures(fields, judged, tuned.suppression_radius, tuned.min_activation, who)
    return tuned, figures


def patch_figures(probabilities: Double, labels: NDArray[np.int64], patients: NDArray[np.str_], thresholds: Mapping[str, float], who: str) -> Figures:
    """Figures of both labels, and of the patch as a whole, with intervals by patient.

    Args:
        probabilities: (N, 2).
        labels: (N, 2), 0 or 1.
        patients: (N,).
        thresholds: of each label.
        who: whose patches they are, for the names of the figures.
    """
    figures: Figures = {}
    for k, name in enumerate(PATCH_LABELS):
        threshold = thresholds[name]

        def accuracy(scores: Double, truth: NDArray[np.int64], weights: Double, threshold: float = threshold) -> float:
            return balanced_accuracy(scores, truth, weights, threshold)

        figures[f"AUC, {name} present, {who}"] = bootstrap_by_patient(auc, probabilities[:, k], labels[:, k], patients)
        figures[f"balanced accuracy, {name} present, {who}"] = bootstrap_by_patient(accuracy, probabilities[:, k], labels[:, k], patients)
    predicted = probabilities >= np.array([thresholds[name] for name in PATCH_LABELS])
    for figure, statistic in (("1 - Hamming loss", label_accuracy), ("Jaccard by sample", sample_jaccard)):
        figures[f"{figure}, {who}"] = bootstrap_of(_of(statistic, predicted, labels > 0), patients)
    return figures


def location_figures(fields: Sequence[ComposedField], judged: Sequence[JudgedField], radius: float, min_activation: float, who: str) -> Figures:
    """Recall and precision of the cells of composed fields, and the share of the found cells that have their own class."""
    counts = count_cells(fields, judged, radius, min_activation).astype(np.float64)
    patients = np.array([f.patient for f in fields])

    def ratio(numerator: int, denominator: int) -> Interval:
        return bootstrap_of(lambda w: float((w * counts[:, numerator]).sum() / max(1.0, (w * counts[:, denominator]).sum())), patients)

    return {
        f"recall of cells, composed fields, {who}": ratio(0, 3),
        f"precision of cells, composed fields, {who}": ratio(0, 2),
        f"class right of the cells found, composed fields, {who}": ratio(1, 0),
    }


def _of(statistic: Callable[..., float], predicted: NDArray[np.bool_], labels: NDArray[np.bool_]) -> Callable[[Double], float]:
    return lambda weights: statistic(predicted, labels, weights)


def _judged(session: Any, sources: Sources, composition: Composition, side: int, subset: Subset) -> tuple[list[ComposedField], list[JudgedField]]:
    fields = compose_fields(sources.dataset(AML_CELLS), composition, subset)
    return fields, [judge_field(session, f.pixels, f.patches, side) for f in fields]


def _sigmoid(logits: NDArray[np.float32]) -> Double:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits.astype(np.float64), -50, 50))), np.float64)


def _log_scoring(options: PatchBuildOptions, path: Path, figures: Figures) -> None:
    row = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "release": options.release,
        "file": sha256_of(path),
        "figures": {name: str(value) for name, value in figures.items() if "test patients" in name},
    }
    with (options.run / SCORED_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _parts(release: str, model: str, path: Path, trained: Trained, recipe: Recipe, pack: Pack, tuned: _Tuned, figures: Figures) -> PatchReleaseParts:
    network = recipe.network
    names = {Subset.TRAIN: "training", Subset.CALIBRATION: "calibration", Subset.TEST: "test"}
    counts = {s: (int(pack.in_subset(s).sum()), len(np.unique(pack.groups[pack.in_subset(s)]))) for s in names}
    data = {names[s]: f"{COMPOSED_FIELDS}, {patches} patches of {patients} patients" for s, (patches, patients) in counts.items()}
    return PatchReleaseParts(
        id=release,
        system=recipe.system,
        title=recipe.title,
        model=model,
        file=path,
        side=pack.header.side,
        patch_side=PATCH_SIDE,
        overlap=OVERLAP,
        nominal_red_cell_radius=RED_CELL_RADIUS,
        min_probability=tuned.min_probability,
        min_activation=tuned.min_activation,
        suppression_radius=tuned.suppression_radius,
        data={**data, "made": "; ".join(pack.header.notes), "origin": f"{AML_CELLS}: {ORIGINS[AML_CELLS]}"},
        figures=figures,
        limits=LIMITS,
        architecture=f"{network.architecture.value}, width {network.width}, stem {network.stem.value}; {parameter_count(trained.network):,} parameters",
        training={**trained.about["recipe"], "seed": trained.about["seed"]},
    )
