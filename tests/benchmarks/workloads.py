"""Images of the benchmarks and of the load test, and the request that all of them send: three neighbours per cell, with similarity maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all_client import diagnose_request
from services.common.phantom import CellKind, PhantomOptions, encode_png, single_cell, smear_field

NEIGHBOURS: Final = 3
LARGE_FIELDS: Final = "fields 800x600, 8 cells"
FIELDS: Final = "fields 640x480, 4 cells"
CROPS: Final = "single cells 264x264"


def large_fields() -> list[bytes]:
    """Eight drawn fields of 800 x 600 px with eight cells, PNG."""
    return [encode_png(smear_field(seed, PhantomOptions(width=800, height=600, cells=8))) for seed in range(8)]


@cache
def field(seed: int) -> bytes:
    """A drawn field of 640 x 480 px with four cells, PNG."""
    return encode_png(smear_field(seed, PhantomOptions(width=640, height=480, cells=4)))


@cache
def crop(seed: int) -> bytes:
    """A drawn crop of 264 x 264 px around one cell, PNG."""
    kinds = list(CellKind)
    return encode_png(single_cell(seed, kinds[seed % len(kinds)]))


def fields() -> list[bytes]:
    """Eight fields."""
    return [field(seed) for seed in range(8)]


def crops() -> list[bytes]:
    """Twenty-four crops."""
    return [crop(seed) for seed in range(24)]


def mix() -> list[bytes]:
    """Two crops to one field, eight times."""
    return [image for seed in range(8) for image in (crop(2 * seed), field(seed), crop(2 * seed + 1))]


def workloads() -> dict[str, list[bytes]]:
    """The images of the benchmarks by the name of their workload."""
    return {LARGE_FIELDS: large_fields(), FIELDS: fields(), CROPS: crops()}


LOADS: Final[Mapping[str, Callable[[], list[bytes]]]] = {"crops": crops, "fields": fields, "mix": mix}
"""The workloads of the load test, by the short names of its options."""


def explained_request(image: bytes, priority: diagnosis_pb2.Priority.ValueType = diagnosis_pb2.PRIORITY_UNSPECIFIED) -> diagnosis_pb2.DiagnoseRequest:
    """The request for one image with ``NEIGHBOURS`` neighbours and similarity maps."""
    request = diagnose_request(image)
    request.display.CopyFrom(diagnosis_pb2.DisplayOptions(neighbours=NEIGHBOURS, include_maps=True))
    request.priority = priority
    return request
