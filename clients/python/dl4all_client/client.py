"""The client for plain code."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, Unpack, cast

import grpc

from dl4all.diagnosis.v1 import diagnosis_pb2, diagnosis_pb2_grpc, library_pb2, library_pb2_grpc
from dl4all_client.addresses import proxy_note
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
    Sent,
    SlideOptions,
    aggregate,
    diagnose_request,
    enhance_request,
    locate_request,
    priority_metadata,
    read_answer,
    read_specimen,
    reference_request,
    references_start,
    slide_requests,
    slide_start_of,
    specimen_request,
    stream_request,
)

Call = TypeVar("Call")


class DiagnosisClient:
    """Calls a gateway. Every method raises ServiceError where the call is refused or fails.

    Args:
        address: ``host:port`` of the gateway, or ``dns:///name:port``: round robin over all addresses of the name.
        timeout: seconds for a call about one image; streams, specimens and slides have no limit of their own here.
        tls: certificates; plaintext without.

    Raises:
        ValueError: the address is none; the message says what to write.
    """

    def __init__(self, address: str, timeout: float = DEFAULT_TIMEOUT, tls: Tls | None = None) -> None:
        self._channel = open_channel(address, tls)
        self._diagnosis = diagnosis_pb2_grpc.DiagnosisServiceStub(self._channel)
        self._library = library_pb2_grpc.LibraryServiceStub(self._channel)
        self._timeout = timeout
        self._note = proxy_note(address, os.environ)

    def __enter__(self) -> DiagnosisClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def diagnose(self, image: bytes, **options: Unpack[DiagnoseOptions]) -> diagnosis_pb2.Diagnosis:
        """Diagnose one encoded image; options: see ``DiagnoseOptions``."""
        with _errors(self._note):
            request = diagnose_request(image, **options)
            return self._diagnosis.Diagnose(request, timeout=self._timeout, metadata=priority_metadata(request)).diagnosis

    def diagnose_stream(self, requests: Iterable[diagnosis_pb2.DiagnoseRequest], *, timeout: float | None = None) -> Generator[Answer, None, None]:
        """Diagnose many images over one stream.

        Args:
            requests: of ``diagnose_request``, each with a request id of its own; they are read as the service has room.
            timeout: seconds for the whole stream; None for no limit.

        Yields:
            Request id and diagnosis, or ServiceError where this image failed, in the order in which they are done.
        """
        sent = Sent(map(stream_request, requests))
        with _streaming(self._diagnosis.DiagnoseStream(sent, timeout=timeout), self._note, sent) as answers:
            for answer in answers:
                yield read_answer(answer)

    def diagnose_specimen(
        self, images: Iterable[bytes], *, on_image: OnImage | None = None, timeout: float | None = None, **options: Unpack[ImageOptions]
    ) -> diagnosis_pb2.SpecimenDiagnosis:
        """Diagnose the images of one specimen and return the aggregate.

        Args:
            images: encoded images; an image that fails is counted as a failure and does not end the call.
            on_image: called with number (as text) and diagnosis, or ServiceError, of each image as it is done.
            timeout: seconds for the whole specimen; None for no limit.
            options: see ``ImageOptions``.
        """
        specimen = None
        sent = Sent(specimen_request(number, image, options) for number, image in enumerate(images))
        with _streaming(self._diagnosis.DiagnoseSpecimen(sent, timeout=timeout), self._note, sent) as answers:
            for answer in answers:
                specimen = read_specimen(answer, on_image)
        return aggregate(specimen)

    def diagnose_slide(
        self, slide: Path | str, *, on_server: bool = False, timeout: float | None = None, **options: Unpack[SlideOptions]
    ) -> Generator[diagnosis_pb2.DiagnoseSlideResponse, None, None]:
        """Diagnose a slide.

        Args:
            slide: a file here, which is uploaded.
            on_server: whether ``slide`` is a path below the slide root of the service instead, and nothing is uploaded.
            timeout: seconds for the whole slide; None for the service's own limit.
            options: see ``SlideOptions``.

        Yields:
            Progress, cells as they are judged, and last the diagnosis.

        Raises:
            OSError: the file cannot be read.
        """
        with ExitStack() as stack:
            file = None if on_server else stack.enter_context(Path(slide).open("rb"))
            sent = Sent(slide_requests(slide_start_of(slide, on_server, options), file))
            yield from stack.enter_context(_streaming(self._diagnosis.DiagnoseSlide(sent, timeout=timeout), self._note, sent))

    def locate_cells(self, image: bytes, *, kind: Kind = "auto", microns_per_pixel: float = 0.0) -> diagnosis_pb2.LocateCellsResponse:
        """Locate the nucleated cells of one encoded image; none is judged."""
        with _errors(self._note):
            return self._diagnosis.LocateCells(locate_request(image, kind, microns_per_pixel), timeout=self._timeout)

    def measure_focus(self, image: bytes) -> float:
        """FQPath focus score of one encoded image as it is, about 5..12; higher is blurrier."""
        with _errors(self._note):
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
        with _errors(self._note):
            return self._diagnosis.EnhanceCell(request, timeout=self._timeout)

    def list_releases(self) -> list[diagnosis_pb2.Release]:
        """List the releases that can be chosen."""
        with _errors(self._note):
            return list(self._diagnosis.ListReleases(diagnosis_pb2.ListReleasesRequest(), timeout=self._timeout).releases)

    def get_library(self, release: str = "") -> library_pb2.GetLibraryResponse:
        """Say what the reference library of a release holds; empty for the default."""
        with _errors(self._note):
            return self._library.GetLibrary(library_pb2.GetLibraryRequest(release=release), timeout=self._timeout)

    def add_references(
        self,
        references: Iterable[Reference],
        *,
        source: str,
        confirmed_by: str,
        idempotency_key: str,
        release: str = "",
        timeout: float | None = None,
    ) -> library_pb2.AddReferencesResponse:
        """Keep confirmed cells for the next version of a library: all of them, or none.

        Args:
            references: 1..256 images of one confirmed cell each.
            source: where they come from, such as your laboratory; no slash.
            confirmed_by: who confirmed them.
            idempotency_key: repeat a call with it, and the cells are kept once.
            release: release id or system; empty for the default.
            timeout: seconds for the whole call; None for no limit.
        """
        start = references_start(source=source, confirmed_by=confirmed_by, idempotency_key=idempotency_key, release=release)
        sent = Sent(chain([start], map(reference_request, references)))
        with _errors(self._note, sent):
            return self._library.AddReferences(sent, timeout=timeout)


@contextmanager
def _errors(note: str, sent: Sent[Any] | None = None) -> Iterator[None]:
    """Raise ServiceError for a failed call, or the exception that ended what was sent."""
    try:
        yield
    except grpc.RpcError as error:
        if sent is not None and sent.error is not None:
            raise sent.error from None
        raise ServiceError.from_rpc(error, note) from error


@contextmanager
def _streaming(call: Call, note: str, sent: Sent[Any]) -> Iterator[Call]:
    """The answers of a call; the call is cancelled where the caller takes no more of them."""
    with _errors(note, sent):
        try:
            yield call
        finally:
            sent.stopped = True
            cast(Any, call).cancel()
