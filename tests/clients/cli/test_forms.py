"""The JSON forms stay as scripts know them, however the contract lays out its messages."""

from __future__ import annotations

import json
import math

import numpy as np

from clients.cli.forms import diagnosis_form, release_form
from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.retrieval.v1 import neighbour_pb2
from services.common.maps import float_map_message, heatmap_message


def _cell() -> diagnosis_pb2.CellDiagnosis:
    heat = heatmap_message(np.array([[1, 255]], np.uint8))
    near = neighbour_pb2.Neighbour(reference_id="a/1", query_map=heat, place_similarities=neighbour_pb2.PlaceSimilarities(map=heat))
    return diagnosis_pb2.CellDiagnosis(
        cell=imaging_pb2.Cell(cell_id=3, box=imaging_pb2.Box(x=1, y=2, width=3, height=4)),
        blast_probability=math.nan,
        neighbours=[near],
        registered_pixels=b"rgb",
        class_activation=diagnosis_pb2.ClassActivation(for_blast=heat, for_normal=heat, scale=2.0, model="net/1"),
    )


def test_a_diagnosis_has_its_map_of_the_focus_by_rows_and_columns_and_no_pixels() -> None:
    quality = imaging_pb2.ImageQuality(focus_map=float_map_message(np.array([[1.3779355, np.nan]], np.float32)))
    diagnosis = diagnosis_pb2.Diagnosis(finding=diagnosis_pb2.FINDING_INDETERMINATE, quality=quality, cells=[_cell()])
    form = diagnosis_form("a.png", diagnosis)
    assert json.loads(json.dumps(form, allow_nan=False)) == form
    assert form["diagnosis"]["quality"]["focus_map"] == {"rows": 1, "columns": 2, "blur": [1.377935, None]}
    (cell,) = form["diagnosis"]["cells"]
    assert (cell["box"], cell["blast_probability"]) == ({"x": 1, "y": 2, "width": 3, "height": 4}, None)
    assert cell["class_activation"]["for_blast"] == {"values": "Af8=", "height": 1, "width": 2}
    assert "registered_pixels" not in cell
    assert [set(n) & {"query_map", "place_similarities"} for n in cell["neighbours"]] == [set()]


def test_a_release_is_named_first_and_by_release() -> None:
    release = diagnosis_pb2.Release(release_id="dss-1", system="dss", detects=diagnosis_pb2.DETECTS_BLAST_LINEAGE_UNSPECIFIED)
    form = release_form(release)
    assert next(iter(form.items())) == ("release", "dss-1")
    assert (form["system"], form["detects"]) == ("dss", "blast_lineage_unspecified")
    assert "release_id" not in form
