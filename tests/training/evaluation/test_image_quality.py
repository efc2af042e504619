"""The row of a set of fields."""

from __future__ import annotations

from services.common.phantom import PhantomOptions, smear_field
from training.evaluation.image_quality import row


def test_more_blur_is_a_larger_share_of_the_red_cells() -> None:
    sharp, blurred = (row("fields", [smear_field(1, PhantomOptions(width=640, height=640, cells=4, blur_sigma=s)).image]) for s in (0.8, 5.0))
    assert sharp.startswith("| fields | 1 | 0.0")
    assert float(blurred.split("|")[4]) > 2 * float(sharp.split("|")[4])
