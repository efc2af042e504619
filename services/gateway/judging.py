"""The way of a batch of cells: enhanced, classified, explained, fused into one verdict each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dl4all.classification.v1 import classification_pb2
from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.preprocessing.v1 import preprocessing_pb2
from dl4all.retrieval.v1 import retrieval_pb2
from services.common.arrays import patches_from_bytes
from services.common.errors import InternalError, InvalidRequestError
from services.common.releases import Detects, Release
from services.common.tracing import metadata
from services.gateway.answer_checks import check_classified, check_enhanced, check_explained, check_library, check_models
from services.gateway.calling import Clock, Effort, call
from services.gateway.class_activation import evidence_maps
from services.gateway.decision import ImageRule
from services.gateway.fusion import CellRule, CellVerdict, blast_probability, judge_cell, nothing_probability, unjudged_cell
from services.gateway.stubs import Stubs

_UNJUDGED: Final = float("nan")


@dataclass(frozen=True)
class JudgedCell:
    """One cell with its verdict, as answered and as counted."""

    verdict: CellVerdict
    message: diagnosis_pb2.CellDiagnosis


@dataclass(frozen=True)
class Asked:
    """What a caller asked for, as the judging of cells needs it.

    Attributes:
        request_id: correlates logs.
        release: the release that decides.
        display: what is shown.
        clock: the time that is left.
    """

    request_id: str
    release: Release
    display: diagnosis_pb2.DisplayOptions
    clock: Clock


def cell_rule(release: Release) -> CellRule:
    """The numbers of a release that judge a cell."""
    c = release.calibration
    return CellRule(c.network_weight, c.min_probability, c.max_disagreement, c.min_nothing)


def image_rule(release: Release) -> ImageRule:
    """The numbers of a release that decide an image."""
    d = release.decision
    return ImageRule(d.false_blasts, d.min_cells_for_negative, d.max_fraction_for_negative, release.detects is Detects.LYMPHOBLAST)


class CellJudge:
    """Judges batches of located cells.

    Args:
        stubs: the four services.
    """

    def __init__(self, stubs: Stubs) -> None:
        self._stubs = stubs

    async def judge(self, cells: Sequence[imaging_pb2.Cell], crops: Sequence[imaging_pb2.Crop], asked: Asked, effort: Effort) -> list[JudgedCell]:
        """Judge at most 32 cells by their crops, in order.

        Raises:
            DomainError: what a service refused, or that one is down.
        """
        with effort.timed("enhance"):
            request = preprocessing_pb2.EnhanceRequest(request_id=asked.request_id, release=asked.release.id, crops=crops)
            answer = await call("preprocessing", self._stubs.preprocessing.Enhance(request, timeout=asked.clock.left, metadata=metadata()))
            enhanced = check_enhanced(answer, [c.cell_id for c in cells], asked.release.input.side)
        usable = {o.cell_id: o.enhanced.pixels for o in enhanced.outcomes if o.HasField("enhanced")}
        classified, explained = await self.explain(usable, asked, effort) if usable else ({}, {})
        rule = cell_rule(asked.release)
        return [
            _judged_cell(cell, outcome, classified.get(cell.cell_id), explained.get(cell.cell_id), rule, asked)
            for cell, outcome in zip(cells, enhanced.outcomes, strict=True)
        ]

    async def explain(
        self, pixels: dict[int, bytes], asked: Asked, effort: Effort
    ) -> tuple[dict[int, classification_pb2.ClassifiedCell], dict[int, retrieval_pb2.ExplainedCell]]:
        """What networks and references say of at most 32 registered cells, by cell id.

        Args:
            pixels: registered cells by cell id, at the side of the release.
            asked: what is asked for.
            effort: what it takes is added here.
        """
        with effort.timed("classify"):
            judged = await self._classify(pixels, asked)
        check_models(judged.models, asked.release)
        effort.engine, effort.models = judged.engine, list(judged.models)
        with effort.timed("explain"):
            explained = await self._explain(judged, asked)
        return {c.cell_id: c for c in judged.cells}, explained

    async def latent_map(self, asked: Asked) -> list[retrieval_pb2.LatentReference]:
        """Reference cells of the latent map, if they are asked for."""
        if not asked.display.include_latent_map:
            return []
        request = retrieval_pb2.GetLatentMapRequest(request_id=asked.request_id, release=asked.release.id)
        answer = await call("retrieval", self._stubs.retrieval.GetLatentMap(request, timeout=asked.clock.left, metadata=metadata()))
        if answer is None:
            raise InternalError("INTERNAL", "The retrieval service answered a message that cannot be read.")
        return list(answer.references)

    async def _classify(self, pixels: dict[int, bytes], asked: Asked) -> classification_pb2.ClassifyResponse:
        request = classification_pb2.ClassifyRequest(
            request_id=asked.request_id,
            release=asked.release.id,
            cells=[classification_pb2.ClassifyCell(cell_id=cell, pixels=content) for cell, content in pixels.items()],
            include_patch_embeddings=asked.display.include_maps,
        )
        answer = await call("classification", self._stubs.classification.Classify(request, timeout=asked.clock.left, metadata=metadata()))
        return check_classified(answer, list(pixels), len(asked.release.classes))

    async def _explain(self, classified: classification_pb2.ClassifyResponse, asked: Asked) -> dict[int, retrieval_pb2.ExplainedCell]:
        cells = [
            retrieval_pb2.ExplainCell(cell_id=c.cell_id, embedding=c.embedding, patch_embeddings=c.patch_embeddings, rows=c.rows, columns=c.columns)
            for c in classified.cells
        ]
        request = retrieval_pb2.ExplainRequest(
            request_id=asked.request_id,
            release=asked.release.id,
            cells=cells,
            neighbours=asked.display.neighbours,
            include_maps=asked.display.include_maps,
        )
        answer = await call("retrieval", self._stubs.retrieval.Explain(request, timeout=asked.clock.left, metadata=metadata()))
        explained = check_explained(answer, [c.cell_id for c in cells])
        check_library(explained.library_sha256, asked.release)
        return {c.cell_id: c for c in explained.cells}


def _judged_cell(
    cell: imaging_pb2.Cell,
    outcome: preprocessing_pb2.EnhanceOutcome,
    classified: classification_pb2.ClassifiedCell | None,
    explained: retrieval_pb2.ExplainedCell | None,
    rule: CellRule,
    asked: Asked,
) -> JudgedCell:
    message = diagnosis_pb2.CellDiagnosis(cell=cell, network_probability=_UNJUDGED, neighbour_vote=_UNJUDGED)
    if classified is None or explained is None:
        verdict = unjudged_cell()
    else:
        enhanced = outcome.enhanced
        network, vote = float(blast_probability(list(classified.logits))), float(explained.vote)
        nothing = float(nothing_probability(list(classified.logits)))
        verdict = judge_cell(network, vote, enhanced.accepted, list(enhanced.reasons), rule, nothing)
        if math.isfinite(nothing):
            message.nothing_probability = nothing
        if classified.class_activations:
            message.class_activation.CopyFrom(_class_activation(classified, asked.release))
        message.network_probability, message.neighbour_vote = network, vote
        message.focus_before, message.focus_after = enhanced.focus_before, enhanced.focus_after
        message.unsharp_radius, message.upscale_factor = enhanced.unsharp_radius, enhanced.upscale_factor
        message.neighbours.extend(explained.neighbours)
        message.distance_quantile = explained.distance_quantile
        message.position.CopyFrom(explained.position)
        message.registered_side = enhanced.side
        if asked.display.include_crops:
            message.registered_pixels = enhanced.pixels
    message.blast_probability = verdict.probability
    message.prediction_set.extend(verdict.prediction_set)
    message.suspected, message.indeterminate = verdict.suspected, verdict.indeterminate
    message.reasons.extend(verdict.reasons)
    return JudgedCell(verdict, message)


def _class_activation(classified: classification_pb2.ClassifiedCell, release: Release) -> diagnosis_pb2.ClassActivation:
    try:
        activations = patches_from_bytes(classified.class_activations, classified.rows, classified.columns, len(release.classes), "class_activations")
    except InvalidRequestError as error:
        raise InternalError("INTERNAL", "The classification service answered class activations that are not finite numbers.") from error
    maps = evidence_maps(activations)
    return diagnosis_pb2.ClassActivation(
        for_blast=_heatmap(maps.for_blast),
        for_normal=_heatmap(maps.for_normal),
        scale=maps.scale,
        model=f"{release.network.model}/{release.network.version}",
    )


def _heatmap(values: NDArray[np.uint8]) -> imaging_pb2.Heatmap:
    return imaging_pb2.Heatmap(values=values.tobytes(), height=values.shape[0], width=values.shape[1])
