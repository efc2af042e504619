"""Statements about a network that its training data allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.common.releases import Detects
from training.datasets.all_idb import ALL_IDB2
from training.datasets.all_idb_cells import ALL_IDB_CELLS
from training.datasets.cnmc import CNMC
from training.datasets.own_cells import OWN_CELLS
from training.datasets.single_cells import AML_CELLS
from training.datasets.splits import COVERAGE
from training.datasets.tissue import ADP, LC25000_TILES
from training.errors import RecipeError
from training.recipes.config import Recipe, Start


@dataclass(frozen=True)
class Evidence:
    """Facts about a network that follow from its target data set.

    Attributes:
        detects: what the network was trained to detect; None where only the laboratory knows.
        limits: sentences of the card that the data call for.
    """

    detects: Detects | None
    limits: tuple[str, ...]


MYELOID: Final = (
    "Trained on myeloid blasts: says nothing about the lineage and must not be called a detector of ALL.",
    "Promyelocytes are neither blasts nor normal cells to this release; it has no answer for them.",
)
TERMS: Final = "Research use; the data's terms do not clearly allow redistribution."
TARGETS: Final[Mapping[str, Evidence]] = {
    AML_CELLS: Evidence(Detects.BLAST_LINEAGE_UNSPECIFIED, (*MYELOID, TERMS)),
    ALL_IDB_CELLS: Evidence(
        Detects.LYMPHOBLAST,
        (
            "Trained on cells of few patients of one hospital, by two cameras; patients are not published, and the camera tells much of the class.",
            "Its normal cells were told by eye, not by an expert.",
            TERMS,
        ),
    ),
    CNMC: Evidence(Detects.LYMPHOBLAST, ("Trained on stain-normalised cells cut out on black; other images look unlike them.",)),
    ALL_IDB2: Evidence(Detects.LYMPHOBLAST, ("Patients of its data are not published: its figures may be those of patients it has seen.", TERMS)),
    OWN_CELLS: Evidence(None, ()),
}
ORIGINS: Final[Mapping[str, str]] = {
    AML_CELLS: "DeepAPL, Johns Hopkins",
    CNMC: "C-NMC 2019, SBILab",
    ALL_IDB2: "ALL-IDB2, Labati, Piuri, Scotti 2011",
    ALL_IDB_CELLS: "ALL-IDB1, Labati, Piuri, Scotti 2011",
    OWN_CELLS: "the laboratory that built this release",
    ADP: "Atlas of Digital Pathology, University of Toronto",
    LC25000_TILES: "LC25000, Borkowski et al. 2019",
    "pbc_cells": "Acevedo et al. 2020, Hospital Clinic Barcelona",
}
EVERY_RELEASE: Final = (
    "Research demonstration, not a medical device.",
    "Never tried on marrow, on cells enlarged more than twofold, or on stains other than Romanowsky stains.",
)


def detected_by(target: str, wanted: str) -> Detects:
    """What a network of this target detects.

    Args:
        target: name of the data set.
        wanted: what the user says; needed where the data set does not tell, refused where it tells otherwise.

    Raises:
        RecipeError: nobody says, or the user contradicts the data.
    """
    if target not in TARGETS:
        raise RecipeError(f"A network of {target} judges no single cells; build its release with `dl4all release build-patches`.")
    known = TARGETS[target].detects
    if wanted and wanted not in set(Detects):
        raise RecipeError(f"A release detects {' or '.join(Detects)}, not {wanted!r}.")
    if known is None:
        if not wanted:
            raise RecipeError(f"Only you know what the blasts of {target} are: say --detects {' or '.join(Detects)}.")
        return Detects(wanted)
    if wanted and wanted != known:
        raise RecipeError(f"A network trained on {target} detects {known.value}; it must not be called {wanted}.")
    return known


def refuse_figures_only(recipe: Recipe) -> None:
    """Refuse what is kept as figures and never as weights.

    Raises:
        RecipeError: the network started from the published ALLNet file, or its cells were split one by one, those of fields that are kept back too.
    """
    if recipe.start is Start.ALLNET:
        raise RecipeError(
            "A network that started from the published ALLNet file (GPL-3.0) is kept as figures, not as weights; train it from scratch."
        )
    if recipe.split.parts_fields:
        raise RecipeError("This run split its cells one by one, as the papers do: cells of one field train and test. Use the preset grouped.")


def limits_of(target: str, source: str | None, *, cross_validated: bool, jpeg_quality: int, coverage: float) -> tuple[str, ...]:
    """Limits that the card states.

    Args:
        target, source: names of the data sets; None for no source.
        cross_validated: whether it was.
        jpeg_quality: that crops were compressed with; 0 for none.
        coverage: that its prediction sets promise.
    """
    limits = [*EVERY_RELEASE, *TARGETS[target].limits]
    if coverage < COVERAGE:
        limits.append(
            f"Calibrated on few patients: its prediction sets promise to hold the true class of {coverage:.0%} of cells, not of {COVERAGE:.0%}."
        )
    if not cross_validated:
        limits.append("Not cross-validated: its figures rest on one split of the patients.")
    if source is not None and source != ADP:
        limits.append(f"Learned tissue from {source} ({ORIGINS[source]}), not from the Atlas of Digital Pathology of the paper.")
    if jpeg_quality:
        limits.append(f"Trained and calibrated on crops compressed as JPEG of quality {jpeg_quality}; what is served is not compressed.")
    return tuple(limits)
