"""Messages of the contract, from judgements and decisions."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final

from google.protobuf.message import Message

from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.retrieval.v1 import neighbour_pb2
from services.common.errors import InvalidRequestError
from services.common.maps import heatmap_message
from services.common.releases import Detects, Release, ReleaseStore
from services.gateway.class_activation import EvidenceMaps
from services.gateway.composition import JudgedImage
from services.gateway.decision import Counts, DecidedImage, Decision, Finding, decide_specimen
from services.gateway.judging import CellAnswer
from services.gateway.patches import JudgedPatch
from services.gateway.request_context import RequestContext
from services.gateway.rules import image_rule
from services.gateway.run_stats import RunStats
from services.gateway.single_cells import EnhancedSingleCell, LocatedCells
from services.gateway.slides import JudgedSlide, SlideProgress
from services.gateway.specimens import Tally

SERVICE_VERSION: Final = importlib.metadata.version("dl4all-serving")
_FINDINGS: Final = {
    Finding.BLASTS_SUSPECTED: diagnosis_pb2.FINDING_BLASTS_SUSPECTED,
    Finding.NO_BLASTS_SEEN: diagnosis_pb2.FINDING_NO_BLASTS_SEEN,
    Finding.INDETERMINATE: diagnosis_pb2.FINDING_INDETERMINATE,
}
_DETECTS: Final = {
    Detects.LYMPHOBLAST: diagnosis_pb2.DETECTS_LYMPHOBLAST,
    Detects.BLAST_LINEAGE_UNSPECIFIED: diagnosis_pb2.DETECTS_BLAST_LINEAGE_UNSPECIFIED,
}


def diagnosis_message(image: JudgedImage, decided: DecidedImage, context: RequestContext, milliseconds: float) -> diagnosis_pb2.Diagnosis:
    """The diagnosis of one image.

    Args:
        image: the judged image.
        decided: its decision.
        context: of the request.
        milliseconds: duration of the whole request.
    """
    decision = decided.decision
    return diagnosis_pb2.Diagnosis(
        request_id=context.request_id,
        finding=_FINDINGS[decision.finding],
        requires_review=decision.requires_review,
        reasons=[str(r) for r in decision.reasons],
        counts=_counts(decided.counts),
        blast_fraction=diagnosis_pb2.BlastFraction(lower=decision.lower, upper=decision.upper),
        quality=image.header.quality,
        kind=image.header.kind,
        cells=[cell_message(cell, context.release, crops=context.display.crops) for cell in image.cells],
        latent_map=image.latent_map,
        rule=_rule(context.release, decision),
        provenance=_provenance(context.release, decided.sha256, image.stats),
        timings=_timings(image.stats.milliseconds, milliseconds),
        patches=[_patch(patch) for patch in image.patches],
    )


def specimen_message(tally: Tally, release: Release) -> diagnosis_pb2.SpecimenDiagnosis:
    """The aggregate over the images of one specimen.

    Args:
        tally: sums over its images.
        release: the release that judged all of them.
    """
    decision = decide_specimen(tally.images, image_rule(release))
    return diagnosis_pb2.SpecimenDiagnosis(
        finding=_FINDINGS[decision.finding],
        requires_review=decision.requires_review,
        reasons=[str(r) for r in decision.reasons],
        counts=_counts(tally.images.counts),
        blast_fraction=diagnosis_pb2.BlastFraction(lower=decision.lower, upper=decision.upper),
        images=len(tally.seen),
        duplicates=tally.duplicates,
        failures=tally.images.failed,
        provenance=_provenance(release, "", tally.stats),
    )


def slide_message(slide: JudgedSlide, decision: Decision, context: RequestContext, milliseconds: float) -> diagnosis_pb2.SlideDiagnosis:
    """The diagnosis of one slide that was read to the end; arguments as for ``diagnosis_message``."""
    assert slide.end is not None
    return diagnosis_pb2.SlideDiagnosis(
        request_id=context.request_id,
        finding=_FINDINGS[decision.finding],
        requires_review=decision.requires_review,
        reasons=[str(r) for r in decision.reasons],
        counts=_counts(slide.counts),
        blast_fraction=diagnosis_pb2.BlastFraction(lower=decision.lower, upper=decision.upper),
        facts=slide.facts,
        quality=slide.quality,
        explained=[cell_message(cell, context.release, crops=context.display.crops) for cell in slide.explained],
        latent_map=slide.latent_map,
        rule=_rule(context.release, decision),
        provenance=_provenance(context.release, slide.end.sha256, slide.stats),
        timings=_timings(slide.stats.milliseconds, milliseconds),
    )


def slide_part_message(part: SlideProgress | Sequence[CellAnswer], release: Release) -> diagnosis_pb2.DiagnoseSlideResponse:
    """Progress of the diagnosis of a slide, or judged cells of it."""
    if isinstance(part, SlideProgress):
        return diagnosis_pb2.DiagnoseSlideResponse(progress=diagnosis_pb2.DiagnoseSlideProgress(**asdict(part)))
    cells = diagnosis_pb2.JudgedSlideCells(cells=[cell_message(cell, release) for cell in part])
    return diagnosis_pb2.DiagnoseSlideResponse(cells=cells)


def check_size(message: Message, most: int, cells: int) -> None:
    """Refuse an answer that is too large to send.

    Args:
        message: the answer.
        most: bytes that can be sent.
        cells: number of cells in it.

    Raises:
        InvalidRequestError: ANSWER_TOO_LARGE.
    """
    if message.ByteSize() > most:
        text = f"The diagnosis of {cells} cells is too large to send with everything in display; request less there."
        raise InvalidRequestError("ANSWER_TOO_LARGE", text, field="display")


def cell_message(cell: CellAnswer, release: Release, *, crops: bool = False) -> diagnosis_pb2.CellDiagnosis:
    """The diagnosis of one cell.

    Args:
        cell: the judged cell.
        release: the release that judged it.
        crops: whether its registered pixels are shown.
    """
    judged, evidence, verdict = cell.judged, cell.evidence, cell.judged.verdict
    position = None if judged.position is None else neighbour_pb2.LatentPoint(x=judged.position[0], y=judged.position[1])
    return diagnosis_pb2.CellDiagnosis(
        cell=evidence.located,
        blast_probability=verdict.probability,
        prediction_set=verdict.prediction_set,
        suspected=verdict.suspected,
        indeterminate=verdict.indeterminate,
        reasons=verdict.reasons,
        network_probability=judged.network_probability,
        neighbour_vote=judged.neighbour_vote,
        nothing_probability=judged.nothing_probability if math.isfinite(judged.nothing_probability) else None,
        focus_before=judged.focus_before,
        focus_after=judged.focus_after,
        unsharp_radius=judged.unsharp_radius,
        upscale_factor=judged.upscale_factor,
        neighbours=evidence.neighbours,
        distance_quantile=judged.distance_quantile,
        position=position,
        registered_side=evidence.side,
        registered_pixels=evidence.pixels if crops else b"",
        class_activation=None if evidence.activation is None else _class_activation(evidence.activation, release),
    )


def located_message(located: LocatedCells, context: RequestContext) -> diagnosis_pb2.LocateCellsResponse:
    """The cells of one image."""
    header = located.header
    return diagnosis_pb2.LocateCellsResponse(
        request_id=context.request_id, cells=located.cells, quality=header.quality, kind=header.kind, image_sha256=header.image_sha256
    )


def enhanced_message(found: EnhancedSingleCell, context: RequestContext, *, crop: bool) -> diagnosis_pb2.EnhanceCellResponse:
    """The registered, sharpened cell of one image, with the pixels around it where ``crop`` says so."""
    return diagnosis_pb2.EnhanceCellResponse(
        request_id=context.request_id,
        cell=found.cell,
        enhanced=found.enhanced,
        crop=found.crop if crop else None,
        release=context.release.id,
    )


def releases_message(releases: ReleaseStore) -> diagnosis_pb2.ListReleasesResponse:
    """The releases that can be chosen."""
    return diagnosis_pb2.ListReleasesResponse(releases=[_release(release, releases) for release in releases.releases])


def _release(release: Release, releases: ReleaseStore) -> diagnosis_pb2.Release:
    return diagnosis_pb2.Release(
        release_id=release.id,
        system=release.system,
        is_current=releases.index.current.get(release.system) == release.id,
        is_default=releases.index.default == release.id,
        detects=_DETECTS[release.detects],
        title=release.title,
        input=str(release.input.kind),
        side=release.input.side,
        figures=[
            diagnosis_pb2.Figure(
                name=f.name,
                value=f.value,
                low=math.nan if f.low is None else f.low,
                high=math.nan if f.high is None else f.high,
            )
            for f in release.figures
        ],
        limits=release.limits,
    )


def _class_activation(maps: EvidenceMaps, release: Release) -> diagnosis_pb2.ClassActivation:
    return diagnosis_pb2.ClassActivation(
        for_blast=heatmap_message(maps.for_blast),
        for_normal=heatmap_message(maps.for_normal),
        scale=maps.scale,
        model=f"{release.network.model}/{release.network.version}",
    )


def _patch(patch: JudgedPatch) -> diagnosis_pb2.PatchDiagnosis:
    return diagnosis_pb2.PatchDiagnosis(
        box=imaging_pb2.Box(x=patch.x, y=patch.y, width=patch.side, height=patch.side),
        blast_probability=patch.blast_probability,
        other_probability=patch.other_probability,
        blast_present=patch.blast_present,
        other_present=patch.other_present,
    )


def _counts(counts: Counts) -> diagnosis_pb2.CellCounts:
    return diagnosis_pb2.CellCounts(
        total=counts.total, suspected=counts.suspected, indeterminate=counts.indeterminate, not_suspected=counts.not_suspected
    )


def _rule(release: Release, decision: Decision) -> diagnosis_pb2.DecisionRule:
    return diagnosis_pb2.DecisionRule(
        false_blast_quantile=decision.false_blast_quantile,
        min_cells_for_negative=release.decision.min_cells_for_negative,
        max_fraction_for_negative=release.decision.max_fraction_for_negative,
        coverage=release.calibration.coverage,
        voting_neighbours=release.calibration.voting_neighbours,
        network_weight=release.calibration.network_weight,
    )


def _timings(stages: Mapping[str, float], total: float) -> list[diagnosis_pb2.StageTiming]:
    return [diagnosis_pb2.StageTiming(stage=stage, milliseconds=spent) for stage, spent in {**stages, "total": total}.items()]


def _provenance(release: Release, image_sha256: str, stats: RunStats) -> diagnosis_pb2.Provenance:
    files = [diagnosis_pb2.ServedFile(name=m.name, version=m.version, sha256=m.sha256) for m in stats.models]
    files.append(diagnosis_pb2.ServedFile(name="library", sha256=release.library.sha256))
    return diagnosis_pb2.Provenance(
        engine=stats.engine,
        served_files=files,
        release=release.id,
        system=release.system,
        detects=_DETECTS[release.detects],
        image_sha256=image_sha256,
        service_version=SERVICE_VERSION,
    )
