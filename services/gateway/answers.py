"""From judged images and releases to the messages of the contract."""

from __future__ import annotations

import importlib.metadata
import math
from typing import Final

from dl4all.diagnosis.v1 import diagnosis_pb2
from services.common.releases import Detects, Release, ReleaseStore
from services.gateway.calling import Effort
from services.gateway.composition import JudgedImage, poor_reasons_of
from services.gateway.decision import Counts, Decision, Finding, SpecimenImages, decide, decide_specimen
from services.gateway.judging import image_rule
from services.gateway.slides import JudgedSlide

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


def diagnosis_message(request_id: str, image: JudgedImage, release: Release, total_milliseconds: float) -> diagnosis_pb2.Diagnosis:
    """The diagnosis of one image."""
    counts = image.counts
    decision = decide(counts, image_rule(release), phantom=image.is_phantom, single_cell=image.is_single_cell, poor=image.poor)
    timings = {**image.effort.milliseconds, "total": total_milliseconds}
    provenance = _provenance(release, image.header.image_sha256, image.effort)
    return diagnosis_pb2.Diagnosis(
        request_id=request_id,
        finding=_FINDINGS[decision.finding],
        requires_review=decision.requires_review,
        reasons=[str(r) for r in decision.reasons],
        counts=_counts(counts),
        blast_fraction=diagnosis_pb2.BlastFraction(lower=decision.lower, upper=decision.upper),
        quality=image.header.quality,
        kind=image.header.kind,
        cells=[c.message for c in image.cells],
        latent_map=image.latent_map,
        rule=_rule(release, decision),
        provenance=provenance,
        timings=[diagnosis_pb2.StageTiming(stage=s, milliseconds=ms) for s, ms in timings.items()],
        patches=image.patches,
    )


def specimen_message(specimen: SpecimenImages, release: Release, effort: Effort, *, images: int, duplicates: int) -> diagnosis_pb2.SpecimenDiagnosis:
    """The aggregate over the images of one specimen.

    Args:
        specimen: what its images add up to.
        release: that judged all of them.
        effort: what it took, over all images.
        images: different images that were judged.
        duplicates: images that were sent again, and count once.
    """
    decision = decide_specimen(specimen, image_rule(release))
    return diagnosis_pb2.SpecimenDiagnosis(
        finding=_FINDINGS[decision.finding],
        requires_review=decision.requires_review,
        reasons=[str(r) for r in decision.reasons],
        counts=_counts(specimen.counts),
        blast_fraction=diagnosis_pb2.BlastFraction(lower=decision.lower, upper=decision.upper),
        images=images,
        duplicates=duplicates,
        failures=specimen.failed,
        provenance=_provenance(release, "", effort),
    )


def slide_message(request_id: str, slide: JudgedSlide, release: Release, total_milliseconds: float) -> diagnosis_pb2.SlideDiagnosis:
    """The diagnosis of one slide that was read to its end."""
    assert slide.end is not None
    quality = slide.quality
    decision = decide(slide.counts, image_rule(release), phantom=slide.is_phantom, poor=poor_reasons_of(quality))
    timings = {**slide.effort.milliseconds, "total": total_milliseconds}
    return diagnosis_pb2.SlideDiagnosis(
        request_id=request_id,
        finding=_FINDINGS[decision.finding],
        requires_review=decision.requires_review,
        reasons=[str(r) for r in decision.reasons],
        counts=_counts(slide.counts),
        blast_fraction=diagnosis_pb2.BlastFraction(lower=decision.lower, upper=decision.upper),
        facts=slide.facts,
        quality=quality,
        explained=slide.explained,
        latent_map=slide.latent_map,
        rule=_rule(release, decision),
        provenance=_provenance(release, slide.end.sha256, slide.effort),
        timings=[diagnosis_pb2.StageTiming(stage=s, milliseconds=ms) for s, ms in timings.items()],
    )


def systems_message(releases: ReleaseStore) -> diagnosis_pb2.ListSystemsResponse:
    """The releases that can be chosen."""
    return diagnosis_pb2.ListSystemsResponse(releases=[_system(release, releases) for release in releases.releases])


def _system(release: Release, releases: ReleaseStore) -> diagnosis_pb2.SystemRelease:
    return diagnosis_pb2.SystemRelease(
        release=release.id,
        system=release.system,
        current=releases.index.current.get(release.system) == release.id,
        default=releases.index.default == release.id,
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


def _provenance(release: Release, image_sha256: str, effort: Effort) -> diagnosis_pb2.Provenance:
    files = [diagnosis_pb2.ServedFile(name=m.name, sha256=m.sha256) for m in effort.models]
    files.append(diagnosis_pb2.ServedFile(name="library", sha256=release.library.sha256))
    return diagnosis_pb2.Provenance(
        engine=effort.engine,
        served_files=files,
        release=release.id,
        system=release.system,
        detects=_DETECTS[release.detects],
        image_sha256=image_sha256,
        service_version=SERVICE_VERSION,
    )
