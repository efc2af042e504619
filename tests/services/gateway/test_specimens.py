"""Shared fields of the images of a specimen, and their sums: plain values, no messages."""

from __future__ import annotations

import subprocess
import sys

import pytest

from services.common.errors import InvalidRequestError
from services.gateway.decision import Counts, DecidedImage, ImageRule, Reason, decide_image
from services.gateway.run_stats import RunStats, ServedFile
from services.gateway.specimens import Specimen, Tally
from tests.paths import ROOT

RULE = ImageRule(((100, 3),), 100, 0.05, True)
STATS = RunStats("onnxruntime", [ServedFile("net", 1, "a" * 64)])


def _image(sha256: str, cells: int, suspected: int = 0, poor: tuple[Reason, ...] = (), *, phantom: bool = False) -> DecidedImage:
    return decide_image(sha256, Counts(cells, suspected, 0), RULE, phantom=phantom, single_cell=False, poor=poor)


@pytest.mark.parametrize("given", [("", ""), ("S", ""), ("", "plain_resnet"), ("S", "plain-resnet-1")])
def test_an_image_may_name_specimen_and_release_as_the_first_did_or_leave_them_out(given: tuple[str, str]) -> None:
    Specimen("S", "plain_resnet", "plain-resnet-1").check(*given)


@pytest.mark.parametrize(("given", "field"), [(("T", ""), "specimen"), (("", "dss"), "release")])
def test_an_image_of_another_specimen_or_for_another_release_is_refused(given: tuple[str, str], field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Specimen("S", "", "plain-resnet-1").check(*given)
    assert (caught.value.reason, caught.value.field) == ("SPECIMEN_MIXED", field)


def test_images_add_up_and_the_same_image_counts_once() -> None:
    tally = Tally()
    tally.add(_image("a", 100, 5), STATS)
    tally.add(_image("b", 50, phantom=True), STATS)
    tally.add(_image("a", 100, 5), STATS)
    tally.add_failure()
    assert tally.images.counts == Counts(150, 5, 0)
    assert (tally.images.suspected, tally.images.failed, tally.duplicates, len(tally.seen)) == (1, 1, 1, 2)
    assert tally.images.phantom
    assert (tally.stats.engine, tally.stats.models) == ("onnxruntime", STATS.models)


def test_cells_of_a_poor_image_count_but_do_not_reassure() -> None:
    tally = Tally()
    tally.add(_image("a", 100), STATS)
    tally.add(_image("b", 70, poor=(Reason.IMAGE_BLURRED,)), STATS)
    assert (tally.images.counts.total, tally.images.clear.total, tally.images.poor) == (170, 100, 1)


@pytest.mark.parametrize("module", ["decision", "streams", "specimens", "cells", "fusion"])
def test_deciding_needs_no_message(module: str) -> None:
    code = (
        f"import services.gateway.{module}, sys; print(*(m for m in sys.modules if m.split('.')[0] in ('dl4all', 'grpc') or m.startswith('google.')))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert loaded == []
