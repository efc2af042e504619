"""The numbers of a release that decide."""

from __future__ import annotations

from services.common.releases import Detects, Release
from services.gateway.decision import ImageRule
from services.gateway.fusion import CellRule


def cell_rule(release: Release) -> CellRule:
    """The numbers that judge a cell."""
    c = release.calibration
    return CellRule(c.network_weight, c.min_probability, c.max_disagreement, c.min_nothing)


def image_rule(release: Release) -> ImageRule:
    """The numbers that decide an image."""
    d = release.decision
    return ImageRule(d.false_blasts, d.min_cells_for_negative, d.max_fraction_for_negative, release.detects is Detects.LYMPHOBLAST)
