"""The numbers that decide are those of the release."""

from __future__ import annotations

from services.gateway.rules import cell_rule, image_rule
from tests.services.gateway.fakes import RELEASE, STORE


def test_rules_are_the_numbers_of_the_release() -> None:
    assert cell_rule(RELEASE).max_disagreement == RELEASE.calibration.max_disagreement
    rule = image_rule(RELEASE)
    assert (rule.false_blasts, rule.min_cells_for_negative) == (RELEASE.decision.false_blasts, RELEASE.decision.min_cells_for_negative)
    assert not any(image_rule(release).trained_on_lymphoblasts for release in STORE.releases)
