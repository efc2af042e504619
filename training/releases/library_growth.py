"""Grow the reference library of a release by confirmed cells: a new release with the same networks, recalibrated, and a gate before it is used."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.common.releases import Release, ReleaseStore, sha256_of
from services.gateway.fusion import CellRule
from services.gateway.rules import cell_rule
from services.preprocessing.unsharpening import FocusParameters
from services.retrieval.additions import Addition, AdditionStore
from services.retrieval.library import ReferenceLibrary, open_library
from services.retrieval.neighbours import unit
from training.crops.sources import Sources
from training.datasets.dataset import Subset
from training.errors import GateError, RecipeError
from training.recipes.config import Input, InputKind
from training.releases import reference_library as library
from training.releases.cell_rule import false_blasts, fit_cell_rule
from training.releases.verdicts import CalibrationCells, Verdicts, decide, judge
from training.releases.write import write_release_content
from training.runs.target import TARGETS, choose

MARGIN: Final = 0.02
"""Largest loss of a figure on calibration patients against the release in use."""
GATED: Final = (
    "blasts not judged normal, calibration patients",
    "normal cells not suspected, calibration patients",
    "blasts decided, calibration patients",
    "normal cells decided, calibration patients",
)
"""Coverage is not among them: the thresholds are fitted anew on these cells, so it equals the wanted one by construction."""
BEFORE: Final = "before: "
"""Prefix of the names of the same figures with the library before it grew."""
LIBRARY_FILE: Final = "library.npz"


@dataclass(frozen=True)
class GrowthOptions:
    """Options of a growth.

    Attributes:
        base: the release whose library grows.
        release: id of the new release.
        additions: store of confirmed cells.
        releases, model_repository: where both live.
    """

    base: str
    release: str
    additions: Path
    releases: Path
    model_repository: Path


@dataclass(frozen=True)
class Grown:
    """Result of a growth.

    Attributes:
        release: id of the new release.
        added: cells that were added.
        before, after: gated figures on calibration patients, with the library as it was and as it is.
    """

    release: str
    added: int
    before: Mapping[str, float]
    after: Mapping[str, float]


def grow(options: GrowthOptions, sources: Sources | None = None) -> Grown:
    """Build the release with the grown library. It is not in use before it is activated.

    Args:
        options: what is grown.
        sources: data whose calibration patients recalibrate it; None for the calibration cells that the library keeps.

    Raises:
        RecipeError: nothing can be added, or the id is taken.
        BrokenReleaseError: the base is broken.
        TrainingError: the data are at fault.
    """
    store = ReleaseStore(options.releases, options.model_repository)
    base = store.resolve(options.base)
    if (options.releases / options.release).exists():
        raise RecipeError(f"{options.releases / options.release} is there already; give another --id.")
    additions = usable(AdditionStore(options.additions).read(), f"{base.embedder.model}/{base.embedder.version}")
    old = open_library(store.library_path(base))
    refuse_held_out(additions, old)
    new = grown_library(without_additions(old), additions)
    cells = calibration_cells(base, store, old, sources)
    numbers, rule = recalibrated(base, cells, new)
    verdicts = decide(cells, new, rule, base.calibration.voting_neighbours)
    before = gated_figures(cells, decide(cells, old, cell_rule(base), base.calibration.voting_neighbours))
    after = gated_figures(cells, verdicts)
    with TemporaryDirectory(prefix=".library-", dir=options.releases.parent) as temporary:
        folder = Path(temporary) / options.release
        library.save(cells.keep(new), folder / LIBRARY_FILE)
        content = {
            **base.model_dump(mode="json"),
            "id": options.release,
            "library": {"file": LIBRARY_FILE, "sha256": sha256_of(folder / LIBRARY_FILE)},
            "calibration": numbers,
            "decision": {**base.decision.model_dump(mode="json"), "false_blasts": [list(row) for row in false_blasts(cells, verdicts)]},
            "data": {**base.data, "library": f"that of {base.id} and {len(additions)} confirmed cells of {_sources(additions)}"},
            "figures": [{"name": n, "value": v} for n, v in [*after.items(), *((BEFORE + n, v) for n, v in before.items())]],
            "created": datetime.datetime.now(datetime.UTC).date().isoformat(),
        }
        write_release_content(content, folder)
        shutil.move(folder, options.releases / options.release)
    ReleaseStore(options.releases, options.model_repository)
    return Grown(options.release, len(additions), before, after)


def usable(additions: Sequence[Addition], embedder: str) -> list[Addition]:
    """Additions in force that this embedder made.

    Raises:
        RecipeError: there are none, or some were made by another embedder: their embeddings cannot be compared.
    """
    own = [a for a in additions if a.embedder == embedder]
    others = sorted({a.embedder for a in additions if a.embedder != embedder})
    if not own:
        raise RecipeError(f"There are no additions of the embedder {embedder}" + (f", only of {', '.join(others)}." if others else "."))
    return own


def refuse_held_out(additions: Sequence[Addition], references: ReferenceLibrary) -> None:
    """Refuse cells of images that calibrate or test the release: as references they would judge themselves.

    Raises:
        RecipeError: there are such cells.
    """
    held_out = {bytes(row).hex() for row in np.asarray(references.held_out_sha256)}
    if same := [a.id for a in additions if a.reference.image_sha256 in held_out]:
        raise RecipeError(
            f"The additions {', '.join(map(str, same))} are of images that calibrate or test the release; withdraw them with `dl4all library withdraw`."
        )


def without_additions(references: ReferenceLibrary) -> ReferenceLibrary:
    """The references that a library was first built with: additions are taken anew from the store each time, without those withdrawn since."""
    own = np.flatnonzero(np.asarray(references.addition_ids) < 0)
    exemplars = np.asarray(references.exemplars)[own]
    kept = exemplars[exemplars >= 0]
    rows = np.full(len(references.place_embeddings), -1, np.int32)
    rows[kept] = np.arange(len(kept))
    per_reference = ("embeddings", "is_blast", "reference_ids", "cell_classes", "patients", "image_sha256", "centers", "radii", "addition_ids")
    return replace(
        references,
        exemplars=np.where(exemplars >= 0, rows[exemplars], -1).astype(np.int32),
        place_embeddings=np.asarray(references.place_embeddings)[kept],
        place_scales=np.asarray(references.place_scales)[kept],
        **{name: np.asarray(getattr(references, name))[own] for name in per_reference},
    )


def grown_library(old: ReferenceLibrary, additions: Sequence[Addition]) -> ReferenceLibrary:
    """The library with the additions behind its own references; the latent map keeps its axes.

    Raises:
        RecipeError: an addition is of another dimension or has other places.
    """
    shape = (*old.place_embeddings.shape[1:3], old.dimension)
    if any(a.reference.place_embeddings.shape != shape for a in additions):
        raise RecipeError(f"The additions must have place embeddings of {shape}, as the library has.")
    cells = [a.reference for a in additions]
    vectors = np.stack([c.embedding for c in cells])
    exemplars = library.exemplar_rows(len(cells), len(old.place_embeddings))
    places, scales = library.quantised(np.stack([c.place_embeddings for c in cells])[exemplars >= 0])
    return replace(
        old,
        embeddings=np.concatenate([old.embeddings, unit(vectors.astype(np.float32))]),
        exemplars=np.concatenate([old.exemplars, exemplars]),
        place_embeddings=np.concatenate([old.place_embeddings, places]),
        place_scales=np.concatenate([old.place_scales, scales]),
        is_blast=np.concatenate([old.is_blast, np.array([c.is_blast for c in cells])]),
        reference_ids=_joined(old.reference_ids, [f"{a.source}/{a.reference.cell_class}/{a.id}" for a in additions]),
        cell_classes=_joined(old.cell_classes, [c.cell_class for c in cells]),
        patients=_joined(old.patients, [c.patient for c in cells]),
        image_sha256=_joined(old.image_sha256, [c.image_sha256 for c in cells]),
        centers=np.concatenate([old.centers, np.array([(c.center_x, c.center_y) for c in cells], np.float32)]),
        radii=np.concatenate([old.radii, np.array([c.radius for c in cells], np.float32)]),
        addition_ids=np.concatenate([old.addition_ids, np.array([a.id for a in additions], np.int64)]),
    )


def recalibrated(base: Release, cells: CalibrationCells, references: ReferenceLibrary) -> tuple[dict[str, object], CellRule]:
    """Weight of the network, thresholds of the prediction sets and distances, fitted anew on calibration patients."""
    numbers = base.calibration
    fitted = fit_cell_rule(cells, references, numbers.voting_neighbours, numbers.max_disagreement, numbers.min_nothing)
    changed = {
        "network_weight": fitted.rule.network_weight,
        "min_probability": fitted.rule.min_probability,
        "coverage": round(fitted.coverage, 4),
        "nearest_distances": fitted.nearest_distances,
    }
    return {**numbers.model_dump(mode="json"), **changed}, fitted.rule


def gated_figures(cells: CalibrationCells, verdicts: Verdicts) -> dict[str, float]:
    """Figures that a new library must not lower, by name, patients of a class weighted equally."""
    blasts = cells.is_blast
    measured = (
        (blasts, verdicts.suspected | verdicts.indeterminate),
        (~blasts, ~verdicts.suspected),
        (blasts, ~verdicts.indeterminate),
        (~blasts, ~verdicts.indeterminate),
    )
    return {name: _mean_by_patient(flags[chosen], cells.groups[chosen]) for name, (chosen, flags) in zip(GATED, measured, strict=True)}


def check_activation(current: Release | None, candidate: Release, margin: float = MARGIN) -> None:
    """Refuse a grown library that does worse on calibration patients than the one that it grew from, or than the one in use.

    A release whose library did not grow has passed the gates of its own data when it was built, and passes.

    Args:
        current: the release of the same system in use, if there is one.
        candidate: the release that is to be used.
        margin: how much lower a figure may be.

    Raises:
        GateError: a gated figure is missing or too low.
    """
    in_use = {f.name: f.value for f in current.figures} if current else {}
    found = {f.name: f.value for f in candidate.figures}
    if not any(BEFORE + name in found for name in GATED):
        return
    for name in GATED:
        if name not in found:
            raise GateError(f"{candidate.id} does not say its {name}; build it with `dl4all library build`.")
        for before in (found.get(BEFORE + name), in_use.get(name)):
            if before is not None and found[name] < before - margin:
                raise GateError(f"{candidate.id} lowers {name} from {before:.3f} to {found[name]:.3f}; at most {margin:.3f} is accepted.")


def calibration_cells(base: Release, store: ReleaseStore, references: ReferenceLibrary, sources: Sources | None) -> CalibrationCells:
    """The calibration cells of a release: those that its library keeps, or those of the data, judged by its network now.

    Raises:
        RecipeError: the library keeps none and there are no data.
        TrainingError: the data are at fault.
    """
    if sources is None:
        held = CalibrationCells.held(references)
        if not len(held):
            raise RecipeError(f"The library of {base.id} does not keep its calibration cells; name their data set with --data.")
        return held
    focus = FocusParameters(**base.preprocessing.model_dump())
    target = choose(sources, "", TARGETS, "calibration", "--data")
    pack = sources.pack(target, Input(kind=InputKind.REGISTERED_SHARPENED, side=base.input.side), focus=focus)
    return CalibrationCells.of(judge(store.model_path(base.network), pack.select(pack.in_subset(Subset.CALIBRATION))))


def _mean_by_patient(flags: NDArray[np.bool_], patients: NDArray[np.str_]) -> float:
    return round(float(np.mean([flags[patients == p].mean() for p in np.unique(patients)])), 6)


def _joined(old: NDArray[np.str_], new: Sequence[str]) -> NDArray[np.str_]:
    return np.concatenate([old, np.array(new, np.str_)])


def _sources(additions: Sequence[Addition]) -> str:
    return ", ".join(sorted({a.source for a in additions}))
