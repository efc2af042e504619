"""A row of the results: one image, with its facts, its finding, its cells and its provenance, or why there is none."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa

from clients.batch.manifest import Line
from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all_client import ServiceError, finding_name

ANSWERED: Final = "answered"
REFUSED: Final = "refused"
SET_ASIDE: Final = "set_aside"
Row = dict[str, Any]
_TEXTS: Final = pa.list_(pa.string())
_NEIGHBOUR: Final = pa.struct(
    [
        ("reference_id", pa.string()),
        ("is_blast", pa.bool_()),
        ("cell_class", pa.string()),
        ("source", pa.string()),
        ("distance", pa.float32()),
    ]
)
_CELL: Final = pa.struct(
    [
        ("cell_id", pa.int32()),
        ("x", pa.int32()),
        ("y", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("center_x", pa.float32()),
        ("center_y", pa.float32()),
        ("radius", pa.float32()),
        ("confidence", pa.float32()),
        ("blast_probability", pa.float64()),
        ("prediction_set", _TEXTS),
        ("suspected", pa.bool_()),
        ("indeterminate", pa.bool_()),
        ("reasons", _TEXTS),
        ("network_probability", pa.float64()),
        ("neighbour_vote", pa.float64()),
        ("focus_before", pa.float32()),
        ("focus_after", pa.float32()),
        ("unsharp_radius", pa.int32()),
        ("upscale_factor", pa.float32()),
        ("distance_quantile", pa.float32()),
        ("neighbours", pa.list_(_NEIGHBOUR)),
    ]
)
_FILE: Final = pa.struct([("name", pa.string()), ("version", pa.int32()), ("sha256", pa.string())])
SCHEMA: Final = pa.schema(
    [
        ("line", pa.int64()),
        ("uri", pa.string()),
        ("specimen", pa.string()),
        ("microns_per_pixel", pa.float64()),
        ("status", pa.string()),
        ("attempts", pa.int32()),
        ("image_sha256", pa.string()),
        ("kind", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("red_cell_radius", pa.float32()),
        ("blur", pa.float32()),
        ("overexposed_share", pa.float32()),
        ("underexposed_share", pa.float32()),
        ("covered_share", pa.float32()),
        ("ink_share", pa.float32()),
        ("notes", _TEXTS),
        ("finding", pa.string()),
        ("requires_review", pa.bool_()),
        ("reasons", _TEXTS),
        ("cells_total", pa.int32()),
        ("cells_suspected", pa.int32()),
        ("cells_indeterminate", pa.int32()),
        ("cells_not_suspected", pa.int32()),
        ("blast_fraction_lower", pa.float32()),
        ("blast_fraction_upper", pa.float32()),
        ("cells", pa.list_(_CELL)),
        ("release", pa.string()),
        ("system", pa.string()),
        ("detects", pa.string()),
        ("engine", pa.string()),
        ("service_version", pa.string()),
        ("served_files", pa.list_(_FILE)),
        ("error_code", pa.string()),
        ("error_reason", pa.string()),
        ("error_message", pa.string()),
        ("finished_at", pa.timestamp("ms", tz="UTC")),
        ("milliseconds", pa.float32()),
    ]
)
"""Columns of the results. Lengths are px, shares and probabilities 0..1; a column of an answer is null where there is no diagnosis."""
OF_THE_RUN: Final = ("attempts", "finished_at", "milliseconds")
"""Columns that differ from run to run."""


def answered_row(line: Line, attempts: int, diagnosis: diagnosis_pb2.Diagnosis, seconds: float) -> Row:
    """The row of an image that has a diagnosis.

    Args:
        line: of the manifest.
        attempts: it took so many.
        diagnosis: the answer.
        seconds: from sending the image to its answer.
    """
    quality, counts, provenance = diagnosis.quality, diagnosis.counts, diagnosis.provenance
    return {
        **_base(line, ANSWERED, attempts, seconds),
        "image_sha256": provenance.image_sha256,
        "kind": imaging_pb2.ImageKind.Name(diagnosis.kind).removeprefix("IMAGE_KIND_"),
        "width": quality.width,
        "height": quality.height,
        "red_cell_radius": quality.red_cell_radius,
        "blur": _number(quality.blur),
        "overexposed_share": quality.overexposed_share,
        "underexposed_share": quality.underexposed_share,
        "covered_share": quality.covered_share,
        "ink_share": quality.ink_share,
        "notes": list(quality.notes),
        "finding": finding_name(diagnosis.finding),
        "requires_review": diagnosis.requires_review,
        "reasons": list(diagnosis.reasons),
        "cells_total": counts.total,
        "cells_suspected": counts.suspected,
        "cells_indeterminate": counts.indeterminate,
        "cells_not_suspected": counts.not_suspected,
        "blast_fraction_lower": diagnosis.blast_fraction.lower,
        "blast_fraction_upper": diagnosis.blast_fraction.upper,
        "cells": [_cell(cell) for cell in diagnosis.cells],
        "release": provenance.release,
        "system": provenance.system,
        "detects": diagnosis_pb2.Detects.Name(provenance.detects).removeprefix("DETECTS_").lower(),
        "engine": provenance.engine,
        "service_version": provenance.service_version,
        "served_files": [{"name": f.name, "version": f.version, "sha256": f.sha256} for f in provenance.served_files],
    }


def refused_row(line: Line, attempts: int, error: ServiceError, seconds: float = 0.0) -> Row:
    """The row of an image that is refused: trying again would change nothing."""
    return {**_base(line, REFUSED, attempts, seconds), **_error(error.code, error.reason, error.message)}


def set_aside_row(line: Line, attempts: int, last: str) -> Row:
    """The row of an image that is set aside: its attempts are used up.

    Args:
        line: of the manifest.
        attempts: they were so many.
        last: what ended the last one; empty where the worker itself ended.
    """
    message = f"Set aside after {attempts} attempts. The last one ended so: {last or 'the worker ended before there was an answer'}"
    return {**_base(line, SET_ASIDE, attempts, 0.0), **_error("ABORTED", "SET_ASIDE", message)}


def results_table(rows: Iterable[Row]) -> pa.Table:
    """Rows as a table of ``SCHEMA``."""
    ready = [{**row, "finished_at": datetime.fromtimestamp(row["finished_at"], UTC)} for row in rows]
    return pa.Table.from_pylist(ready, schema=SCHEMA)


def _base(line: Line, status: str, attempts: int, seconds: float) -> Row:
    return {
        "line": line.number,
        "uri": line.uri,
        "specimen": line.specimen,
        "microns_per_pixel": line.microns_per_pixel,
        "status": status,
        "attempts": attempts,
        "finished_at": datetime.now(UTC).timestamp(),
        "milliseconds": round(1000.0 * seconds, 3),
    }


def _error(code: str, reason: str, message: str) -> Row:
    return {"error_code": code, "error_reason": reason, "error_message": message}


def _cell(cell: diagnosis_pb2.CellDiagnosis) -> Row:
    located, box = cell.cell, cell.cell.box
    return {
        "cell_id": located.cell_id,
        "x": box.x,
        "y": box.y,
        "width": box.width,
        "height": box.height,
        "center_x": located.center_x,
        "center_y": located.center_y,
        "radius": located.radius,
        "confidence": located.confidence,
        "blast_probability": _number(cell.blast_probability),
        "prediction_set": list(cell.prediction_set),
        "suspected": cell.suspected,
        "indeterminate": cell.indeterminate,
        "reasons": list(cell.reasons),
        "network_probability": _number(cell.network_probability),
        "neighbour_vote": _number(cell.neighbour_vote),
        "focus_before": _number(cell.focus_before),
        "focus_after": _number(cell.focus_after),
        "unsharp_radius": cell.unsharp_radius,
        "upscale_factor": _number(cell.upscale_factor),
        "distance_quantile": _number(cell.distance_quantile),
        "neighbours": [_neighbour(neighbour) for neighbour in cell.neighbours],
    }


def _neighbour(neighbour: Any) -> Row:
    return {
        "reference_id": neighbour.reference_id,
        "is_blast": neighbour.is_blast,
        "cell_class": neighbour.cell_class,
        "source": neighbour.source,
        "distance": neighbour.distance,
    }


def _number(value: float) -> float | None:
    """None for what is no number: the cell was not judged."""
    return value if math.isfinite(value) else None
