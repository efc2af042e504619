"""Rows of the results."""

from __future__ import annotations

import json
import math

from clients.batch.rows import OF_THE_RUN, SCHEMA, answered_row, refused_row, results_table, set_aside_row
from dl4all_client import ServiceError
from tests.clients.batch.making import diagnosis, lines


def test_an_answer_becomes_a_row_of_the_schema() -> None:
    made = diagnosis(cells=2)
    made.cells[1].blast_probability = math.nan
    row = answered_row(lines(1)[0], 2, made, 0.25)
    (read,) = results_table([json.loads(json.dumps(row))]).to_pylist()
    assert read.keys() == set(SCHEMA.names)
    assert (read["line"], read["uri"], read["specimen"], read["status"], read["attempts"]) == (0, "/images/0.png", "s0", "answered", 2)
    assert (read["finding"], read["cells_total"], read["kind"], read["detects"]) == ("INDETERMINATE", 2, "FIELD", "blast_lineage_unspecified")
    assert read["milliseconds"] == 250.0
    assert read["served_files"] == [{"name": "network", "version": 1, "sha256": "a" * 64}]
    first, second = read["cells"]
    assert (first["x"], first["y"], first["width"], first["height"]) == (1, 2, 3, 4)
    assert first["blast_probability"] == 0.25
    assert first["neighbours"][0]["reference_id"] == "r1"
    assert second["blast_probability"] is None
    assert read["error_reason"] is None


def test_a_refusal_and_a_line_set_aside_say_why() -> None:
    error = ServiceError("INVALID_ARGUMENT", "IMAGE_TRUNCATED", "The image is cut off.")
    rows = [refused_row(lines(1)[0], 1, error), set_aside_row(lines(1)[0], 3, "UNAVAILABLE: gone"), set_aside_row(lines(1)[0], 3, "")]
    read = results_table(rows).to_pylist()
    assert [r["status"] for r in read] == ["refused", "set_aside", "set_aside"]
    assert [r["error_reason"] for r in read] == ["IMAGE_TRUNCATED", "SET_ASIDE", "SET_ASIDE"]
    assert "after 3 attempts" in read[1]["error_message"]
    assert "UNAVAILABLE: gone" in read[1]["error_message"]
    assert "the worker ended" in read[2]["error_message"]
    assert read[0]["cells"] is None


def test_columns_of_the_run_are_columns() -> None:
    assert set(OF_THE_RUN) < set(SCHEMA.names)
