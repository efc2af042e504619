"""All five services in one process behind one port: the default for a laptop, an edge box and tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.classification.servicer import ClassificationServicer
from services.classification.settings import ClassificationSettings
from services.common.engines.opening import open_engine
from services.common.errors import DependencyUnavailableError
from services.common.health import composed
from services.common.local_stub import LocalStub
from services.common.parts import GATEWAY, PARTS
from services.common.releases import ReleaseStore
from services.common.server import Registration
from services.common.service import run_service, serve_until_signal
from services.common.settings import CommonSettings, ServiceSettings, TlsSettings
from services.common.workers import Workers
from services.gateway.image_admission import ImageAdmission
from services.gateway.library_servicer import LibraryServicer
from services.gateway.servicer import DiagnosisServicer
from services.gateway.settings import GatewaySettings
from services.gateway.stubs import Stubs
from services.patching.servicer import PatchingServicer
from services.patching.settings import PatchingSettings
from services.preprocessing.servicer import PreprocessingServicer
from services.preprocessing.settings import PreprocessingSettings
from services.retrieval.servicer import RetrievalServicer
from services.retrieval.settings import RetrievalSettings

NAME: Final = "embedded"


@dataclass(frozen=True)
class EmbeddedServices:
    """The five servicers, wired in process.

    Attributes:
        servicers: by the names of the stubs.
        outward: what a server needs to serve the gateway.
        inner: what it needs to serve the four inner services.
        stubs: local stubs by service name, and ``library`` for the gateway's other service; the signature of the generated asynchronous
            stubs.
        releases: the releases that are held.
    """

    servicers: dict[str, Any]
    outward: list[Registration]
    inner: list[Registration]
    stubs: dict[str, Any]
    releases: ReleaseStore


class EmbeddedSettings(ServiceSettings):
    """Where the one process listens, from ``DL4ALL_PORT`` and ``DL4ALL_METRICS_PORT``."""

    model_config = SettingsConfigDict(env_prefix="DL4ALL_", extra="ignore", use_attribute_docstrings=True)

    port: int = Field(default=PARTS[GATEWAY].port, ge=0, le=65535)
    """Port to listen on; 0 for any free one."""

    inner_services: bool = False
    """Whether callers reach the four inner services on this port as well, to look inside; they have no checks of who calls."""

    metrics_port: int = Field(default=PARTS[GATEWAY].metrics_port, ge=0, le=65535)
    """Port of the Prometheus metrics; 0 for any free one."""


@asynccontextmanager
async def embedded_services(settings: CommonSettings, tls: TlsSettings | None = None) -> AsyncIterator[EmbeddedServices]:
    """Wire all five services in this process; every model is ready before they are handed out.

    Args:
        settings: of all servers.
        tls: how to trust a Triton, where one runs the models.

    Raises:
        BrokenReleaseError: a release is incomplete or does not match its checksums.
        DependencyUnavailableError: a model cannot be run.
        ConfigurationError: the engine cannot be used on this machine.
    """
    releases = ReleaseStore(settings.releases, settings.model_repository)
    workers = Workers(settings.workers)
    engine = open_engine(ClassificationSettings(), settings, tls or TlsSettings(), workers)
    try:
        for release in releases.releases:
            locator = releases.locator(release.id)
            for model in (*release.models, *(() if locator is None else (locator,))):
                if not await engine.is_ready(model):
                    raise DependencyUnavailableError("MODEL_UNAVAILABLE", f"The model {model.model} of release {release.id} could not be loaded.")
        inner: dict[str, Any] = {
            "patching": PatchingServicer(PatchingSettings(), releases, engine, workers),
            "preprocessing": PreprocessingServicer(PreprocessingSettings(), releases, workers),
            "classification": ClassificationServicer(releases, engine),
            "retrieval": RetrievalServicer(RetrievalSettings(), releases, workers),
        }
        registrations = {name: servicer.registration() for name, servicer in inner.items()}
        inner_stubs: dict[str, Any] = {name: LocalStub(r.servicer, r.descriptor) for name, r in registrations.items()}
        needs = composed({name: r.needs for name, r in registrations.items()})
        gateway = GatewaySettings()
        composing = (gateway, releases, Stubs(**inner_stubs), ImageAdmission(gateway.image_limits()))
        outward = {"gateway": DiagnosisServicer(*composing).registration(needs), "library": LibraryServicer(*composing).registration(needs)}
        stubs = {**inner_stubs, **{name: LocalStub(r.servicer, r.descriptor) for name, r in outward.items()}}
        servicers = {name: r.servicer for name, r in (*registrations.items(), *outward.items())}
        yield EmbeddedServices(servicers, list(outward.values()), list(registrations.values()), stubs, releases)
    finally:
        await engine.close()
        workers.close()


@asynccontextmanager
async def _opened(common: CommonSettings, tls: TlsSettings) -> AsyncIterator[Sequence[Registration]]:
    async with embedded_services(common, tls) as services:
        yield [*services.inner, *services.outward] if EmbeddedSettings().inner_services else services.outward


async def serve(common: CommonSettings, tls: TlsSettings, settings: EmbeddedSettings) -> None:
    """Serve all five on one port until SIGTERM or SIGINT, then finish the accepted calls."""
    await serve_until_signal(NAME, common, tls, settings, _opened)


if __name__ == "__main__":
    run_service(NAME, EmbeddedSettings, _opened)
