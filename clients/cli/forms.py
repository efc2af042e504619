"""The JSON forms of answers: one object per image, stable names, no protobuf left in them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from google.protobuf import json_format

from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.preprocessing.v1 import enhanced_cell_pb2
from dl4all_client import ServiceError, finding_name

_MAPS = ("query_map", "neighbour_map", "query_grad_cam", "neighbour_grad_cam", "place_similarities")
_ENUM_PREFIXES = ("FINDING_", "IMAGE_KIND_", "DETECTS_")


def diagnosis_form(path: str, diagnosis: diagnosis_pb2.Diagnosis) -> dict[str, Any]:
    """``{path, diagnosis: {finding, requires_review, reasons, cells: [{box, blast_probability, ...}], provenance, ...}}``."""
    form = _plain(diagnosis)
    form.pop("latent_map", None)
    form["quality"] = _quality_form(diagnosis.quality)
    first = {"finding": finding_name(diagnosis.finding), "requires_review": form.pop("requires_review"), "reasons": form.pop("reasons")}
    return {
        "path": path,
        "diagnosis": {**first, **{k: v for k, v in form.items() if k not in first}, "cells": [_cell_form(cell) for cell in diagnosis.cells]},
    }


def slide_form(path: str, slide: diagnosis_pb2.SlideDiagnosis) -> dict[str, Any]:
    """``{path, slide: {finding, requires_review, reasons, counts, facts, explained: [as the cells of an image], ...}}``."""
    form = _plain(slide)
    form.pop("latent_map", None)
    form["quality"] = _quality_form(slide.quality)
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
    focus = "" if math.isnan(cell.focus_after) else f"{cell.focus_after:.4g}"
    return [str(cell.cell.cell_id), *written, *flags, " ".join(cell.reasons), focus]


def _cell_form(cell: diagnosis_pb2.CellDiagnosis) -> dict[str, Any]:
    form = _plain(cell)
    located = form.pop("cell")
    neighbours = [{k: v for k, v in n.items() if k not in _MAPS} for n in form.pop("neighbours", [])]
    form.pop("registered_pixels", None)
    if "class_activation" in form:
        activation = form["class_activation"]
        form["class_activation"] = {**activation, **{name: _map_form(activation[name]) for name in ("for_blast", "for_normal")}}
    first = {name: form.pop(name) for name in ("blast_probability", "suspected", "indeterminate", "prediction_set", "reasons")}
    return {"box": located.pop("box"), **first, **located, **form, "neighbours": neighbours}


def enhance_form(path: str, cell: enhanced_cell_pb2.EnhancedCell) -> dict[str, Any]:
    """``{path, cell: {center_x, center_y, radius}, focus_before, focus_after, unsharp_radius, accepted, reasons}``."""
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


def cells_form(path: str, located: diagnosis_pb2.LocateCellsResponse) -> dict[str, Any]:
    """``{path, cells: [{box: {x, y, width, height}, confidence, center_x, center_y, radius}], kind}``."""
    return {"path": path, "cells": [_plain(cell) for cell in located.cells], "kind": _enum(imaging_pb2.ImageKind.Name(located.kind))}


def release_form(release: diagnosis_pb2.Release) -> dict[str, Any]:
    """``{system, release, detects, default, current, title, figures: [{name, value, low, high}], limits}``."""
    form = _plain(release)
    known = {"release_id": "release", "is_current": "current", "is_default": "default"}
    return {known.get(name, name): value.lower() if name == "detects" else value for name, value in form.items()}


def error_form(path: str, error: ServiceError) -> dict[str, Any]:
    """``{path, error: {code, reason, message}}``."""
    return {"path": path, "error": {"code": error.code, "reason": error.reason, "message": error.message}}


def _quality_form(quality: imaging_pb2.ImageQuality) -> dict[str, Any]:
    """Quality with its focus map as ``{rows, columns, blur: [px or null, row by row]}``."""
    form = _plain(quality)
    if quality.HasField("focus_map"):
        blur = [float(str(value)) for value in np.frombuffer(quality.focus_map.values, "<f4")]
        form["focus_map"] = {"rows": quality.focus_map.height, "columns": quality.focus_map.width, "blur": [_number(value) for value in blur]}
    return form


def _map_form(heatmap: dict[str, Any]) -> dict[str, Any]:
    """A heatmap as ``{height, width, values}``."""
    return {name: heatmap[name] for name in ("values", "height", "width")}


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
