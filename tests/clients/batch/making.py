"""Batches for tests, without a gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clients.batch.manifest import Line
from clients.batch.plan import Options, Plan, make_plan, write_plan
from clients.batch.rows import answered_row, refused_row
from clients.batch.store import Store
from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all_client import ServiceError


def lines(count: int, folder: str = "/images") -> list[Line]:
    return [Line(number, f"{folder}/{number}.png", f"s{number}") for number in range(count)]


def planned(location: Path | str, count: int, shard_size: int = 4, **options: Any) -> tuple[Store, Plan]:
    store = Store(str(location))
    made = make_plan(lines(count), Options("release-1", **options), {}, None, shard_size)
    write_plan(store, made, lines(count))
    return store, made


def diagnosis(cells: int = 1, release: str = "release-1", sha: str = "a" * 64) -> diagnosis_pb2.Diagnosis:
    made = diagnosis_pb2.Diagnosis(
        finding=diagnosis_pb2.FINDING_INDETERMINATE,
        requires_review=True,
        reasons=["TOO_FEW_CELLS"],
        counts=diagnosis_pb2.CellCounts(total=cells, not_suspected=cells),
        blast_fraction=diagnosis_pb2.BlastFraction(lower=0.0, upper=0.5),
        quality=imaging_pb2.ImageQuality(width=640, height=480, blur=1.5, red_cell_radius=20.0, notes=["PHANTOM"]),
        kind=imaging_pb2.IMAGE_KIND_FIELD,
        provenance=diagnosis_pb2.Provenance(
            release=release,
            system="baseline",
            detects=diagnosis_pb2.DETECTS_BLAST_LINEAGE_UNSPECIFIED,
            image_sha256="b" * 64,
            engine="onnxruntime",
            service_version="0.1.0",
            served_files=[diagnosis_pb2.ServedFile(name="network", version=1, sha256=sha)],
        ),
    )
    for number in range(cells):
        cell = made.cells.add(blast_probability=0.25, network_probability=0.3, neighbour_vote=0.1, focus_before=6.5, prediction_set=["normal"])
        cell.cell.CopyFrom(imaging_pb2.Cell(cell_id=number, box=imaging_pb2.Box(x=1, y=2, width=3, height=4), radius=5.0))
        cell.neighbours.add(reference_id="r1", is_blast=True, distance=0.5)
    return made


def row(number: int, **fields: Any) -> dict[str, Any]:
    return {**answered_row(lines(number + 1)[number], 1, diagnosis(), 0.1), **fields}


def failed_row(number: int) -> dict[str, Any]:
    return refused_row(lines(number + 1)[number], 1, ServiceError("INVALID_ARGUMENT", "IMAGE_TRUNCATED", "The image is cut off."))
