"""Judge a batch of cells: enhance, classify and explain them, and fuse one verdict for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dl4all.classification.v1 import classification_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.preprocessing.v1 import enhanced_cell_pb2
from dl4all.retrieval.v1 import neighbour_pb2, retrieval_pb2
from services.common.errors import InternalError, InvalidRequestError
from services.common.maps import read_feature_map
from services.gateway.cell_calls import CellCalls
from services.gateway.cells import JudgedCell
from services.gateway.class_activation import EvidenceMaps, evidence_maps
from services.gateway.fusion import CellRule, blast_probability, judge_cell, nothing_probability, unjudged_cell
from services.gateway.request_context import RequestContext
from services.gateway.rules import cell_rule
from services.gateway.run_stats import RunStats


@dataclass(frozen=True)
class CellEvidence:
    """Evidence that can be shown for a cell. It does not change the decision.

    Attributes:
        located: where the cell is.
        side: of the registered square, px; 0 where the cell was not registered.
        pixels: uint8 RGB of the registered square; empty where it is not to be shown.
        neighbours: nearest known cells, as retrieval answered them.
        activation: which places speak for which class; None where the network has no class activations, or they are not to be shown.
    """

    located: imaging_pb2.Cell
    side: int = 0
    pixels: bytes = b""
    neighbours: Sequence[neighbour_pb2.Neighbour] = ()
    activation: EvidenceMaps | None = None


@dataclass(frozen=True)
class CellAnswer:
    """One cell: its judgement and its evidence."""

    judged: JudgedCell
    evidence: CellEvidence


class CellJudge:
    """Judges batches of located cells.

    Args:
        calls: the services that look at cells.
    """

    def __init__(self, calls: CellCalls) -> None:
        self._calls = calls

    async def judge(
        self, cells: Sequence[imaging_pb2.Cell], crops: Sequence[imaging_pb2.Crop], context: RequestContext, stats: RunStats
    ) -> list[CellAnswer]:
        """Judge at most 32 cells by their crops, in order.

        Raises:
            DomainError: a service refused a call, or is down.
        """
        outcomes = await self._calls.enhance(crops, context, stats)
        pixels = {outcome.cell_id: outcome.enhanced.pixels for outcome in outcomes if outcome.HasField("enhanced")}
        if not pixels:
            return [_unjudged(cell) for cell in cells]
        classified = await self._calls.classify(pixels, context, stats, with_places=context.display.maps)
        explained = await self._calls.explain(classified, context, stats)
        rule = cell_rule(context.release)
        return [
            _answer(cell, outcome.enhanced, classified[cell.cell_id], explained[cell.cell_id], rule, crops=context.display.crops)
            if cell.cell_id in classified
            else _unjudged(cell)
            for cell, outcome in zip(cells, outcomes, strict=True)
        ]

    async def neighbours(self, pixels: dict[int, bytes], context: RequestContext, stats: RunStats) -> dict[int, Sequence[neighbour_pb2.Neighbour]]:
        """Nearest known cells of at most 32 registered cells, by cell id, with the maps that are to be shown.

        Raises:
            DomainError: a service refused a call, or is down.
        """
        classified = await self._calls.classify(pixels, context, stats, with_places=context.display.maps)
        explained = await self._calls.explain(classified, context, stats)
        return {cell_id: cell.neighbours for cell_id, cell in explained.items()}


def _own(cell: imaging_pb2.Cell) -> imaging_pb2.Cell:
    """A copy: a part of a message keeps the whole message in memory, crops included."""
    own = imaging_pb2.Cell()
    own.CopyFrom(cell)
    return own


def _unjudged(cell: imaging_pb2.Cell) -> CellAnswer:
    return CellAnswer(JudgedCell(cell.cell_id, unjudged_cell()), CellEvidence(_own(cell)))


def _answer(
    cell: imaging_pb2.Cell,
    enhanced: enhanced_cell_pb2.EnhancedCell,
    classified: classification_pb2.ClassifiedCell,
    explained: retrieval_pb2.ExplainedCell,
    rule: CellRule,
    *,
    crops: bool,
) -> CellAnswer:
    logits = list(classified.logits)
    network, vote, nothing = float(blast_probability(logits)), float(explained.vote), float(nothing_probability(logits))
    judged = JudgedCell(
        cell_id=cell.cell_id,
        verdict=judge_cell(network, vote, enhanced.accepted, list(enhanced.reasons), rule, nothing),
        network_probability=network,
        neighbour_vote=vote,
        nothing_probability=nothing,
        focus_before=enhanced.focus_before,
        focus_after=enhanced.focus_after,
        unsharp_radius=enhanced.unsharp_radius,
        upscale_factor=enhanced.upscale_factor,
        distance_quantile=explained.distance_quantile,
        position=(explained.position.x, explained.position.y),
    )
    activation = _activation(classified) if classified.HasField("class_activations") else None
    return CellAnswer(judged, CellEvidence(_own(cell), enhanced.side, enhanced.pixels if crops else b"", explained.neighbours, activation))


def _activation(classified: classification_pb2.ClassifiedCell) -> EvidenceMaps:
    try:
        return evidence_maps(read_feature_map(classified.class_activations, len(classified.logits), "class_activations"))
    except InvalidRequestError as error:
        raise InternalError("INTERNAL", "The classification service answered class activations that are not finite numbers.") from error
