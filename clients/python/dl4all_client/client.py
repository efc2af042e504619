"""The client for plain code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Unpack

import grpc

from dl4all.diagnosis.v1 import diagnosis_pb2, diagnosis_pb2_grpc, library_pb2, library_pb2_grpc
from dl4all_client.channel import Tls, open_channel
from dl4all_client.errors import ServiceError
from dl4all_client.requests import (
    DEFAULT_TIMEOUT,
    Answer,
    DiagnoseOptions,
    ImageOptions,
    Kind,
    OnImage,
    Reference,
    SlideOptions,
    diagnose_request,
    enhance_request,
    locate_request,
    read_answer,
    read_specimen,
    reference_requests,
    slide_requests,
    slide_start_of,
    specimen_request,
    stream_request,
    without_aggregate,
)


class DiagnosisClient:
    """Calls a gateway. Every method raises ServiceError where the call is refused or fails.

    Args:
        address: ``host:port`` of the gateway, or ``dns:///name:port``: round robin over all addresses of the name.
        timeout: seconds for a call about one image; streams, specimens and slides have no limit of their own here.
        tls: certificates; plaintext without.
    """

    def __init__(self, address: str, timeout: float = DEFAULT_TIMEOUT, tls: Tls | None = None) -> None:
        self._channel = open_channel(address, tls)
        self._diagnosis = diagnosis_pb2_grpc.DiagnosisServiceStub(self._channel)
        self._library = library_pb2_grpc.LibraryServiceStub(self._channel)
        self._timeout = timeout

    def __enter__(self) -> DiagnosisClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def diagnose(self, image: bytes, **options: Unpack[DiagnoseOptions]) -> diagnosis_pb2.Diagnosis:
        """Diagnose one encoded image; options: see ``DiagnoseOptions``."""
        with _errors():
            return self._diagnosis.Diagnose(diagnose_request(image, **options), timeout=self._timeout).diagnosis

    def diagnose_stream(self, requests: Iterable[diagnosis_pb2.DiagnoseRequest]) -> Iterator[Answer]:
        """Diagnose many images over one stream.

        Args:
            requests: of ``diagnose_request``, each with a request id of its own; they are read as the service has room.

        Yields:
            Request id and diagnosis, or ServiceError where this image failed, in the order in which they are done.
        """
        with _errors():
            for answer in self._diagnosis.DiagnoseStream(map(stream_request, requests)):
                yield read_answer(answer)

    def diagnose_specimen(
        self, images: Iterable[bytes], *, on_image: OnImage | None = None, **options: Unpack[ImageOptions]
    ) -> diagnosis_pb2.SpecimenDiagnosis:
        """Diagnose the images of one specimen and return the aggregate.

        Args:
            images: encoded images; an image that fails is counted as a failure and does not end the call.
            on_image: called with number (as text) and diagnosis, or ServiceError, of each image as it is done.
            options: see ``ImageOptions``.
        """
        requests = (specimen_request(number, image, options) for number, image in enumerate(images))
        with _errors():
            for answer in self._diagnosis.DiagnoseSpecimen(requests):
                if (specimen := read_specimen(answer, on_image)) is not None:
                    return specimen
        raise without_aggregate()

    def diagnose_slide(
        self, slide: Path | str, *, timeout: float | None = None, **options: Unpack[SlideOptions]
    ) -> Iterator[diagnosis_pb2.DiagnoseSlideResponse]:
        """Diagnose a slide.

        Args:
            slide: a file here (Path), which is uploaded; or, as text, a path below the slide root of the service.
            timeout: seconds for the whole slide; None for the service's own limit.
            options: see ``SlideOptions``.

        Yields:
            Progress, cells as they are judged, and last the diagnosis.

        Raises:
            OSError: the file cannot be read.
        """
        with ExitStack() as stack:
            file = stack.enter_context(slide.open("rb")) if isinstance(slide, Path) else None
            stack.enter_context(_errors())
            yield from self._diagnosis.DiagnoseSlide(slide_requests(slide_start_of(slide, options), file), timeout=timeout)

    def locate_cells(self, image: bytes, *, kind: Kind = "auto", microns_per_pixel: float = 0.0) -> diagnosis_pb2.LocateCellsResponse:
        """Locate the nucleated cells of one encoded image; none is judged."""
        with _errors():
            return self._diagnosis.LocateCells(locate_request(image, kind, microns_per_pixel), timeout=self._timeout)

    def measure_focus(self, image: bytes) -> float:
        """FQPath focus score of one encoded image as it is, about 5..12; higher is blurrier."""
        with _errors():
            return self._diagnosis.MeasureFocus(diagnosis_pb2.MeasureFocusRequest(image=image), timeout=self._timeout).score

    def enhance_cell(
        self, image: bytes, *, release: str = "", microns_per_pixel: float = 0.0, include_crop: bool = False
    ) -> diagnosis_pb2.EnhanceCellResponse:
        """Register and sharpen the cell nearest to the centre of one encoded image.

        Args:
            image: the encoded image.
            release: release id or system whose preprocessing applies; empty for the default.
            microns_per_pixel: 0 where unknown.
            include_crop: whether the pixels around the cell come as well.
        """
        request = enhance_request(image, release, microns_per_pixel, include_crop=include_crop)
        with _errors():
            return self._diagnosis.EnhanceCell(request, timeout=self._timeout)

    def list_releases(self) -> list[diagnosis_pb2.Release]:
        """List the releases that can be chosen."""
        with _errors():
            return list(self._diagnosis.ListReleases(diagnosis_pb2.ListReleasesRequest(), timeout=self._timeout).releases)

    def get_library(self, release: str = "") -> library_pb2.GetLibraryResponse:
        """Say what the reference library of a release holds; empty for the default."""
        with _errors():
            return self._library.GetLibrary(library_pb2.GetLibraryRequest(release=release), timeout=self._timeout)

    def add_references(
        self, references: Iterable[Reference], *, source: str, confirmed_by: str, idempotency_key: str, release: str = ""
    ) -> library_pb2.AddReferencesResponse:
        """Keep confirmed cells for the next version of a library: all of them, or none.

        Args:
            references: 1..256 images of one confirmed cell each.
            source: where they come from, such as your laboratory; no slash.
            confirmed_by: who confirmed them.
            idempotency_key: repeat a call with it, and the cells are kept once.
            release: release id or system; empty for the default.
        """
        requests = reference_requests(references, source=source, confirmed_by=confirmed_by, idempotency_key=idempotency_key, release=release)
        with _errors():
            return self._library.AddReferences(requests)


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise ServiceError.from_rpc(error) from error
