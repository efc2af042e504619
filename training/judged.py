"""What an exported file says of a pack: exactly what serving will say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from services.common.engines.onnx_runtime import open_session
from services.gateway.fusion import CellRule, blast_probability, judge_cell, nothing_probability
from services.retrieval.library import ReferenceLibrary
from services.retrieval.neighbours import unit, vote
from services.retrieval.search import ExactSearch
from training.datasets.dataset import Subset
from training.export.onnx_model import INPUT, OUTPUTS
from training.packs import Pack

Float = NDArray[np.float32]
Double = NDArray[np.float64]
Flags = NDArray[np.bool_]
_BATCH = 32


@dataclass(frozen=True)
class Judged:
    """Outputs of an exported file for the crops of a pack.

    Attributes:
        pack: the crops.
        logits: float32 (N, 2), or (N, 3) where the network tells that no cell is there.
        embeddings: float32 (N, D).
        patches: float32 (N, h, w, D).
    """

    pack: Pack
    logits: Float
    embeddings: Float
    patches: Float

    def of(self, *subsets: Subset) -> Flags:
        """Which cells are of these subsets and not ambiguous."""
        return self.pack.in_subset(*subsets) & (self.pack.is_blast >= 0)

    @property
    def accepted(self) -> Flags:
        """Which cells preprocessing accepted."""
        return self.pack.measures["accepted"] > 0.5

    @property
    def probability(self) -> Double:
        """Probability of blast by the network alone, float64 (N,)."""
        return np.asarray(blast_probability(self.logits), np.float64)

    @property
    def nothing(self) -> Double:
        """Probability that no cell is there, float64 (N,); NaN where the network does not tell."""
        return np.asarray(nothing_probability(self.logits), np.float64)


@dataclass(frozen=True)
class Verdicts:
    """What is decided of each cell.

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
    starts = range(0, len(pack), _BATCH)
    parts = [session.run(list(OUTPUTS), {INPUT: pack.pixels[i : i + _BATCH]}) for i in track(starts, description=what)]
    logits, embeddings, patches = (np.concatenate(p) for p in zip(*parts, strict=True))
    return Judged(pack, logits, embeddings, patches)


def votes(judged: Judged, references: ReferenceLibrary, neighbours: int) -> tuple[Double, Double]:
    """Vote of the nearest references and distance to the nearest, float64 (N,) each."""
    indices, distances = ExactSearch(references.embeddings).nearest(unit(judged.embeddings), neighbours)
    return vote(distances, references.is_blast[indices]).astype(np.float64), distances[:, 0].astype(np.float64)


def decide(judged: Judged, references: ReferenceLibrary, rule: CellRule, neighbours: int) -> Verdicts:
    """Apply the rule of a release to every cell, as the gateway does."""
    network, voted = judged.probability, votes(judged, references, neighbours)[0]
    verdicts = [
        judge_cell(float(n), float(v), bool(a), (), rule, float(empty))
        for n, v, a, empty in zip(network, voted, judged.accepted, judged.nothing, strict=True)
    ]
    return Verdicts(
        np.array([v.probability for v in verdicts]), np.array([v.suspected for v in verdicts]), np.array([v.indeterminate for v in verdicts])
    )
