"""The smear while it is drawn."""

from __future__ import annotations

from dataclasses import dataclass

from services.common.phantom.canvas import DrawnCell
from services.common.phantom.layout import Occupancy, clip
from services.common.phantom.planes import Plane


@dataclass(frozen=True)
class Scene:
    """The smear while it is drawn.

    Attributes:
        density: (H, W, 3) optical density so far.
        guard: Pixels that nothing but a touching red cell may cover.
        red: Pixels under red cells.
    """

    density: Plane
    guard: Occupancy
    red: Occupancy

    def add(self, cell: DrawnCell, left: int, top: int) -> None:
        """Add the density of a cell; pixels outside the image are left out."""
        image, part = clip(cell.solid.shape, left, top, self.density.shape[:2])
        self.density[image] += cell.density[part]
