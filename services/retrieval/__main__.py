"""Serve retrieval in a process of its own: ``python -m services.retrieval``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from services.common.releases import ReleaseStore
from services.common.server import Registration
from services.common.service import run_service
from services.common.settings import CommonSettings, TlsSettings
from services.common.workers import Workers
from services.retrieval.servicer import RetrievalServicer
from services.retrieval.settings import RetrievalSettings


@asynccontextmanager
async def opened(common: CommonSettings, _: TlsSettings) -> AsyncIterator[Sequence[Registration]]:
    """The servicer with its worker threads."""
    workers = Workers(common.workers)
    try:
        releases = ReleaseStore(common.releases, common.model_repository)
        yield [RetrievalServicer(RetrievalSettings(), releases, workers).registration()]
    finally:
        workers.close()


if __name__ == "__main__":
    run_service("retrieval", RetrievalSettings, opened)
