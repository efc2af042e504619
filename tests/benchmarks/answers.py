"""Write down the answers for 200 images, and compare two such files: did a change of the code change an answer?

    python -m tests.benchmarks.answers write before.answers     # with the old code
    python -m tests.benchmarks.answers write after.answers      # with the new code
    python -m tests.benchmarks.answers compare before.answers after.answers

The default release answers all images, every other release each tenth; similarity maps, crops and latent map included. Times are left
out, all else is compared to the bit. Real images are taken where the development data lies beside the project, phantoms for the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format

from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all_client import diagnose_request
from services.common.logs import configure_logs
from services.common.settings import CommonSettings
from services.embedded import embedded_services
from tests.integration.test_same_answers import images_for_comparison

Answers = dict[str, str]


async def answers() -> Answers:
    """Answers as JSON, or the status of a refusal, by release and number of the image."""
    images = images_for_comparison()
    found: Answers = {"images": hashlib.sha256(b"".join(images)).hexdigest()}
    async with embedded_services(CommonSettings()) as services:
        chosen = {"": range(len(images)), **{release.id: range(0, len(images), 10) for release in services.releases.releases}}
        for release, numbers in chosen.items():
            for number in numbers:
                request = diagnose_request(images[number], request_id=str(number), explain=True, release=release)
                found[f"{release or 'default'}/{number}"] = await _answer(services.stubs["gateway"], request)
    return found


async def _answer(gateway: Any, request: diagnosis_pb2.DiagnoseRequest) -> str:
    try:
        diagnosis = (await gateway.Diagnose(request)).diagnosis
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {error.details()}"
    return json.dumps(plain_answer(diagnosis), sort_keys=True)


def plain_answer(diagnosis: diagnosis_pb2.Diagnosis) -> dict[str, Any]:
    """An answer without times, however the contract lays out its messages; bytes as their SHA-256."""
    counts, quality, origin = diagnosis.counts, diagnosis.quality, diagnosis.provenance
    files = [(file.name, file.sha256) for file in origin.served_files]
    return {
        "finding": diagnosis_pb2.Finding.Name(diagnosis.finding),
        "requires_review": diagnosis.requires_review,
        "reasons": list(diagnosis.reasons),
        "counts": [counts.total, counts.suspected, counts.indeterminate, counts.not_suspected],
        "blast_fraction": [diagnosis.blast_fraction.lower, diagnosis.blast_fraction.upper],
        "quality": [
            quality.width,
            quality.height,
            quality.overexposed_share,
            quality.underexposed_share,
            quality.covered_share,
            quality.red_cell_radius,
            repr(quality.blur),
            _digest(quality.focus_map.values),
            *quality.notes,
        ],
        "kind": diagnosis.kind,
        "cells": [_plain_cell(cell) for cell in diagnosis.cells],
        "latent_map": [[r.reference_id, r.position.x, r.position.y] for r in diagnosis.latent_map],
        "rule": json_format.MessageToDict(diagnosis.rule),
        "provenance": [origin.engine, origin.release, origin.system, origin.detects, origin.image_sha256, *files],
        "patches": [json_format.MessageToDict(patch) for patch in diagnosis.patches],
    }


def _plain_cell(cell: diagnosis_pb2.CellDiagnosis) -> dict[str, Any]:
    where, evidence = cell.cell, cell.class_activation
    return {
        "cell": [
            where.cell_id,
            where.box.x,
            where.box.y,
            where.box.width,
            where.box.height,
            where.center_x,
            where.center_y,
            where.radius,
            where.confidence,
        ],
        "probabilities": [repr(p) for p in (cell.blast_probability, cell.network_probability, cell.neighbour_vote, cell.nothing_probability)],
        "verdict": [cell.suspected, cell.indeterminate, list(cell.prediction_set), list(cell.reasons)],
        "focus": [cell.focus_before, cell.focus_after, cell.unsharp_radius, cell.upscale_factor],
        "position": [cell.position.x, cell.position.y, cell.distance_quantile],
        "pixels": [cell.registered_side, _digest(cell.registered_pixels)],
        "evidence": [_digest(evidence.for_blast.values), _digest(evidence.for_normal.values), evidence.scale, evidence.model],
        "neighbours": [_plain_neighbour(neighbour) for neighbour in cell.neighbours],
    }


def _plain_neighbour(known: Any) -> list[Any]:
    maps = (known.query_map, known.neighbour_map, known.query_grad_cam, known.neighbour_grad_cam)
    facts = [known.reference_id, known.is_blast, known.cell_class, known.source, known.patient, known.distance, known.image_sha256, known.map_model]
    return [*facts, known.center_x, known.center_y, known.radius, *(_digest(m.values) for m in maps), _digest(known.place_similarities.map.values)]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def differences(before: Answers, after: Answers) -> list[str]:
    """Names of the answers that differ, or that only one file has."""
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("write", help="write answers to a file").add_argument("out", type=Path)
    comparing = commands.add_parser("compare", help="compare two files")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    given = parser.parse_args()
    configure_logs("ERROR")
    if given.command == "write":
        found = asyncio.run(answers())
        given.out.write_text(json.dumps(found), encoding="utf-8")
        print(f"{given.out}: {len(found) - 1} answers")
        return
    before, after = (json.loads(path.read_text(encoding="utf-8")) for path in (given.before, given.after))
    different = differences(before, after)
    print(f"{len(before) - 1} and {len(after) - 1} answers, {len(different)} differ{': ' + ', '.join(different[:20]) if different else ''}")
    raise SystemExit(1 if different else 0)


if __name__ == "__main__":
    main()
