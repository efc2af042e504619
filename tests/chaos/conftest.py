"""Images for the tests of faults."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.common.parts import INNER_SERVICES, TRITON
from services.common.phantom import CellKind, PhantomOptions, encode_png, single_cell, smear_field
from tests.impostor import Impostor
from tests.running import Deceived, Stack, own_copy


@pytest.fixture(scope="session")
def phantom_cell() -> bytes:
    return encode_png(single_cell(5, CellKind.LYMPHOCYTE))


@pytest.fixture(scope="session")
def large_field() -> bytes:
    """Much work: 60 cells that need sharpening."""
    return encode_png(smear_field(4, PhantomOptions(width=1600, height=1200, cells=60, cell_radius=30, blur_sigma=1.8)))


@pytest.fixture(scope="session")
def deceived(stack: Stack) -> Iterator[Deceived]:
    impostors = {TRITON: Impostor(stack[TRITON].address)}
    running = []
    try:
        address = f"dns:///localhost:{impostors[TRITON].port}"
        classification = own_copy(stack["classification"], DL4ALL_CLASSIFICATION_TRITON_ADDRESS=address).start()
        running.append(classification)
        for name in INNER_SERVICES:
            impostors[name] = Impostor(classification.address if name == "classification" else stack[name].address)
        found = {f"DL4ALL_GATEWAY_{name.upper()}_ADDRESS": f"dns:///localhost:{impostors[name].port}" for name in INNER_SERVICES}
        gateway = own_copy(stack["gateway"], **found).start()
        running.append(gateway)
        classification.wait_serving()
        gateway.wait_serving()
        yield Deceived(gateway, classification, impostors)
    finally:
        for one in running:
            one.end()
        for impostor in impostors.values():
            impostor.close()
