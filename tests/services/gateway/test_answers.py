"""Messages of the contract from what was judged: nothing is lost, and the decision is that of the rule."""

from __future__ import annotations

import math

import pytest

from dl4all.classification.v1 import classification_pb2
from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from services.gateway.answers import SERVICE_VERSION, diagnosis_message, slide_message, specimen_message, systems_message
from services.gateway.calling import Effort
from services.gateway.composition import JudgedImage
from services.gateway.decision import Counts, SpecimenImages
from services.gateway.fusion import CellVerdict
from services.gateway.judging import JudgedCell
from services.gateway.slides import JudgedSlide
from tests.services.gateway.fakes import RELEASE, STORE, located


def _effort() -> Effort:
    effort = Effort("triton", [classification_pb2.ServedModel(name="net", version=1, sha256="a" * 64)])
    effort.milliseconds["classify"] = 3.0
    return effort


def _cells(total: int, suspected: int, indeterminate: int) -> list[JudgedCell]:
    verdicts = [CellVerdict(0.5, (), i < suspected, suspected <= i < suspected + indeterminate, ()) for i in range(total)]
    return [JudgedCell(v, diagnosis_pb2.CellDiagnosis(cell=imaging_pb2.Cell(cell_id=i))) for i, v in enumerate(verdicts)]


def test_a_diagnosis_says_what_was_judged_by_what_and_how_long_it_took() -> None:
    image = JudgedImage(located(total=3).header, _cells(3, 1, 1), effort=_effort())
    said = diagnosis_message("r", image, RELEASE, 12.5)
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
    said = diagnosis_message("r", JudgedImage(located(total=total).header, _cells(total, suspected, indeterminate)), RELEASE, 0.0)
    assert said.finding == finding
    assert said.requires_review
    assert "MODEL_NOT_TRAINED_ON_LYMPHOBLASTS" in said.reasons


def test_a_specimen_adds_up_without_the_checksum_of_an_image() -> None:
    images = SpecimenImages(counts=Counts(300, 0, 0), clear=Counts(300, 0, 0), failed=1)
    said = specimen_message(images, RELEASE, _effort(), images=3, duplicates=2)
    assert (said.images, said.duplicates, said.failures, said.counts.total) == (3, 2, 1, 300)
    assert said.finding == diagnosis_pb2.FINDING_INDETERMINATE, "an image that failed could have shown blasts"
    assert said.provenance.image_sha256 == ""


def test_a_slide_has_its_facts_its_quality_and_its_own_checksum() -> None:
    facts = imaging_pb2.SlideFacts(width=5000, height=4000, red_cell_radius=30.0)
    end = patching_pb2.SlideEnd(cell_count=2, sha256="5" * 64, blur=1.5)
    explained = [diagnosis_pb2.CellDiagnosis(cell=imaging_pb2.Cell(cell_id=1))]
    said = slide_message("r", JudgedSlide(facts, end, Counts(2, 1, 0), 2, explained, effort=_effort()), RELEASE, 7.0)
    assert (said.facts.width, said.quality.height, said.quality.blur) == (5000, 4000, 1.5)
    assert said.provenance.image_sha256 == "5" * 64
    assert [c.cell.cell_id for c in said.explained] == [1]
    assert said.counts.total == 2


def test_systems_are_all_releases_with_one_default_and_one_current_each() -> None:
    said = systems_message(STORE).releases
    assert [s.release for s in said] == [r.id for r in STORE.releases]
    assert [s.release for s in said if s.default] == [STORE.index.default]
    assert {s.system: s.release for s in said if s.current} == STORE.index.current
    figures = {f.name: f for s in said if s.default for f in s.figures}
    kept = {f.name: f for f in STORE.held(STORE.index.default).figures}
    assert {name: f.value for name, f in kept.items()} == pytest.approx({name: f.value for name, f in figures.items()})
    assert all(math.isnan(figures[name].low) == (f.low is None) for name, f in kept.items())
