"""Methods of the four services that the gateway calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from dl4all.classification.v1 import classification_pb2
from dl4all.patching.v1 import patching_pb2
from dl4all.preprocessing.v1 import preprocessing_pb2
from dl4all.retrieval.v1 import retrieval_pb2

Metadata = tuple[tuple[str, str], ...]


class PatchingStub(Protocol):
    """Methods of patching that the gateway calls."""

    def LocateCells(
        self, request: patching_pb2.LocateCellsRequest, *, timeout: float, metadata: Metadata
    ) -> AsyncIterator[patching_pb2.LocateCellsResponse]: ...

    def CutPatches(
        self, request: patching_pb2.CutPatchesRequest, *, timeout: float, metadata: Metadata
    ) -> AsyncIterator[patching_pb2.CutPatchesResponse]: ...

    def LocateSlide(
        self, request_iterator: AsyncIterator[patching_pb2.LocateSlideRequest], *, timeout: float, metadata: Metadata
    ) -> AsyncIterator[patching_pb2.LocateSlideResponse]: ...


class PreprocessingStub(Protocol):
    """Methods of preprocessing that the gateway calls."""

    def Enhance(self, request: preprocessing_pb2.EnhanceRequest, *, timeout: float, metadata: Metadata) -> Any: ...

    def MeasureFocus(self, request: preprocessing_pb2.MeasureFocusRequest, *, timeout: float, metadata: Metadata) -> Any: ...


class ClassificationStub(Protocol):
    """Methods of classification that the gateway calls."""

    def Classify(self, request: classification_pb2.ClassifyRequest, *, timeout: float, metadata: Metadata) -> Any: ...

    def ClassifyPatches(self, request: classification_pb2.ClassifyPatchesRequest, *, timeout: float, metadata: Metadata) -> Any: ...


class RetrievalStub(Protocol):
    """Methods of retrieval that the gateway calls."""

    def Explain(self, request: retrieval_pb2.ExplainRequest, *, timeout: float, metadata: Metadata) -> Any: ...

    def GetLibrary(self, request: retrieval_pb2.GetLibraryRequest, *, timeout: float, metadata: Metadata) -> Any: ...

    def AddReferences(self, request: retrieval_pb2.AddReferencesRequest, *, timeout: float, metadata: Metadata) -> Any: ...

    def GetLatentMap(self, request: retrieval_pb2.GetLatentMapRequest, *, timeout: float, metadata: Metadata) -> Any: ...


@dataclass(frozen=True)
class Stubs:
    """The four services that the gateway composes."""

    patching: PatchingStub
    preprocessing: PreprocessingStub
    classification: ClassificationStub
    retrieval: RetrievalStub
