"""Output of an exported file for a pack, the same as in serving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from services.common.checks import MAX_CELLS_PER_CALL
from services.common.engines.onnx_runtime import open_session
from services.common.releases import Release, ReleaseStore
from services.gateway.fusion import CellRule, CellVerdict, blast_probability, judge_cell, nothing_probability
from services.preprocessing.unsharpening import MAX_UPSCALE, FocusParameters, QualityReason
from services.retrieval.library import ReferenceLibrary
from services.retrieval.neighbours import unit, vote
from services.retrieval.search import ExactSearch
from training.crops.packs import Pack
from training.crops.sources import Sources
from training.datasets.dataset import Subset
from training.datasets.single_cells import AML_CELLS
from training.errors import DatasetError
from training.export.onnx_model import INPUT, OUTPUTS
from training.recipes.config import Input, InputKind

Float = NDArray[np.float32]
Double = NDArray[np.float64]
Flags = NDArray[np.bool_]
_EVERY = tuple(s for s in Subset if s is not Subset.KEPT_BACK)


class JudgedCells(Protocol):
    """The values of N cells that a decision needs."""

    @property
    def embeddings(self) -> Float:
        """float32 (N, D), not normalised."""

    @property
    def accepted(self) -> Flags:
        """Which cells preprocessing accepted, bool (N,)."""

    @property
    def probability(self) -> Double:
        """Probability of blast by the network alone, float64 (N,)."""

    @property
    def nothing(self) -> Double:
        """Probability that no cell is there, float64 (N,); NaN where the network does not tell."""

    @property
    def refusals(self) -> Sequence[tuple[str, ...]]:
        """Reasons why preprocessing did not accept each cell, N entries; empty where it did, or where the reasons are not known."""


class _ByLogits:
    """Values derived from the logits of N cells, float32 (N, 2 or 3)."""

    logits: Float

    @property
    def probability(self) -> Double:
        """Probability of blast by the network alone, float64 (N,)."""
        return np.asarray(blast_probability(self.logits), np.float64)

    @property
    def nothing(self) -> Double:
        """Probability that no cell is there, float64 (N,); NaN where the network does not tell."""
        return np.asarray(nothing_probability(self.logits), np.float64)


@dataclass(frozen=True)
class CalibrationCells(_ByLogits):
    """The calibration cells of a release, none ambiguous.

    Attributes:
        embeddings: float32 (M, D), not normalised.
        logits: float32 (M, K).
        is_blast: bool (M,).
        groups: (M,) which are of one patient.
        accepted: bool (M,), which preprocessing accepted.
    """

    embeddings: Float
    logits: Float
    is_blast: Flags
    groups: NDArray[np.str_]
    accepted: Flags

    def __len__(self) -> int:
        return len(self.embeddings)

    @classmethod
    def of(cls, judged: Judged) -> CalibrationCells:
        """Those of a pack. Patients are replaced by numbers, so that they cannot be identified."""
        chosen = judged.of(Subset.CALIBRATION)
        _, numbers = np.unique(judged.pack.groups[chosen], return_inverse=True)
        groups = np.array([f"C{n:02d}" for n in numbers])
        return cls(judged.embeddings[chosen], judged.logits[chosen], judged.pack.is_blast[chosen] == 1, groups, judged.accepted[chosen])

    @classmethod
    def held(cls, references: ReferenceLibrary) -> CalibrationCells:
        """Those that a library keeps; none where it keeps none."""
        return cls(
            np.asarray(references.calibration_embeddings),
            np.asarray(references.calibration_logits),
            np.asarray(references.calibration_is_blast),
            np.asarray(references.calibration_groups),
            np.asarray(references.calibration_accepted),
        )

    def keep(self, references: ReferenceLibrary) -> ReferenceLibrary:
        """A library that keeps them."""
        return replace(
            references,
            calibration_embeddings=self.embeddings,
            calibration_logits=self.logits,
            calibration_is_blast=self.is_blast,
            calibration_groups=self.groups,
            calibration_accepted=self.accepted,
        )

    @property
    def refusals(self) -> Sequence[tuple[str, ...]]:
        """Not kept: empty."""
        return [()] * len(self)


@dataclass(frozen=True)
class Judged(_ByLogits):
    """Outputs of an exported file for the crops of a pack.

    Attributes:
        pack: the crops.
        logits: float32 (N, 2), or (N, 3) where the network tells that no cell is there.
        embeddings: float32 (N, D).
        place_embeddings: float32 (N, h, w, D), of each place of the feature map.
    """

    pack: Pack
    logits: Float
    embeddings: Float
    place_embeddings: Float

    def of(self, *subsets: Subset) -> Flags:
        """Which cells are of these subsets and not ambiguous."""
        return self.pack.in_subset(*subsets) & (self.pack.is_blast >= 0)

    @property
    def accepted(self) -> Flags:
        """Which cells preprocessing accepted."""
        return self.pack.measures["accepted"] > 0.5

    @property
    def refusals(self) -> tuple[tuple[str, ...], ...]:
        """Why preprocessing refused each cell, N entries; empty where it accepted it."""
        enlarged = self.pack.measures["upscale_factor"] > MAX_UPSCALE
        why = [(QualityReason.LOW_RESOLUTION.value if e else QualityReason.POOR_FOCUS.value,) for e in enlarged]
        return tuple(() if accepted else reasons for accepted, reasons in zip(self.accepted, why, strict=True))


@dataclass(frozen=True)
class Verdicts:
    """Decision on each cell.

    Attributes:
        fused: probability of blast, float64 (N,).
        suspected, indeterminate: bool (N,).
    """

    fused: Double
    suspected: Flags
    indeterminate: Flags


def judge(path: Path, pack: Pack, what: str = "judging") -> Judged:
    """Run an exported file over a pack, as ONNX Runtime serves it."""
    session = open_session(path, threads=2)
    starts = range(0, len(pack), MAX_CELLS_PER_CALL)
    parts = [session.run(list(OUTPUTS), {INPUT: pack.pixels[i : i + MAX_CELLS_PER_CALL]}) for i in track(starts, description=what)]
    logits, embeddings, place_embeddings = (np.concatenate(p) for p in zip(*parts, strict=True))
    return Judged(pack, logits, embeddings, place_embeddings)


def votes(judged: JudgedCells, references: ReferenceLibrary, neighbours: int) -> tuple[Double, Double]:
    """Vote of the nearest references and distance to the nearest, float64 (N,) each."""
    indices, distances = ExactSearch(references.embeddings).nearest(unit(judged.embeddings), neighbours)
    return vote(distances, references.is_blast[indices]).astype(np.float64), distances[:, 0].astype(np.float64)


def judge_as_served(release: Release, store: ReleaseStore, sources: Sources, *subsets: Subset, target: str = AML_CELLS) -> Judged:
    """Judge unambiguous cells with the file that ONNX Runtime serves of a release.

    Args:
        release: which.
        store: where it is.
        sources: of the cells.
        subsets: whose cells; all but those that are kept back if none is given, which is for data that the release has not seen.
        target: name of the data set.

    Raises:
        DatasetError: the data are not there or broken, or no cell is of these subsets.
        RecipeError: the packs are of another side or other focus parameters.
    """
    focus = FocusParameters(**release.preprocessing.model_dump())
    pack = sources.pack(target, Input(kind=InputKind.REGISTERED_SHARPENED, side=release.input.side), focus=focus)
    chosen = pack.in_subset(*(subsets or _EVERY)) & (pack.is_blast >= 0)
    if not chosen.any():
        raise DatasetError(f"{target} has no cells of {' or '.join(subsets) or 'any'} patients that are blast or normal.")
    return judge(store.model_path(release.network), pack.select(chosen))


def cell_verdicts(judged: JudgedCells, voted: Double, rule: CellRule) -> list[CellVerdict]:
    """Judge every cell by the rule of a release, as the gateway does.

    Args:
        judged: what the networks say.
        voted: votes of the neighbours, (N,).
        rule: of the release.
    """
    cells = zip(judged.probability, voted, judged.accepted, judged.refusals, judged.nothing, strict=True)
    return [judge_cell(float(n), float(v), bool(a), reasons, rule, float(empty)) for n, v, a, reasons, empty in cells]


def decide(judged: JudgedCells, references: ReferenceLibrary, rule: CellRule, neighbours: int) -> Verdicts:
    """Apply the rule of a release to every cell, as the gateway does."""
    verdicts = cell_verdicts(judged, votes(judged, references, neighbours)[0], rule)
    return Verdicts(
        np.array([v.probability for v in verdicts]), np.array([v.suspected for v in verdicts]), np.array([v.indeterminate for v in verdicts])
    )
