"""Requests of both clients, and how their answers are read. Nothing here talks to a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Generic, Literal, TypedDict, TypeVar, Unpack

from dl4all.diagnosis.v1 import diagnosis_pb2, library_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all_client.errors import ServiceError

DEFAULT_TIMEOUT: Final = 60.0
SLIDE_CHUNK_BYTES: Final = 1024 * 1024
Item = TypeVar("Item")
Kind = Literal["auto", "cell", "field"]
Priority = Literal["interactive", "batch"]
Answer = tuple[str, diagnosis_pb2.Diagnosis | ServiceError]
"""Request id of an image, and its diagnosis or why there is none."""
OnImage = Callable[[str, diagnosis_pb2.Diagnosis | ServiceError], None]
_KINDS: Final = {
    "auto": imaging_pb2.IMAGE_KIND_AUTO,
    "cell": imaging_pb2.IMAGE_KIND_CELL,
    "field": imaging_pb2.IMAGE_KIND_FIELD,
}
_PRIORITIES: Final = {
    "interactive": diagnosis_pb2.PRIORITY_INTERACTIVE,
    "batch": diagnosis_pb2.PRIORITY_BATCH,
}

_BATCH_METADATA: Final = (("dl4all-priority", "batch"),)


class SharedOptions(TypedDict, total=False):
    """Options of images and slides.

    Attributes:
        release: release id, or a system's name for its current release; default: the service's default release.
        specimen: your pseudonym of the specimen, up to 128 printable ASCII characters; the service never logs it.
        microns_per_pixel: 0.01..10; default 0: not known.
        explain: whether similarity maps, registered crops and the latent map come with the answer; default False.
        neighbours: known cells to show with each cell, 1..20; default 0: the service's number.
    """

    release: str
    specimen: str
    microns_per_pixel: float
    explain: bool
    neighbours: int


class ImageOptions(SharedOptions, total=False):
    """Options of an image.

    Attributes:
        kind: what the image shows: "cell" (one cell is meant, the one nearest to the centre), "field" (all cells) or "auto", the default.
        priority: "interactive", the default, where somebody waits for the answer; "batch" for the images of an archive, which are refused first.
    """

    kind: Kind
    priority: Priority


class DiagnoseOptions(ImageOptions, total=False):
    """Options of one image of a call.

    Attributes:
        request_id: your identifier of the call, up to 128 printable ASCII characters; default: the service makes one up.
    """

    request_id: str


class SlideOptions(SharedOptions, total=False):
    """Options of a slide.

    Attributes:
        request_id: your identifier of the call, up to 128 printable ASCII characters; default: the service makes one up.
        explained_cells: how many of the most suspicious cells are explained, 1..50; default 0: the service's number.
    """

    request_id: str
    explained_cells: int


@dataclass(frozen=True)
class Reference:
    """An image of one confirmed cell, for the next version of a reference library.

    Attributes:
        image: the encoded image; its cell nearest to the centre is meant.
        is_blast: whether the cell is a leukaemic blast.
        cell_class: its class, such as "lymphocyte".
        patient: your pseudonym of the patient; never a name.
        microns_per_pixel: 0 where unknown.
    """

    image: bytes
    is_blast: bool
    cell_class: str
    patient: str
    microns_per_pixel: float = 0.0


class Sent(Generic[Item]):
    """Messages of a stream. It keeps the exception that ended them, because gRPC does not pass it on.

    Args:
        messages: what is sent.

    Attributes:
        error: the exception that making a message raised; None so far.
        stopped: whether nothing more is to be sent; what making a message raises from then on is of no interest.
    """

    def __init__(self, messages: Iterable[Item]) -> None:
        self._messages = iter(messages)
        self.error: Exception | None = None
        self.stopped = False

    def __iter__(self) -> Sent[Item]:
        return self

    def __next__(self) -> Item:
        if self.stopped:
            raise StopIteration
        try:
            return next(self._messages)
        except StopIteration:
            raise
        except Exception as error:
            if self.stopped:
                raise StopIteration from error
            self.error = error
            raise


def diagnose_request(image: bytes, **options: Unpack[DiagnoseOptions]) -> diagnosis_pb2.DiagnoseRequest:
    """Build the request for one image.

    Args:
        image: the encoded image.
        options: see ``DiagnoseOptions``.

    Raises:
        ValueError: kind is none of the three, or priority none of the two.
    """
    return diagnosis_pb2.DiagnoseRequest(
        request_id=options.get("request_id", ""),
        image=image,
        kind=image_kind(options.get("kind", "auto")),
        microns_per_pixel=options.get("microns_per_pixel", 0.0),
        specimen=options.get("specimen", ""),
        release=options.get("release", ""),
        display=_display(options.get("explain", False), options.get("neighbours", 0)),
        priority=_priority(options.get("priority", "interactive")),
    )


def priority_metadata(request: diagnosis_pb2.DiagnoseRequest) -> tuple[tuple[str, str], ...]:
    """The priority of a request as metadata of its call, so that a busy gateway can refuse it before it reads the image."""
    return _BATCH_METADATA if request.priority == diagnosis_pb2.PRIORITY_BATCH else ()


def stream_request(request: diagnosis_pb2.DiagnoseRequest) -> diagnosis_pb2.DiagnoseStreamRequest:
    """The message of a stream that carries one image."""
    return diagnosis_pb2.DiagnoseStreamRequest(request=request)


def specimen_request(number: int, image: bytes, options: ImageOptions) -> diagnosis_pb2.DiagnoseSpecimenRequest:
    """The message of a specimen that carries its image of this number; the number becomes the request id."""
    return diagnosis_pb2.DiagnoseSpecimenRequest(request=diagnose_request(image, request_id=str(number), **options))


def read_answer(answer: diagnosis_pb2.DiagnoseStreamResponse) -> Answer:
    """The answer for one image of a stream or a specimen."""
    failed = answer.WhichOneof("result") == "error"
    return answer.request_id, ServiceError.from_status(answer.error) if failed else answer.diagnosis


def read_specimen(answer: diagnosis_pb2.DiagnoseSpecimenResponse, on_image: OnImage | None) -> diagnosis_pb2.SpecimenDiagnosis | None:
    """The aggregate of a specimen, or None where this answer is for one image, which ``on_image`` gets."""
    if answer.WhichOneof("result") == "specimen":
        return answer.specimen
    if on_image is not None:
        on_image(*read_answer(answer.image))
    return None


def aggregate(specimen: diagnosis_pb2.SpecimenDiagnosis | None) -> diagnosis_pb2.SpecimenDiagnosis:
    """The aggregate of a specimen, which is the last answer.

    Raises:
        ServiceError: there is none.
    """
    if specimen is None:
        raise ServiceError("INTERNAL", "INTERNAL", "The service ended the specimen without its aggregate.")
    return specimen


def slide_start(*, path: str = "", upload_bytes: int = 0, **options: Unpack[SlideOptions]) -> diagnosis_pb2.DiagnoseSlideStart:
    """Build the first message of a slide.

    Args:
        path: of the slide below the slide root of the service; or
        upload_bytes: size of the file that follows in chunks.
        options: see ``SlideOptions``.

    Raises:
        ValueError: path and upload_bytes are both given, or both missing.
    """
    if bool(path) == bool(upload_bytes):
        raise ValueError("give either path or upload_bytes")
    source = imaging_pb2.SlideSource(path=path) if path else imaging_pb2.SlideSource(upload_bytes=upload_bytes)
    return diagnosis_pb2.DiagnoseSlideStart(
        request_id=options.get("request_id", ""),
        source=source,
        microns_per_pixel=options.get("microns_per_pixel", 0.0),
        specimen=options.get("specimen", ""),
        release=options.get("release", ""),
        display=_display(options.get("explain", False), options.get("neighbours", 0)),
        explained_cells=options.get("explained_cells", 0),
    )


def slide_start_of(slide: Path | str, on_server: bool, options: SlideOptions) -> diagnosis_pb2.DiagnoseSlideStart:
    """The first message of a slide: a file here, or a path below the slide root of the service.

    Raises:
        OSError: there is no such file here.
    """
    path = Path(slide)
    return slide_start(path=path.as_posix(), **options) if on_server else slide_start(upload_bytes=path.stat().st_size, **options)


def slide_requests(start: diagnosis_pb2.DiagnoseSlideStart, file: BinaryIO | None = None) -> Iterator[diagnosis_pb2.DiagnoseSlideRequest]:
    """The messages of a slide: its start, then the file in chunks of ``SLIDE_CHUNK_BYTES``, read as they are sent."""
    yield diagnosis_pb2.DiagnoseSlideRequest(start=start)
    while file is not None and (data := file.read(SLIDE_CHUNK_BYTES)):
        yield diagnosis_pb2.DiagnoseSlideRequest(chunk=imaging_pb2.SlideChunk(data=data))


def locate_request(image: bytes, kind: Kind, microns_per_pixel: float) -> diagnosis_pb2.LocateCellsRequest:
    """Build the request for the cells of one image."""
    return diagnosis_pb2.LocateCellsRequest(image=image, kind=image_kind(kind), microns_per_pixel=microns_per_pixel)


def enhance_request(image: bytes, release: str, microns_per_pixel: float, *, include_crop: bool) -> diagnosis_pb2.EnhanceCellRequest:
    """Build the request for the registered, sharpened cell of one image."""
    return diagnosis_pb2.EnhanceCellRequest(image=image, release=release, microns_per_pixel=microns_per_pixel, include_crop=include_crop)


def references_start(*, source: str, confirmed_by: str, idempotency_key: str, release: str) -> library_pb2.AddReferencesRequest:
    """The first message of a call that adds confirmed cells."""
    start = library_pb2.AddReferencesStart(release=release, idempotency_key=idempotency_key, confirmed_by=confirmed_by, source=source)
    return library_pb2.AddReferencesRequest(start=start)


def reference_request(reference: Reference) -> library_pb2.AddReferencesRequest:
    """The message that brings one confirmed cell."""
    image = library_pb2.ReferenceImage(
        image=reference.image,
        is_blast=reference.is_blast,
        cell_class=reference.cell_class,
        patient=reference.patient,
        microns_per_pixel=reference.microns_per_pixel,
    )
    return library_pb2.AddReferencesRequest(reference=image)


def image_kind(kind: str) -> imaging_pb2.ImageKind.ValueType:
    """The kind of an image by its name.

    Raises:
        ValueError: kind is none of the three.
    """
    if kind not in _KINDS:
        raise ValueError(f"kind must be one of {', '.join(_KINDS)}, got {kind!r}")
    return _KINDS[kind]


def _priority(priority: str) -> diagnosis_pb2.Priority.ValueType:
    if priority not in _PRIORITIES:
        raise ValueError(f"priority must be one of {', '.join(_PRIORITIES)}, got {priority!r}")
    return _PRIORITIES[priority]


def finding_name(finding: diagnosis_pb2.Finding.ValueType) -> str:
    """Name of a finding: BLASTS_SUSPECTED, NO_BLASTS_SEEN or INDETERMINATE."""
    return diagnosis_pb2.Finding.Name(finding).removeprefix("FINDING_")


def _display(explain: bool, neighbours: int) -> diagnosis_pb2.DisplayOptions:
    return diagnosis_pb2.DisplayOptions(neighbours=neighbours, include_maps=explain, include_crops=explain, include_latent_map=explain)
