"""Serve the gateway in a process of its own: ``python -m services.gateway``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from services.common.releases import ReleaseStore
from services.common.server import Registration
from services.common.service import run_service
from services.common.settings import CommonSettings, TlsSettings
from services.gateway.dependencies import open_dependencies
from services.gateway.image_admission import ImageAdmission
from services.gateway.library_servicer import LibraryServicer
from services.gateway.servicer import DiagnosisServicer
from services.gateway.settings import GatewaySettings


@asynccontextmanager
async def opened(common: CommonSettings, tls: TlsSettings) -> AsyncIterator[Sequence[Registration]]:
    """The servicers with their channels; a service that does not run yet shows in health and does not stop the start."""
    settings = GatewaySettings()
    releases = ReleaseStore(common.releases, common.model_repository)
    async with open_dependencies(settings, common, tls, releases) as (stubs, needs):
        composing = (settings, releases, stubs, ImageAdmission(settings.image_limits()))
        servicers = (DiagnosisServicer(*composing), LibraryServicer(*composing))
        yield [servicer.registration(needs) for servicer in servicers]


if __name__ == "__main__":
    run_service("gateway", GatewaySettings, opened)
