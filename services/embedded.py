"""All five services in one process behind one port: the default for a laptop, an edge box and tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor

from dl4all.classification.v1 import classification_pb2, classification_pb2_grpc
from dl4all.diagnosis.v1 import diagnosis_pb2, diagnosis_pb2_grpc
from dl4all.patching.v1 import patching_pb2, patching_pb2_grpc
from dl4all.preprocessing.v1 import preprocessing_pb2, preprocessing_pb2_grpc
from dl4all.retrieval.v1 import retrieval_pb2, retrieval_pb2_grpc
from services.classification.servicer import ClassificationServicer
from services.classification.settings import ClassificationSettings
from services.common.engines.onnx_runtime import OnnxRuntimeEngine
from services.common.errors import DependencyUnavailableError
from services.common.local_stub import LocalStub
from services.common.logs import configure_logs
from services.common.releases import ReleaseStore
from services.common.server import Registration, Server
from services.common.settings import CommonSettings
from services.common.workers import Workers
from services.gateway.composition import Stubs
from services.gateway.servicer import DiagnosisServicer
from services.gateway.settings import GatewaySettings
from services.patching.servicer import PatchingServicer
from services.patching.settings import PatchingSettings
from services.preprocessing.servicer import PreprocessingServicer
from services.preprocessing.settings import PreprocessingSettings
from services.retrieval.servicer import RetrievalServicer
from services.retrieval.settings import RetrievalSettings

_SERVICES: dict[str, tuple[ServiceDescriptor, Any]] = {
    "patching": (patching_pb2.DESCRIPTOR.services_by_name["PatchingService"], patching_pb2_grpc.add_PatchingServiceServicer_to_server),
    "preprocessing": (
        preprocessing_pb2.DESCRIPTOR.services_by_name["PreprocessingService"],
        preprocessing_pb2_grpc.add_PreprocessingServiceServicer_to_server,
    ),
    "classification": (
        classification_pb2.DESCRIPTOR.services_by_name["ClassificationService"],
        classification_pb2_grpc.add_ClassificationServiceServicer_to_server,
    ),
    "retrieval": (
        retrieval_pb2.DESCRIPTOR.services_by_name["RetrievalService"],
        retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server,
    ),
    "gateway": (
        diagnosis_pb2.DESCRIPTOR.services_by_name["DiagnosisService"],
        diagnosis_pb2_grpc.add_DiagnosisServiceServicer_to_server,
    ),
}


@dataclass(frozen=True)
class EmbeddedServices:
    """The five servicers, wired in process.

    Attributes:
        servicers: by service name.
        stubs: local stubs by service name; the signature of the generated asynchronous stubs.
        releases: the releases that are held.
    """

    servicers: dict[str, object]
    stubs: dict[str, Any]
    releases: ReleaseStore

    def registrations(self) -> list[Registration]:
        """What a server needs to serve all five."""
        return [Registration(_SERVICES[name][0].full_name, _SERVICES[name][1], servicer) for name, servicer in self.servicers.items()]


@asynccontextmanager
async def embedded_services(settings: CommonSettings) -> AsyncIterator[EmbeddedServices]:
    """Wire all five services in this process; every model is loaded before they are handed out.

    Raises:
        BrokenReleaseError: a release is incomplete or does not match its checksums.
        DependencyUnavailableError: a model could not be loaded.
    """
    releases = ReleaseStore(settings.releases, settings.model_repository)
    workers = Workers(settings.workers)
    try:
        engine = OnnxRuntimeEngine(settings.model_repository, workers.executor, ClassificationSettings().inference_threads)
        for release in releases.releases:
            for model in (release.network, release.embedder):
                if not await engine.is_ready(model):
                    raise DependencyUnavailableError("MODEL_UNAVAILABLE", f"The model {model.model} of release {release.id} could not be loaded.")
        servicers: dict[str, object] = {
            "patching": PatchingServicer(PatchingSettings(), workers),
            "preprocessing": PreprocessingServicer(PreprocessingSettings(), releases, workers),
            "classification": ClassificationServicer(releases, engine),
            "retrieval": RetrievalServicer(RetrievalSettings(), releases, workers),
        }
        stubs: dict[str, Any] = {name: LocalStub(servicer, _SERVICES[name][0]) for name, servicer in servicers.items()}
        servicers["gateway"] = DiagnosisServicer(GatewaySettings(), releases, Stubs(**stubs))
        stubs["gateway"] = LocalStub(servicers["gateway"], _SERVICES["gateway"][0])
        yield EmbeddedServices(servicers, stubs, releases)
    finally:
        workers.close()


async def serve(settings: CommonSettings) -> None:
    """Serve all five on one port until SIGTERM or SIGINT, then finish what was accepted."""
    async with embedded_services(settings) as services:
        await Server(services.registrations(), settings).run_until_signal()


def main() -> None:
    """Entry point of ``python -m services.embedded``."""
    settings = CommonSettings()
    configure_logs(settings.log_level)
    asyncio.run(serve(settings))


if __name__ == "__main__":
    main()
