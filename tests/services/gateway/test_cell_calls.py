"""Calls for cells over fake services: some data is fetched only where it is shown."""

from __future__ import annotations

from services.gateway.cell_calls import CellCalls
from tests.services.gateway.fakes import FakeServices, context


async def test_the_latent_map_is_fetched_only_where_it_is_shown() -> None:
    services = FakeServices()
    assert await CellCalls(services.stubs).latent_map(context()) == []
    assert services.called == []
    (reference,) = await CellCalls(services.stubs).latent_map(context(latent_map=True))
    assert reference.reference_id == "a/1"
