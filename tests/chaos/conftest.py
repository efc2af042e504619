"""Images for the tests of faults."""

from __future__ import annotations

import pytest

from services.common.phantom import CellKind, PhantomOptions, encode_png, single_cell, smear_field


@pytest.fixture(scope="session")
def phantom_cell() -> bytes:
    return encode_png(single_cell(5, CellKind.LYMPHOCYTE))


@pytest.fixture(scope="session")
def large_field() -> bytes:
    """Much work: 60 cells that need sharpening."""
    return encode_png(smear_field(4, PhantomOptions(width=1600, height=1200, cells=60, blur=1.5)))
