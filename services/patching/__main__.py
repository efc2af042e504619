"""Serve patching in a process of its own: ``python -m services.patching``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from services.common.engines.opening import open_engine
from services.common.releases import ReleaseStore
from services.common.server import Registration
from services.common.service import run_service
from services.common.settings import CommonSettings, TlsSettings
from services.common.workers import Workers
from services.patching.servicer import PatchingServicer
from services.patching.settings import PatchingSettings


@asynccontextmanager
async def opened(common: CommonSettings, tls: TlsSettings) -> AsyncIterator[Sequence[Registration]]:
    """The servicer with its engine; a locator that is not loaded yet shows in health and does not stop the start."""
    workers = Workers(common.workers)
    settings = PatchingSettings()
    engine = open_engine(settings, common, tls, workers)
    try:
        releases = ReleaseStore(common.releases, common.model_repository)
        yield [PatchingServicer(settings, releases, engine, workers).registration()]
    finally:
        await engine.close()
        workers.close()


if __name__ == "__main__":
    run_service("patching", PatchingSettings, opened)
