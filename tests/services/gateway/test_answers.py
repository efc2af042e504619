"""Messages of the contract from judgements: nothing is lost, and the decision is that of the rule."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from dl4all.retrieval.v1 import neighbour_pb2
from services.common.errors import InvalidRequestError
from services.gateway.answers import (
    SERVICE_VERSION,
    cell_message,
    check_size,
    diagnosis_message,
    releases_message,
    slide_message,
    slide_part_message,
    specimen_message,
)
from services.gateway.cells import JudgedCell
from services.gateway.class_activation import EvidenceMaps
from services.gateway.composition import JudgedImage
from services.gateway.decision import Counts, SpecimenImages
from services.gateway.fusion import CellVerdict, unjudged_cell
from services.gateway.judging import CellAnswer, CellEvidence
from services.gateway.rules import image_rule
from services.gateway.run_stats import RunStats, ServedFile
from services.gateway.slides import JudgedSlide, SlideProgress
from services.gateway.specimens import Tally
from tests.services.gateway.fakes import RELEASE, STORE, context, located


def _stats() -> RunStats:
    stats = RunStats("triton", [ServedFile("net", 1, "a" * 64)])
    stats.milliseconds["classify"] = 3.0
    return stats


def _cells(total: int, suspected: int, indeterminate: int) -> list[CellAnswer]:
    verdicts = [CellVerdict(0.5, (), i < suspected, suspected <= i < suspected + indeterminate, ()) for i in range(total)]
    return [CellAnswer(JudgedCell(i, v), CellEvidence(imaging_pb2.Cell(cell_id=i))) for i, v in enumerate(verdicts)]


def _said(image: JudgedImage, milliseconds: float = 0.0) -> diagnosis_pb2.Diagnosis:
    return diagnosis_message(image, image.decide(image_rule(RELEASE)), context(), milliseconds)


def test_a_diagnosis_says_what_was_judged_by_what_and_how_long_it_took() -> None:
    said = _said(JudgedImage(located(total=3).header, _cells(3, 1, 1), stats=_stats()), 12.5)
    assert said.request_id == "r"
    assert (said.counts.total, said.counts.suspected, said.counts.indeterminate, said.counts.not_suspected) == (3, 1, 1, 1)
    assert [said.blast_fraction.lower, said.blast_fraction.upper] == pytest.approx([1 / 3, 2 / 3])
    assert [c.cell.cell_id for c in said.cells] == [0, 1, 2]
    provenance = said.provenance
    assert (provenance.engine, provenance.release, provenance.system) == ("triton", RELEASE.id, RELEASE.system)
    assert provenance.image_sha256 == "0" * 64
    assert [(f.name, f.sha256) for f in provenance.served_files] == [("net", "a" * 64), ("library", RELEASE.library.sha256)]
    assert provenance.service_version == SERVICE_VERSION
    assert provenance.detects == diagnosis_pb2.DETECTS_BLAST_LINEAGE_UNSPECIFIED
    assert {t.stage: t.milliseconds for t in said.timings} == {"classify": 3.0, "total": 12.5}
    assert said.rule.coverage == pytest.approx(RELEASE.calibration.coverage)


def test_a_cell_has_all_its_numbers_and_its_pixels_where_they_are_shown() -> None:
    judged = JudgedCell(4, CellVerdict(0.75, ("blast",), True, False, ("POOR_FOCUS",)), 0.5, 0.25, 0.125, 6.0, 5.0, 3, 1.5, 0.0625, (0.5, -0.25))
    heat = np.array([[255, 3]], np.uint8)
    evidence = CellEvidence(
        imaging_pb2.Cell(cell_id=4), 128, b"rgb", [neighbour_pb2.Neighbour(reference_id="a/1")], EvidenceMaps(heat, 255 - heat, 2.0)
    )
    said = cell_message(CellAnswer(judged, evidence), RELEASE, crops=True)
    assert (said.blast_probability, list(said.prediction_set), said.suspected, said.indeterminate) == (0.75, ["blast"], True, False)
    assert (said.network_probability, said.neighbour_vote, said.nothing_probability) == (0.5, 0.25, 0.125)
    assert (said.focus_before, said.focus_after, said.unsharp_radius, said.upscale_factor) == (6.0, 5.0, 3, 1.5)
    assert (said.distance_quantile, said.position.x, said.position.y) == (0.0625, 0.5, -0.25)
    assert (list(said.reasons), said.registered_side, said.registered_pixels) == (["POOR_FOCUS"], 128, b"rgb")
    assert [n.reference_id for n in said.neighbours] == ["a/1"]
    shown = said.class_activation.for_blast
    assert (shown.height, shown.width, shown.channels, shown.value_type, shown.values) == (1, 2, 1, imaging_pb2.VALUE_TYPE_UINT8, heat.tobytes())
    assert (said.class_activation.scale, said.class_activation.model) == (2.0, "plain_resnet_128/1")
    assert cell_message(CellAnswer(judged, evidence), RELEASE).registered_pixels == b""


def test_a_cell_that_was_not_judged_has_no_numbers() -> None:
    said = cell_message(CellAnswer(JudgedCell(0, unjudged_cell()), CellEvidence(imaging_pb2.Cell())), RELEASE)
    assert math.isnan(said.blast_probability)
    assert math.isnan(said.network_probability)
    assert math.isnan(said.neighbour_vote)
    assert not any(said.HasField(name) for name in ("nothing_probability", "position", "class_activation"))


@pytest.mark.parametrize(
    ("total", "suspected", "indeterminate", "finding"),
    [
        (200, 0, 0, diagnosis_pb2.FINDING_NO_BLASTS_SEEN),
        (200, 0, 20, diagnosis_pb2.FINDING_INDETERMINATE),
        (99, 0, 0, diagnosis_pb2.FINDING_INDETERMINATE),
        (200, 150, 0, diagnosis_pb2.FINDING_BLASTS_SUSPECTED),
    ],
)
def test_the_finding_is_that_of_the_rule_and_always_reviewed_where_myeloid_blasts_were_learned(
    total: int, suspected: int, indeterminate: int, finding: diagnosis_pb2.Finding.ValueType
) -> None:
    said = _said(JudgedImage(located(total=total).header, _cells(total, suspected, indeterminate)))
    assert said.finding == finding
    assert said.requires_review
    assert "MODEL_NOT_TRAINED_ON_LYMPHOBLASTS" in said.reasons


def test_a_specimen_adds_up_without_the_checksum_of_an_image() -> None:
    images = SpecimenImages(counts=Counts(300, 0, 0), clear=Counts(300, 0, 0), failed=1)
    said = specimen_message(Tally(images, {"a", "b", "c"}, 2, _stats()), RELEASE)
    assert (said.images, said.duplicates, said.failures, said.counts.total) == (3, 2, 1, 300)
    assert said.finding == diagnosis_pb2.FINDING_INDETERMINATE, "an image that failed could have shown blasts"
    assert said.provenance.image_sha256 == ""


def test_a_slide_has_its_facts_its_quality_and_its_own_checksum() -> None:
    facts = imaging_pb2.SlideFacts(width=5000, height=4000, red_cell_radius=30.0)
    end = patching_pb2.SlideEnd(cell_count=2, sha256="5" * 64, blur=1.5)
    slide = JudgedSlide(facts, end, SlideProgress(), Counts(2, 1, 0), _cells(2, 1, 0)[1:], stats=_stats())
    said = slide_message(slide, slide.decide(image_rule(RELEASE)), context(), 7.0)
    assert (said.facts.width, said.quality.height, said.quality.blur) == (5000, 4000, 1.5)
    assert said.provenance.image_sha256 == "5" * 64
    assert [c.cell.cell_id for c in said.explained] == [1]
    assert said.counts.total == 2


def test_parts_of_a_slide_are_progress_or_cells() -> None:
    progress = slide_part_message(SlideProgress(5, 2, 3, 8, 7), RELEASE).progress
    assert (progress.bytes_received, progress.windows_done, progress.windows, progress.cells_found, progress.cells_judged) == (5, 2, 3, 8, 7)
    assert [c.cell.cell_id for c in slide_part_message(_cells(2, 0, 0), RELEASE).cells.cells] == [0, 1]


def test_an_answer_that_is_too_large_is_refused() -> None:
    message = diagnosis_pb2.Diagnosis(request_id="r" * 100)
    check_size(message, message.ByteSize(), 1)
    with pytest.raises(InvalidRequestError) as caught:
        check_size(message, message.ByteSize() - 1, 1)
    assert (caught.value.reason, caught.value.field) == ("ANSWER_TOO_LARGE", "display")


def test_all_releases_are_listed_with_one_default_and_one_current_of_each_system() -> None:
    said = releases_message(STORE).releases
    assert [s.release_id for s in said] == [r.id for r in STORE.releases]
    assert [s.release_id for s in said if s.is_default] == [STORE.index.default]
    assert {s.system: s.release_id for s in said if s.is_current} == STORE.index.current
    figures = {f.name: f for s in said if s.is_default for f in s.figures}
    kept = {f.name: f for f in STORE.held(STORE.index.default).figures}
    assert {name: f.value for name, f in kept.items()} == pytest.approx({name: f.value for name, f in figures.items()})
    assert all(math.isnan(figures[name].low) == (f.low is None) for name, f in kept.items())
