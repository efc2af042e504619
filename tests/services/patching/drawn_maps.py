"""Maps as a perfect locator would say them of drawn disks: cells of known centre, radius and kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import grpc
import numpy as np
from numpy.typing import NDArray

from services.common.workers import Workers
from services.patching.locator import Locator, Locators
from services.patching.locator_maps import CELL, CHANNELS, NUCLEUS, OFFSET_X, OFFSET_Y, STRIDE, Kind
from services.patching.working_image import RED_CELL_RADIUS

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Disk:
    """A drawn cell: centre and radius in px of the working image, and its kind."""

    x: float
    y: float
    radius: float
    kind: Kind = Kind.NUCLEATED
    height: float = 0.9


def maps_of(disks: list[Disk], height: int, width: int, red_cell_radius: float = RED_CELL_RADIUS) -> Float:
    """Maps of disks on a working image of this size and scale; a position is of the disk whose centre is nearest."""
    shape = height // STRIDE, width // STRIDE
    rows, columns = (STRIDE * axis + 0.5 for axis in np.mgrid[: shape[0], : shape[1]])
    maps = np.zeros((CHANNELS, *shape), np.float32)
    nearest = np.full(shape, np.inf)
    for disk in disks:
        distance = np.hypot(columns - disk.x, rows - disk.y)
        peak = disk.height * np.exp(-(distance**2) / (2 * (0.3 * red_cell_radius) ** 2))
        maps[disk.kind] = np.maximum(maps[disk.kind], peak)
        if disk.kind is Kind.PLATELET:
            continue
        maps[CELL] = np.maximum(maps[CELL], _soft(disk.radius - distance))
        maps[NUCLEUS] = np.maximum(maps[NUCLEUS], _soft(0.8 * disk.radius - distance))
        own = distance < nearest
        nearest[own] = distance[own]
        maps[OFFSET_X][own] = ((disk.x - columns) / red_cell_radius)[own]
        maps[OFFSET_Y][own] = ((disk.y - rows) / red_cell_radius)[own]
    return maps


def _soft(inside: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * (1.0 + np.tanh(inside))


def no_network(_: NDArray[np.uint8]) -> Float:
    """For locations that ask no network."""
    raise AssertionError("the stain alone finds these cells")


class NoLocators:
    """Locators of releases that name none."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    def of(self, release_id: str) -> Locator:
        """None for any release."""
        return Locator(None, cast(Any, None), self._workers)


def by_the_stain(workers: Workers) -> Locators:
    """Locators for a service that finds cells by the stain alone."""
    return cast(Locators, NoLocators(workers))


class UnlimitedContext:
    """The context of a call without a deadline."""

    def time_remaining(self) -> None:
        """No limit."""
        return


CONTEXT = cast(grpc.aio.ServicerContext[Any, Any], UnlimitedContext())
