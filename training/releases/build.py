"""From a finished run to a release: export, gates, library, calibration, figures, files. Files are written only if every check passed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from services.common.cell_classes import BLAST, CLASSES, NORMAL, NOTHING
from services.common.releases import RELEASE_ID, Detects, Role, sha256_of
from services.gateway.fusion import CellRule
from services.retrieval.library import ReferenceLibrary
from training.architectures.network import parameter_count
from training.crops.packs import Pack
from training.crops.sources import Sources, focus_of
from training.datasets.dataset import Subset
from training.datasets.single_cells import PBC_CELLS, PBC_IMMATURE_CLASS, PBC_MATURE_CLASSES
from training.errors import GateError, RecipeError
from training.export.gates import GateReport, speed_up
from training.export.lighter import divide_logits, write_fp16, write_int8
from training.export.model_configs import write_model_configs
from training.export.onnx_model import ACTIVATIONS, ServedNetwork, export_onnx
from training.learning.classification_task import logits_of
from training.metrics.by_patient import Interval, auc, balanced_accuracy, bootstrap_by_patient, protocol_figures
from training.recipes.config import CpuFile, Gates, InputKind, Recipe, Selection, load_recipe, recipe_names
from training.releases import calibration
from training.releases import reference_library as library
from training.releases.cell_rule import false_blasts, fit_cell_rule
from training.releases.evidence import ORIGINS, detected_by, limits_of, refuse_figures_only
from training.releases.verdicts import CalibrationCells, Judged, Verdicts, decide, judge, votes
from training.releases.write import ReleaseParts, install_release, write_release
from training.runs.arms import read_arm, run_description
from training.runs.folder import ALL_PATIENTS, FINAL, GATES, RUN_FILE, Trained, load_trained
from training.runs.target import check_test_subset, crops_without_cells, without_copies

VOTING_NEIGHBOURS: Final = 15
MAX_DISAGREEMENT: Final = 0.6
MIN_NOTHING: Final = 0.5
FP32, FP16, INT8 = "model.onnx", "model_fp16.onnx", "model_int8.onnx"
SCORED_FILE: Final = "test_scores.jsonl"
_VERSION: Final = "1"
_IMMATURE: Final = "Immature granulocytes of patients without leukaemia are hard: the figures on pbc_cells say how hard."


@dataclass(frozen=True)
class BuildOptions:
    """Options of a build.

    Attributes:
        run: folder of a finished run.
        cross_validation: folder of a cross-validated run of the same recipe; None leaves that gate out, and the card says so.
        release: id of the release.
        releases, model_repository: where it is written.
        detects: what it detects, where the data do not say.
        replace: whether a release of this id may be replaced.
        exemplars: references, at most, whose place embeddings the library keeps for maps of their own.
        gates: what the run and its files must pass; what CPUs are served.
        half: whether a GPU is given a float16 file also where the CPU is given the float32 one, which both can share.
    """

    run: Path
    cross_validation: Path | None
    release: str
    releases: Path
    model_repository: Path
    detects: str = ""
    replace: bool = False
    exemplars: int = library.MAX_EXEMPLARS
    half: bool = True
    gates: Gates = field(default_factory=Gates)

    @property
    def model(self) -> str:
        """Name of the model: every release has its own, so that building one never touches another."""
        return model_name(self.release)


@dataclass(frozen=True)
class Built:
    """Result of a build.

    Attributes:
        release: id.
        gates: what was measured of the lighter files.
        int8_speed_up: CPU time of the float32 file over that of the int8 file, on this machine, now.
        figures: all figures of the release.
        by_patient: one line per test patient.
    """

    release: str
    gates: tuple[GateReport, ...]
    int8_speed_up: float
    figures: Mapping[str, Interval | float]
    by_patient: tuple[str, ...]


@dataclass(frozen=True)
class _Exported:
    """Files of a network in a folder, and the output of the served CPU file for all cells."""

    cpu: Path
    gpu: Path
    temperatures: Mapping[str, float]
    gates: tuple[GateReport, ...]
    int8_speed_up: float
    gap: float
    judged: Judged
    references: ReferenceLibrary
    by_place: bool


def build(options: BuildOptions, sources: Sources) -> Built:
    """Build a release. It is made whole in a folder beside the others and moved there at the end.

    Raises:
        GateError: the pooled AUC is too low, or the export does not say what the network says.
        TrainingError: the run, the data, the id or the cross-validation are at fault.
    """
    check_id(options.release, options.model, options.releases, options.model_repository, replace=options.replace)
    trained = load_trained(options.run / FINAL)
    recipe = Recipe.model_validate(trained.about["recipe"])
    detects = detected_by(trained.about["target"], options.detects)
    pack, pbc = _packs(trained, recipe, sources)
    _promised_coverage(pack)
    empty = _empty(trained, pack, recipe, sources)
    pooled = _pooled(options, trained)
    options.model_repository.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".release-", dir=options.model_repository.parent) as temporary:
        staging = Path(temporary)
        exported = _export(options, trained, pack, staging / "export")
        rule, numbers = _calibrate(exported)
        verdicts = decide(exported.judged, exported.references, rule, VOTING_NEIGHBOURS)
        figures: dict[str, Interval | float] = {"largest difference of ONNX and torch, calibration cells": exported.gap, **pooled}
        figures |= _figures(exported, verdicts, rule)
        if empty is not None:
            figures |= _no_cell(judge(exported.cpu, empty, "judging crops without a cell"), exported.judged)
        if pbc is not None:
            figures |= _other_source(judge(exported.cpu, pbc, "judging pbc_cells"), exported.references, rule)
        _log_scoring(options, exported, figures)
        _write(options, staging, trained, pack, pbc, exported, detects, numbers, _decision(exported, rule), figures)
        install_release(options.release, options.model, staging, options.releases, options.model_repository)
    return Built(options.release, exported.gates, exported.int8_speed_up, figures, tuple(_by_patient(exported.judged, verdicts)))


def gates_for(run: Path, recipe: str = "", cpu_file: str = "") -> Gates:
    """The gates that a run is judged by.

    Args:
        run: folder of the run.
        recipe: name or TOML file of the recipe whose gates hold; empty for those that the run was made with.
        cpu_file: ``float32`` or ``int8``, instead of what the recipe says; empty for that.

    Raises:
        RecipeError: there is no such run, recipe or file.
    """
    about = run_description(run)
    if recipe:
        gates = load_recipe(recipe).gates
    elif GATES in about:
        gates = Gates.model_validate(about[GATES])
    else:  # a run of before the gates were noted
        system = about["recipe"]["system"]
        gates = load_recipe(system).gates if system in recipe_names() else Gates()
    if cpu_file not in ("", *get_args(CpuFile)):
        raise RecipeError(f"CPUs are served one of {', '.join(get_args(CpuFile))}, not {cpu_file!r}.")
    return gates.model_copy(update={"cpu_file": cpu_file}) if cpu_file else gates


def model_name(release: str) -> str:
    """Name of the model of a release, by its id."""
    return release.replace("-", "_").replace(".", "_")


def check_id(release: str, model: str, releases: Path, model_repository: Path, *, replace: bool) -> None:
    """Refuse an id that is none, or that is taken.

    Raises:
        RecipeError: it is.
    """
    if not re.fullmatch(RELEASE_ID, release):
        raise RecipeError(f"A release id is made of a-z, 0-9, '.', '_' and '-', not {release!r}.")
    there = [p for p in (releases / release, model_repository / model) if p.exists()]
    if there and not replace:
        raise RecipeError(f"{there[0]} is there already; give another --id, or --replace it.")


def _write(
    options: BuildOptions,
    staging: Path,
    trained: Trained,
    pack: Pack,
    pbc: Pack | None,
    exported: _Exported,
    detects: Detects,
    numbers: Mapping[str, object],
    decision: Mapping[str, object],
    figures: Mapping[str, Interval | float],
) -> None:
    """Write release and model below a staging folder, checked as a store of its own."""
    recipe = Recipe.model_validate(trained.about["recipe"])
    releases, models = staging / "releases", staging / "model_repository"
    version = models / options.model / _VERSION
    version.mkdir(parents=True)
    for path in {exported.cpu, exported.gpu}:
        shutil.copyfile(path, version / path.name)
    cpu, gpu = version / exported.cpu.name, version / exported.gpu.name
    write_model_configs(version.parent, gpu, recipe.fine_tuning.input.side, cpu_file=cpu.name)
    library_path = releases / options.release / "library.npz"
    library.save(_kept(exported, f"{options.model}/{_VERSION}"), library_path)
    source = trained.about.get("source")
    write_release(
        ReleaseParts(
            id=options.release,
            system=recipe.system,
            title=recipe.title,
            detects=detects.value,
            side=recipe.fine_tuning.input.side,
            model=options.model,
            files={Role.CPU: cpu, Role.GPU: gpu},
            library=library_path,
            preprocessing=pack.header.focus or {},
            calibration=numbers,
            decision=decision,
            data=_data(pack, pbc, source),
            figures=figures,
            limits=limits_of(
                pack.header.dataset,
                source,
                cross_validated=options.cross_validation is not None,
                jpeg_quality=pack.header.jpeg_quality,
                coverage=_promised_coverage(pack),
            )
            + (() if pbc is None else (_IMMATURE,)),
            architecture=_architecture(trained, recipe),
            training={**trained.about["recipe"], "seed": trained.about["seed"], "gates": [str(g) for g in exported.gates]},
            classes=(*CLASSES, NOTHING) if exported.judged.logits.shape[1] > len(CLASSES) else CLASSES,
            class_activations=exported.by_place,
        ),
        releases,
        models,
    )


def _packs(trained: Trained, recipe: Recipe, sources: Sources) -> tuple[Pack, Pack | None]:
    wanted = recipe.fine_tuning.input
    refuse_figures_only(recipe)
    if wanted.kind is not InputKind.REGISTERED_SHARPENED:
        raise RecipeError(f"A release serves registered, sharpened cells; this run was trained on {wanted.kind.value}. Use the preset grouped.")
    if recipe.fine_tuning.selection is not Selection.LAST:
        raise RecipeError("The epoch was chosen by the patients that calibrate a release; train with --set fine_tuning.selection=last.")
    pack = without_copies(sources.pack(trained.about["target"], wanted))
    if pack.select(pack.is_blast >= 0).digest() != trained.about["target_digest"]:
        raise RecipeError("The data are not those that the network was trained on: other images, labels, groups or crops.")
    check_test_subset(pack.select(pack.is_blast >= 0))
    if not pack.in_subset(Subset.TEST).any():
        raise RecipeError(f"{pack.header.dataset} has no test groups: a release cannot say how good it is.")
    pbc = sources.pack(PBC_CELLS, wanted, focus=focus_of(pack)) if PBC_CELLS in sources.names else None
    return pack, pbc


def _promised_coverage(pack: Pack) -> float:
    """Coverage that the calibration patients can promise, known before anything is exported; see ``calibration.promised_coverage``."""
    cells = pack.select(pack.in_subset(Subset.CALIBRATION) & (pack.is_blast >= 0) & (pack.measures["accepted"] > 0.5))
    return calibration.promised_coverage(cells.is_blast.astype(np.int64), cells.groups)


def _empty(trained: Trained, pack: Pack, recipe: Recipe, sources: Sources) -> Pack | None:
    """The crops without a cell that the network learned from, with those of the other subsets; None where it learned from none."""
    empty = crops_without_cells(sources, pack, recipe)
    if empty is not None and trained.about.get("nothing_digest", empty.digest()) != empty.digest():
        raise RecipeError("The crops without a cell are not those that the network was trained on.")
    return empty


def _pooled(options: BuildOptions, trained: Trained) -> dict[str, Interval | float]:
    if options.cross_validation is None:
        return {}
    arm = read_arm(options.cross_validation)
    about = json.loads((options.cross_validation / RUN_FILE).read_text(encoding="utf-8"))
    different = [k for k in ("recipe", "target_digest", "source_digest", "nothing_digest") if about.get(k) != trained.about.get(k)]
    if different:
        raise RecipeError(f"{options.cross_validation} was trained with another {', '.join(different)} than {options.run}.")
    if about.get("patients") == ALL_PATIENTS:
        raise RecipeError(f"{options.cross_validation} was validated on the test patients as well; a release is chosen without them.")
    pooled = bootstrap_by_patient(auc, arm.margins, arm.is_blast, arm.patients)
    if pooled.value < options.gates.min_pooled_auc:
        raise GateError(f"The pooled AUC of the cross-validation is {pooled}; {arm.system} is served from {options.gates.min_pooled_auc} on.")
    return {"AUC, pooled cross-validation by patient, network": pooled}


def _export(options: BuildOptions, trained: Trained, pack: Pack, folder: Path) -> _Exported:
    side = pack.header.side
    folder.mkdir(parents=True, exist_ok=True)
    calibrating = pack.in_subset(Subset.CALIBRATION) & (pack.is_blast >= 0)
    labels, groups = pack.is_blast[calibrating].astype(np.int64), pack.groups[calibrating]
    weights = calibration.patient_class_weights(labels, groups)
    logits = logits_of(trained.judging, pack.pixels[calibrating], trained.normaliser, torch.device("cpu"))
    temperature = calibration.fit_temperature(_margin(logits), labels, weights)
    served = ServedNetwork(trained.judging, list(trained.normaliser.mean), list(trained.normaliser.std), temperature)
    gap = export_onnx(served, side, folder / FP32, pack.pixels[calibrating])

    training = pack.in_subset(Subset.TRAIN) & (pack.is_blast >= 0)
    shuffled = np.random.default_rng(0).permutation(np.flatnonzero(training))
    write_int8(folder / FP32, folder / INT8, pack.pixels[shuffled])
    write_fp16(folder / FP32, folder / FP16)
    temperatures = {FP32: temperature}
    cells = pack.select(calibrating)
    for name in (INT8, FP16):
        own = calibration.fit_temperature(_margin(judge(folder / name, cells, name).logits), labels, weights)
        divide_logits(folder / name, own)
        temperatures[name] = temperature * own

    judged = {name: judge(folder / name, pack, f"judging, {name}") for name in (FP32, INT8)}
    libraries = {name: _library(j, options.exemplars) for name, j in judged.items()}
    reference = _measured(judged[FP32], libraries[FP32], calibrating)
    gates = options.gates
    int8 = _gate(INT8, reference, _measured(judged[INT8], libraries[INT8], calibrating), gates, wanted=gates.cpu_file == "int8")
    cpu = INT8 if int8.served else FP32
    on_gpu = judge(folder / FP16, cells, f"judging, {FP16}")
    served_by_cpu = _measured(judged[cpu], libraries[cpu], calibrating)
    of_gpu = _measured(on_gpu, libraries[cpu], np.ones(len(cells), np.bool_))
    fp16 = _gate(FP16, served_by_cpu, of_gpu, gates, wanted=options.half or cpu == INT8)
    gpu = FP16 if fp16.served else FP32
    return _Exported(
        folder / cpu,
        folder / gpu,
        temperatures,
        (int8, fp16),
        speed_up(folder / FP32, folder / INT8, cells.pixels),
        gap,
        judged[cpu],
        libraries[cpu],
        ACTIVATIONS in served.outputs,
    )


@dataclass(frozen=True)
class _Measured:
    """AUC of network and vote on some cells, and in which of them no cell is seen."""

    network: float
    vote: float
    empty: NDArray[np.bool_]


def _measured(judged: Judged, references: ReferenceLibrary, chosen: NDArray[np.bool_]) -> _Measured:
    labels = judged.pack.is_blast[chosen].astype(np.int64)
    vote = votes(judged, references, VOTING_NEIGHBOURS)[0]
    return _Measured(auc(judged.probability[chosen], labels), auc(vote[chosen], labels), judged.nothing[chosen] >= MIN_NOTHING)


def _gate(name: str, reference: _Measured, found: _Measured, limits: Gates, *, wanted: bool) -> GateReport:
    changed = float((reference.empty != found.empty).mean())
    return GateReport(name, reference.network - found.network, reference.vote - found.vote, changed, limits, wanted)


def _library(judged: Judged, exemplars: int) -> ReferenceLibrary:
    chosen = judged.of(Subset.TRAIN) & judged.accepted
    pack = judged.pack.select(chosen)
    candidates = library.Candidates(
        embeddings=judged.embeddings[chosen],
        place_embeddings=judged.place_embeddings[chosen],
        is_blast=pack.is_blast == 1,
        reference_ids=np.array([f"{pack.header.dataset}/{key}" for key in pack.keys]),
        cell_classes=pack.class_names,
        patients=pack.groups,
        image_sha256=pack.sha256,
        centers=np.stack([pack.measures["center_x"], pack.measures["center_y"]], axis=1),
        radii=pack.measures["radius"],
    )
    return library.build(candidates, library.choose(candidates), exemplars)


def _kept(exported: _Exported, embedder: str) -> ReferenceLibrary:
    """The library as it is kept, with the calibration cells, the images that may not become references, and the name of its embedder."""
    pack = exported.judged.pack
    held_out = library.checksums(pack.sha256[pack.in_subset(Subset.CALIBRATION, Subset.TEST)])
    return replace(CalibrationCells.of(exported.judged).keep(exported.references), held_out_sha256=held_out, embedder=np.array([embedder]))


def _calibrate(exported: _Exported) -> tuple[CellRule, dict[str, object]]:
    cells = CalibrationCells.of(exported.judged)
    fitted = fit_cell_rule(cells, exported.references, VOTING_NEIGHBOURS, MAX_DISAGREEMENT, MIN_NOTHING)
    numbers: dict[str, object] = {
        "temperature": round(exported.temperatures[exported.cpu.name], 4),
        "voting_neighbours": VOTING_NEIGHBOURS,
        "network_weight": fitted.rule.network_weight,
        "coverage": round(fitted.coverage, 4),
        "min_probability": fitted.rule.min_probability,
        "max_disagreement": MAX_DISAGREEMENT,
        "min_nothing": MIN_NOTHING,
        "nearest_distances": fitted.nearest_distances,
    }
    return fitted.rule, numbers


def _decision(exported: _Exported, rule: CellRule) -> dict[str, object]:
    cells = CalibrationCells.of(exported.judged)
    return {
        "false_blasts": false_blasts(cells, decide(cells, exported.references, rule, VOTING_NEIGHBOURS)),
        "min_cells_for_negative": 100,
        "max_fraction_for_negative": 0.05,
        "origin": {
            "false_blasts": "99th percentile, resampled by calibration patient (training/releases/calibration.py)",
            "min_cells_for_negative": "the usual differential count of 100 nucleated cells",
            "max_fraction_for_negative": "a convention of this project: 5 %, the customary limit in marrow; healthy blood holds no blasts",
        },
    }


def _figures(exported: _Exported, verdicts: Verdicts, rule: CellRule) -> dict[str, Interval | float]:
    judged = exported.judged
    calibrated, chosen = judged.of(Subset.CALIBRATION), judged.of(Subset.TEST)
    labels, patients = judged.pack.is_blast.astype(np.int64), judged.pack.groups
    voted = votes(judged, exported.references, VOTING_NEIGHBOURS)[0]
    figures: dict[str, Interval | float] = {
        "AUC, calibration patients, fused": bootstrap_by_patient(auc, verdicts.fused[calibrated], labels[calibrated], patients[calibrated])
    }
    for name, scores in (("network", judged.probability), ("vote", voted)):
        for figure, statistic in (("AUC", auc), ("balanced accuracy", balanced_accuracy)):
            figures[f"{figure}, test patients, {name}"] = bootstrap_by_patient(statistic, scores[chosen], labels[chosen], patients[chosen])
    for figure, interval in protocol_figures(verdicts.fused[chosen], labels[chosen], patients[chosen]).items():
        figures[f"{figure}, test patients, fused"] = interval
    for name, label in (("blasts", 1), ("normal cells", 0)):
        of_class = chosen & (labels == label)
        figures[f"suspected, test patients, {name}"] = _share(verdicts.suspected[of_class], patients[of_class])
        figures[f"indeterminate, test patients, {name}"] = _share(verdicts.indeterminate[of_class], patients[of_class])
    for name, label in ((BLAST, 1), (NORMAL, 0)):
        of_class = chosen & (labels == label)
        probability = verdicts.fused if label else 1.0 - verdicts.fused
        covered = probability[of_class] >= rule.min_probability[name]
        figures[f"coverage of the prediction sets, test patients, {name}"] = _share(covered, patients[of_class])
    ambiguous = judged.pack.in_subset(Subset.TEST) & (judged.pack.is_blast < 0)
    if ambiguous.any():
        figures["suspected, test patients, ambiguous cells"] = float(verdicts.suspected[ambiguous].mean())
    return figures


def _other_source(judged: Judged, references: ReferenceLibrary, rule: CellRule) -> dict[str, Interval | float]:
    verdicts = decide(judged, references, rule, VOTING_NEIGHBOURS)
    names = judged.pack.class_names
    mature, immature = np.isin(names, sorted(PBC_MATURE_CLASSES)), names == PBC_IMMATURE_CLASS
    figures: dict[str, Interval | float] = {}
    for name, chosen in (("mature cells", mature), ("immature granulocytes", immature)):
        if chosen.any():
            figures[f"not suspected, pbc_cells, {name}"] = float(1.0 - verdicts.suspected[chosen].mean())
            figures[f"indeterminate, pbc_cells, {name}"] = float(verdicts.indeterminate[chosen].mean())
    return figures


def _no_cell(empty: Judged, cells: Judged) -> dict[str, Interval | float]:
    """How often the network sees no cell, on crops without one and on cells of test patients."""
    crops = empty.pack.in_subset(Subset.TEST) & empty.accepted
    tested = cells.of(Subset.TEST) & cells.accepted
    if not crops.any():
        return {}
    return {
        "no cell seen, test patients, crops without a cell": _share(empty.nothing[crops] >= MIN_NOTHING, empty.pack.groups[crops]),
        "no cell seen, test patients, cells": _share(cells.nothing[tested] >= MIN_NOTHING, cells.pack.groups[tested]),
    }


def _share(flags: NDArray[np.bool_], patients: NDArray[np.str_]) -> Interval:
    def mean(scores: NDArray[np.float64], _: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
        return float((scores * weights).sum() / weights.sum()) if weights.sum() > 0 else float("nan")

    return bootstrap_by_patient(mean, flags.astype(np.float64), np.zeros(len(flags), np.int64), patients)


def _by_patient(judged: Judged, verdicts: Verdicts) -> list[str]:
    """Decisions on blasts and normal cells, by test patient. They show first where a release fails."""
    lines = ["patient  blasts suspected indeterminate  normal suspected indeterminate  AUC"]
    chosen, labels, patients = judged.of(Subset.TEST), judged.pack.is_blast.astype(np.int64), judged.pack.groups
    for patient in np.unique(patients[chosen]):
        of_patient = chosen & (patients == patient)
        counts = [
            f"{m.sum():6d} {verdicts.suspected[m].sum():9d} {verdicts.indeterminate[m].sum():13d}"
            for m in (of_patient & (labels == 1), of_patient & (labels == 0))
        ]
        lines.append(f"{patient:7s}  {'  '.join(counts)}  {auc(verdicts.fused[of_patient], labels[of_patient]):.3f}")
    return lines


def _log_scoring(options: BuildOptions, exported: _Exported, figures: Mapping[str, Interval | float]) -> None:
    """Note in the run that the test patients were scored, so that docs/results.md can list every scoring."""
    row = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "release": options.release,
        "file": sha256_of(exported.cpu),
        "figures": {name: str(value) for name, value in figures.items() if "test patients" in name},
    }
    with (options.run / SCORED_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _architecture(trained: Trained, recipe: Recipe) -> str:
    network = recipe.network
    stem = f"stem {network.stem.value}, " if network.architecture.startswith("resnet") else ""
    what = f"{network.architecture.value}, width {network.width}, {stem}embedding {network.embedding}"
    if network.architecture.endswith("_lbp"):
        what += f", {network.kernel.value} kernels{' and ReLU' if network.lbp_relu else ''}"
    return f"{what}; {parameter_count(trained.network):,} trained of {parameter_count(trained.network, trainable=False):,} parameters"


def _data(pack: Pack, pbc: Pack | None, source: str | None) -> dict[str, str]:
    name, kind = pack.header.dataset, pack.header.grouped_by.value
    counts = {s: len(np.unique(pack.groups[pack.in_subset(s)])) for s in (Subset.TRAIN, Subset.CALIBRATION, Subset.TEST)}
    ambiguous = int((pack.is_blast < 0).sum())
    data = {
        "training": f"{name}, {counts[Subset.TRAIN]} groups by {kind}" + (f"; {ambiguous} ambiguous cells left out" if ambiguous else ""),
        "calibration": f"{name}, {counts[Subset.CALIBRATION]} groups by {kind}",
        "test": f"{name}, {counts[Subset.TEST]} groups by {kind}",
    }
    if source is not None:
        data["source"] = f"{source}: stained tissue"
    if pbc is not None:
        data["other source"] = "pbc_cells: normal cells of another hospital, never trained on"
    named = [n for n in (name, source, None if pbc is None else PBC_CELLS) if n is not None]
    return {**data, "origin": "; ".join(f"{n}: {ORIGINS[n]}" for n in named)}


def _margin(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(logits[:, 1] - logits[:, 0], np.float64)
