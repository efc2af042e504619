"""The JSON forms of answers: one object per image, stable names, no protobuf left in them."""

from __future__ import annotations

import math
from typing import Any

from google.protobuf import json_format

from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from dl4all.preprocessing.v1 import preprocessing_pb2
from dl4all_client.client import finding_name
from dl4all_client.errors import ServiceError

_MAPS = ("query_map", "neighbour_map", "query_grad_cam", "neighbour_grad_cam", "point_maps")
_ENUM_PREFIXES = ("FINDING_", "IMAGE_KIND_", "DETECTS_")


def diagnosis_form(path: str, diagnosis: diagnosis_pb2.Diagnosis) -> dict[str, Any]:
    """``{path, diagnosis: {finding, requires_review, reasons, cells: [{box, blast_probability, ...}], provenance, ...}}``."""
    form = _plain(diagnosis)
    form.pop("latent_map", None)
    first = {"finding": finding_name(diagnosis.finding), "requires_review": form.pop("requires_review"), "reasons": form.pop("reasons")}
    return {
        "path": path,
        "diagnosis": {**first, **{k: v for k, v in form.items() if k not in first}, "cells": [_cell_form(cell) for cell in diagnosis.cells]},
    }


def slide_form(path: str, slide: diagnosis_pb2.SlideDiagnosis) -> dict[str, Any]:
    """``{path, slide: {finding, requires_review, reasons, counts, facts, explained: [as the cells of an image], ...}}``."""
    form = _plain(slide)
    form.pop("latent_map", None)
    first = {"finding": finding_name(slide.finding), "requires_review": form.pop("requires_review"), "reasons": form.pop("reasons")}
    return {
        "path": path,
        "slide": {**first, **{k: v for k, v in form.items() if k not in first}, "explained": [_cell_form(c) for c in slide.explained]},
    }


def slide_cell_row(cell: diagnosis_pb2.CellDiagnosis) -> list[str]:
    """A row of the table of cells of a slide, px of the slide; empty where the cell was not judged."""
    numbers = [cell.cell.center_x, cell.cell.center_y, cell.cell.radius, cell.blast_probability]
    written = ["" if math.isnan(n) else f"{n:.6g}" for n in numbers]
    flags = [str(int(cell.suspected)), str(int(cell.indeterminate))]
    return [str(cell.cell.cell_id), *written, *flags, " ".join(cell.reasons), f"{cell.focus_after:.4g}"]


def _cell_form(cell: diagnosis_pb2.CellDiagnosis) -> dict[str, Any]:
    form = _plain(cell)
    located = form.pop("cell")
    neighbours = [{k: v for k, v in n.items() if k not in _MAPS} for n in form.pop("neighbours", [])]
    form.pop("registered_pixels", None)
    first = {name: form.pop(name) for name in ("blast_probability", "suspected", "indeterminate", "prediction_set", "reasons")}
    return {"box": located.pop("box"), **first, **located, **form, "neighbours": neighbours}


def enhance_form(path: str, outcome: preprocessing_pb2.EnhanceOutcome) -> dict[str, Any]:
    """``{path, cell: {center_x, center_y, radius}, focus_before, focus_after, unsharp_radius, accepted, reasons}``."""
    cell = outcome.enhanced
    return {
        "path": path,
        "cell": {"center_x": _number(cell.center_x), "center_y": _number(cell.center_y), "radius": _number(cell.radius)},
        "focus_before": _number(cell.focus_before),
        "focus_after": _number(cell.focus_after),
        "unsharp_radius": cell.unsharp_radius,
        "accepted": cell.accepted,
        "reasons": list(cell.reasons),
        "upscale_factor": _number(cell.upscale_factor),
    }


def cells_form(path: str, header: patching_pb2.LocateCellsHeader, cells: list[imaging_pb2.Cell]) -> dict[str, Any]:
    """``{path, cells: [{box: {x, y, width, height}, confidence, center_x, center_y, radius}], kind}``."""
    return {"path": path, "cells": [_plain(cell) for cell in cells], "kind": _enum(imaging_pb2.ImageKind.Name(header.kind))}


def system_form(release: diagnosis_pb2.SystemRelease) -> dict[str, Any]:
    """``{system, release, detects, default, current, title, figures: [{name, value, low, high}], limits}``."""
    form = _plain(release)
    form["detects"] = form["detects"].lower()
    return form


def error_form(path: str, error: ServiceError) -> dict[str, Any]:
    """``{path, error: {code, reason, message}}``."""
    return {"path": path, "error": {"code": error.code, "reason": error.reason, "message": error.message}}


def _plain(message: Any) -> dict[str, Any]:
    form = json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return {name: _tidy(value) for name, value in form.items()}


def _tidy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tidy(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_tidy(inner) for inner in value]
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, str):
        return None if value in ("NaN", "Infinity", "-Infinity") else _enum(value)
    return value


def _enum(value: str) -> str:
    for prefix in _ENUM_PREFIXES:
        value = value.removeprefix(prefix)
    return value


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
