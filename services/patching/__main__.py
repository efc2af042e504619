"""Serve patching in a process of its own: ``python -m services.patching``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from services.common.server import Registration
from services.common.service import run_service
from services.common.settings import CommonSettings, TlsSettings
from services.common.workers import Workers
from services.patching.servicer import PatchingServicer
from services.patching.settings import PatchingSettings


@asynccontextmanager
async def opened(common: CommonSettings, _: TlsSettings) -> AsyncIterator[Sequence[Registration]]:
    """The servicer with its worker threads."""
    workers = Workers(common.workers)
    try:
        yield [PatchingServicer(PatchingSettings(), workers).registration()]
    finally:
        workers.close()


if __name__ == "__main__":
    run_service("patching", PatchingSettings, opened)
