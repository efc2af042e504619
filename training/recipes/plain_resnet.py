"""Recipe: a narrow plain ResNet with an embedding, from ``aml_cells`` to a release.

    python -m training.recipes.plain_resnet --data DIR

Steps: register and sharpen all cells with the functions that serve; train on 46 patients; fit temperature, fusion,
conformal thresholds and false-blast table on 18; export to ONNX; choose the reference library; score the other 18
patients; write ``model_repository/<model>`` and ``releases/<id>``. Prepared cells and weights are kept in
``--work``, so that a second run resumes after the last finished step.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from services.common.engines.onnx_runtime import open_session
from services.common.releases import sha256_of
from services.common.settings import PROJECT_ROOT
from services.gateway.fusion import CellRule, blast_probability, fuse, judge_cell
from services.preprocessing.unsharpening import FocusParameters
from services.retrieval.library import ReferenceLibrary
from services.retrieval.neighbours import unit, vote
from services.retrieval.search import ExactSearch
from training import calibration, library
from training.architectures.resnet import PlainResNet
from training.datasets.single_cells import AML_CELLS, PBC_CELLS, PBC_MATURE_CLASSES, CellImage, read_aml_cells, read_pbc_cells
from training.evaluation.metrics import Interval, auc, balanced_accuracy, bootstrap_by_patient, brier_score, expected_calibration_error
from training.export.model_configs import write_model_configs
from training.export.onnx_model import INPUT, OUTPUTS, ServedNetwork, export_onnx
from training.fitting import FittingOptions, TrainingCells, channel_statistics, fit, patient_weights
from training.focus_calibration import fit_focus_parameters
from training.patients import Split
from training.preparation import PreparedCells, prepare
from training.releases import ReleaseParts, write_release

SYSTEM: Final = "plain_resnet"
SIDE: Final = 128
VOTING_NEIGHBOURS: Final = 15
MAX_DISAGREEMENT: Final = 0.6
_FOCUS_SAMPLE: Final = 600


@dataclass(frozen=True)
class Options:
    """Where things are and how large the network is."""

    data: Path
    work: Path
    releases: Path
    model_repository: Path
    release: str
    width: int
    fitting: FittingOptions


@dataclass(frozen=True)
class Judged:
    """Outputs of the exported network for prepared cells, with what is known of them."""

    images: list[CellImage]
    prepared: PreparedCells
    logits: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    patches: NDArray[np.float32]

    @property
    def is_blast(self) -> NDArray[np.int64]:
        """1 blast, 0 normal, -1 ambiguous."""
        return np.array([-1 if c.is_blast is None else c.is_blast for c in self.images], np.int64)

    @property
    def patients(self) -> NDArray[np.str_]:
        """Patient of each cell."""
        return np.array([c.patient for c in self.images])

    def of(self, split: Split) -> NDArray[np.bool_]:
        """Cells of a split that are not ambiguous."""
        return np.array([c.split is split for c in self.images]) & (self.is_blast >= 0)


def main() -> None:
    """Run the recipe from the command line."""
    options = _parse_arguments()
    aml = read_aml_cells(options.data / AML_CELLS)
    pbc = read_pbc_cells(options.data / PBC_CELLS)
    parameters = _focus_parameters(options, aml)
    prepared = _prepared(options, AML_CELLS, aml, parameters)
    prepared_pbc = _prepared(options, PBC_CELLS, pbc, parameters)
    network, mean, std = _network(options, aml, prepared)

    margin, labels, patients = _calibration_margins(network, mean, std, aml, prepared)
    temperature = calibration.fit_temperature(margin, labels, calibration.patient_class_weights(labels, patients))
    model = f"{SYSTEM}_{SIDE}"
    onnx_path = options.model_repository / model / "1" / "model.onnx"
    served = ServedNetwork(network, mean, std, temperature)
    calibration_cells = np.array([aml[i].split is Split.CALIBRATION for i in prepared.index])
    gap = export_onnx(served, SIDE, onnx_path, prepared.sharpened[calibration_cells])
    write_model_configs(onnx_path.parents[1], onnx_path, SIDE)

    judged, judged_pbc = _judge(onnx_path, aml, prepared), _judge(onnx_path, pbc, prepared_pbc)
    references = _library(judged)
    library_path = options.releases / options.release / "library.npz"
    library.save(references, library_path)

    rule, numbers = _calibrate(judged, references, temperature)
    decision = {
        "false_blasts": _false_blasts(judged, references, rule),
        "min_cells_for_negative": 100,
        "max_fraction_for_negative": 0.05,
        "origin": {
            "false_blasts": "99th percentile, resampled by calibration patient (training/calibration.py)",
            "min_cells_for_negative": "the usual differential count of 100 nucleated cells",
            "max_fraction_for_negative": "a convention of this project: 5 %, the customary limit in marrow; healthy blood holds no blasts",
        },
    }
    figures = {"largest difference of ONNX and torch, calibration cells": gap, **_figures(judged, judged_pbc, references, rule)}
    for name, figure in figures.items():
        print(f"{name}: {figure}")
    _print_by_patient(judged, references, rule)
    write_release(
        ReleaseParts(
            id=options.release,
            system=SYSTEM,
            title="Leukaemic blast against normal leukocyte; narrow plain ResNet at 128 px with nearest known cells.",
            detects="blast_lineage_unspecified",
            side=SIDE,
            model=model,
            onnx=onnx_path,
            library=library_path,
            preprocessing=asdict(parameters),
            calibration=numbers,
            decision=decision,
            data={
                "training": "aml_cells, 46 patients (training/aml_cells_patients.csv); promyelocytes left out as ambiguous",
                "calibration": "aml_cells, 18 patients",
                "test": "aml_cells, 18 patients, how often they were scored is logged in docs/results.md; pbc_cells, normal cells of another hospital",
                "origin": "aml_cells: DeepAPL, Johns Hopkins; pbc_cells: Acevedo et al. 2020, Hospital Clinic Barcelona",
            },
            figures=figures,
            limits=(
                "Research demonstration, not a medical device.",
                "Trained on myeloid blasts: says nothing about the lineage and must not be called a detector of ALL.",
                "Never tried on marrow, on cells enlarged more than twofold, or on stains other than Romanowsky stains.",
                "Promyelocytes are neither blasts nor normal cells to this release; it has no answer for them.",
                "Takes many blasts with abundant cytoplasm (monoblast-like) for normal cells: see docs/results.md, by patient.",
            ),
            architecture=f"ResNet-18 layout, width {options.width}, stem 3x3 at full resolution, embedding 64 (training/architectures/resnet.py)",
            training=asdict(options.fitting),
        ),
        options.releases,
        options.model_repository,
    )


def _parse_arguments() -> Options:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds aml_cells and pbc_cells")
    parser.add_argument("--work", type=Path, default=PROJECT_ROOT / "build" / SYSTEM, help="folder for what is resumed")
    parser.add_argument("--releases", type=Path, default=PROJECT_ROOT / "releases")
    parser.add_argument("--model-repository", type=Path, default=PROJECT_ROOT / "model_repository")
    parser.add_argument("--release", default="plain-resnet-1", help="id of the release that is written")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=FittingOptions.epochs)
    parser.add_argument("--seed", type=int, default=FittingOptions.seed)
    given = parser.parse_args()
    fitting = FittingOptions(epochs=given.epochs, seed=given.seed)
    return Options(given.data, given.work, given.releases, given.model_repository, given.release, given.width, fitting)


def _focus_parameters(options: Options, images: list[CellImage]) -> FocusParameters:
    path = options.work / "focus.json"
    if not path.exists():
        training = [c for c in images if c.split is Split.TRAIN]
        chosen = np.random.default_rng(0).permutation(len(training))[:_FOCUS_SAMPLE]
        parameters = fit_focus_parameters([training[i] for i in chosen], SIDE)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(parameters)), encoding="utf-8")
    return FocusParameters(**{name: tuple(values) for name, values in json.loads(path.read_text(encoding="utf-8")).items()})


def _prepared(options: Options, name: str, images: list[CellImage], parameters: FocusParameters) -> PreparedCells:
    path = options.work / f"{name}.npz"
    if not path.exists():
        prepare(images, SIDE, parameters).save(path)
    return PreparedCells.load(path)


def _network(options: Options, images: list[CellImage], prepared: PreparedCells) -> tuple[nn.Module, list[float], list[float]]:
    found = [images[i] for i in prepared.index]
    chosen = np.array([c.split is Split.TRAIN and c.is_blast is not None for c in found]) & prepared.accepted
    names = sorted({c.cell_class for c in images})
    is_blast = np.array([c.is_blast or 0 for c in found], np.int64)[chosen]
    patients = np.array([c.patient for c in found])[chosen]
    classes = np.array([names.index(c.cell_class) for c in found], np.int64)[chosen]
    pixels = prepared.sharpened[chosen]
    mean, std = channel_statistics(pixels)
    torch.manual_seed(options.fitting.seed)
    network: nn.Module = PlainResNet(options.width)
    path = options.work / f"network_{options.width}_{options.fitting.epochs}_{options.fitting.seed}.pt"
    if path.exists():
        network.load_state_dict(torch.load(path, weights_only=True))
    else:
        cells = TrainingCells(pixels, is_blast, classes, patient_weights(patients, is_blast))
        network = fit(network, cells, mean, std, options.fitting)
        temporary = path.with_name(path.name + ".part")
        torch.save(network.state_dict(), temporary)
        temporary.replace(path)
    return network.eval(), mean, std


def _calibration_margins(
    network: nn.Module, mean: list[float], std: list[float], images: list[CellImage], prepared: PreparedCells
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.str_]]:
    found = [images[i] for i in prepared.index]
    chosen = np.array([c.split is Split.CALIBRATION and c.is_blast is not None for c in found])
    served = ServedNetwork(network, mean, std, 1.0).eval()
    with torch.no_grad():
        batches = torch.from_numpy(prepared.sharpened[chosen]).split(256)
        logits = torch.cat([served(batch)[0] for batch in batches]).double().numpy()
    cells = [c for c, keep in zip(found, chosen, strict=True) if keep]
    return logits[:, 1] - logits[:, 0], np.array([c.is_blast for c in cells], np.int64), np.array([c.patient for c in cells])


def _judge(onnx_path: Path, images: list[CellImage], prepared: PreparedCells) -> Judged:
    session = open_session(onnx_path, threads=2)
    pixels = prepared.sharpened
    parts = [session.run(list(OUTPUTS), {INPUT: pixels[i : i + 32]}) for i in range(0, len(pixels), 32)]
    logits, embeddings, patches = (np.concatenate(p) for p in zip(*parts, strict=True))
    return Judged([images[i] for i in prepared.index], prepared, logits, embeddings, patches)


def _library(judged: Judged) -> ReferenceLibrary:
    training = judged.of(Split.TRAIN) & judged.prepared.accepted
    images = [c for c, keep in zip(judged.images, training, strict=True) if keep]
    candidates = library.Candidates(
        embeddings=judged.embeddings[training],
        patches=judged.patches[training],
        is_blast=judged.is_blast[training] == 1,
        reference_ids=np.array([f"{c.source}/{c.key}" for c in images]),
        cell_classes=np.array([c.cell_class for c in images]),
        patients=np.array([c.patient for c in images]),
        image_sha256=np.array([sha256_of(c.path) for c in images]),
        centers=np.stack([judged.prepared.center_x, judged.prepared.center_y], axis=1)[training],
        radii=judged.prepared.radius[training],
    )
    return library.build(candidates, library.choose(candidates))


def _votes(judged: Judged, references: ReferenceLibrary) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    indices, distances = ExactSearch(references.embeddings).nearest(unit(judged.embeddings), VOTING_NEIGHBOURS)
    return vote(distances, references.is_blast[indices]).astype(np.float64), distances[:, 0].astype(np.float64)


def _calibrate(judged: Judged, references: ReferenceLibrary, temperature: float) -> tuple[CellRule, dict[str, object]]:
    chosen = judged.of(Split.CALIBRATION) & judged.prepared.accepted
    network = blast_probability(judged.logits)[chosen]
    votes, distances = (v[chosen] for v in _votes(judged, references))
    labels, patients = judged.is_blast[chosen], judged.patients[chosen]
    weight = calibration.fit_network_weight(network, votes, labels, calibration.patient_class_weights(labels, patients))
    thresholds = calibration.min_probabilities(fuse(network, votes, weight), labels, patients)
    rule = CellRule(weight, thresholds, MAX_DISAGREEMENT)
    numbers: dict[str, object] = {
        "temperature": round(temperature, 4),
        "voting_neighbours": VOTING_NEIGHBOURS,
        "network_weight": weight,
        "coverage": calibration.COVERAGE,
        "min_probability": thresholds,
        "max_disagreement": MAX_DISAGREEMENT,
        "nearest_distances": [round(float(q), 4) for q in np.quantile(distances, np.linspace(0, 1, 21))],
    }
    return rule, numbers


def _verdicts(judged: Judged, references: ReferenceLibrary, rule: CellRule) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Fused probability, suspected, indeterminate of every cell, as the gateway says them."""
    network, (votes, _) = blast_probability(judged.logits), _votes(judged, references)
    verdicts = [judge_cell(float(n), float(v), bool(a), (), rule) for n, v, a in zip(network, votes, judged.prepared.accepted, strict=True)]
    return (
        np.array([v.probability for v in verdicts]),
        np.array([v.suspected for v in verdicts]),
        np.array([v.indeterminate for v in verdicts]),
    )


def _false_blasts(judged: Judged, references: ReferenceLibrary, rule: CellRule) -> tuple[tuple[int, int], ...]:
    chosen = judged.of(Split.CALIBRATION)
    _, suspected, _ = _verdicts(judged, references, rule)
    return calibration.false_blast_table(suspected[chosen], judged.is_blast[chosen], judged.patients[chosen])


def _figures(judged: Judged, pbc: Judged, references: ReferenceLibrary, rule: CellRule) -> dict[str, Interval | float]:
    chosen = judged.of(Split.TEST)
    labels, patients = judged.is_blast[chosen], judged.patients[chosen]
    network, votes = blast_probability(judged.logits)[chosen], _votes(judged, references)[0][chosen]
    all_fused, all_suspected, all_indeterminate = _verdicts(judged, references, rule)
    fused, suspected, indeterminate = all_fused[chosen], all_suspected[chosen], all_indeterminate[chosen]
    calibrated = judged.of(Split.CALIBRATION)
    in_sample = bootstrap_by_patient(auc, all_fused[calibrated], judged.is_blast[calibrated], judged.patients[calibrated])
    figures: dict[str, Interval | float] = {"AUC, calibration patients, fused": in_sample}
    for name, scores in (("network", network), ("vote", votes), ("fused", fused)):
        figures[f"AUC, test patients, {name}"] = bootstrap_by_patient(auc, scores, labels, patients)
        figures[f"balanced accuracy, test patients, {name}"] = bootstrap_by_patient(balanced_accuracy, scores, labels, patients)
    figures["expected calibration error, test patients, fused"] = expected_calibration_error(fused, labels)
    figures["Brier score, test patients, fused"] = brier_score(fused, labels)
    for name, label in (("blasts", 1), ("normal cells", 0)):
        figures[f"suspected, test patients, {name}"] = _share(suspected, labels == label, patients)
        figures[f"indeterminate, test patients, {name}"] = _share(indeterminate, labels == label, patients)
    for name, label in (("blast", 1), ("normal", 0)):
        probability = fused if label else 1.0 - fused
        figures[f"coverage of the prediction sets, test patients, {name}"] = _share(
            probability >= rule.min_probability[name], labels == label, patients
        )
    promyelocytes = np.array([c.cell_class == "promyelocyte" and c.split is Split.TEST for c in judged.images])
    figures["suspected, test patients, promyelocytes"] = float(all_suspected[promyelocytes].mean())
    _, suspected_pbc, indeterminate_pbc = _verdicts(pbc, references, rule)
    mature = np.array([c.cell_class in PBC_MATURE_CLASSES for c in pbc.images])
    immature = np.array([c.cell_class == "ig" for c in pbc.images])
    figures["not suspected, pbc_cells, mature cells"] = float(1.0 - suspected_pbc[mature].mean())
    figures["indeterminate, pbc_cells, mature cells"] = float(indeterminate_pbc[mature].mean())
    figures["not suspected, pbc_cells, immature granulocytes"] = float(1.0 - suspected_pbc[immature].mean())
    return figures


def _print_by_patient(judged: Judged, references: ReferenceLibrary, rule: CellRule) -> None:
    """Print, for every test patient, what became of blasts and normal cells: where a release fails shows here first."""
    fused, suspected, indeterminate = _verdicts(judged, references, rule)
    chosen = judged.of(Split.TEST)
    print("patient  blasts suspected undecided  normal suspected undecided  AUC")
    for patient in np.unique(judged.patients[chosen]):
        of_patient = chosen & (judged.patients == patient)
        blasts, normal = of_patient & (judged.is_blast == 1), of_patient & (judged.is_blast == 0)
        counts = [f"{m.sum():6d} {suspected[m].sum():9d} {indeterminate[m].sum():9d}" for m in (blasts, normal)]
        print(f"{patient:7s}  {'  '.join(counts)}  {auc(fused[of_patient], judged.is_blast[of_patient]):.3f}")


def _share(flags: NDArray[np.bool_], of: NDArray[np.bool_], patients: NDArray[np.str_]) -> Interval:
    def mean(scores: NDArray[np.float64], _: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
        return float((scores * weights).sum() / weights.sum()) if weights.sum() > 0 else float("nan")

    return bootstrap_by_patient(mean, flags[of].astype(np.float64), np.zeros(int(of.sum()), np.int64), patients[of])


if __name__ == "__main__":
    main()
