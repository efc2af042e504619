"""Serve classification in a process of its own: ``python -m services.classification``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from services.classification.servicer import ClassificationServicer
from services.classification.settings import ClassificationSettings
from services.common.engines.opening import open_engine
from services.common.releases import ReleaseStore
from services.common.server import Registration
from services.common.service import run_service
from services.common.settings import CommonSettings, TlsSettings
from services.common.workers import Workers


@asynccontextmanager
async def opened(common: CommonSettings, tls: TlsSettings) -> AsyncIterator[Sequence[Registration]]:
    """The servicer with its engine; a model that is not loaded yet shows in health and does not stop the start."""
    workers = Workers(common.workers)
    engine = open_engine(ClassificationSettings(), common, tls, workers)
    try:
        yield [ClassificationServicer(ReleaseStore(common.releases, common.model_repository), engine).registration()]
    finally:
        await engine.close()
        workers.close()


if __name__ == "__main__":
    run_service("classification", ClassificationSettings, opened)
