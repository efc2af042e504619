"""Refuse answers of other services that make no sense, before anything is concluded from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from google.rpc import status_pb2

from dl4all.classification.v1 import classification_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from dl4all.preprocessing.v1 import preprocessing_pb2
from dl4all.retrieval.v1 import retrieval_pb2
from services.common import metrics
from services.common.errors import FailedPreconditionError, InternalError
from services.common.maps import is_feature_map
from services.common.releases import Release
from services.common.status import error_of

Answer = TypeVar("Answer")


def readable(answer: Answer | None, service: str) -> Answer:
    """An answer that could be read.

    Raises:
        InternalError: gRPC could not parse it.
    """
    if answer is None:
        raise _nonsense(service, "a message that cannot be read")
    return answer


def check_piece(piece: patching_pb2.LocateCellsResponse | None, *, first: bool, crops: bool = True) -> patching_pb2.LocateCellsResponse:
    """Check a piece of located cells: the first has the header, and every cell has its crop, where crops were asked for.

    Raises:
        InternalError: patching answered something else.
    """
    piece = readable(piece, "patching")
    if piece.HasField("header") != first:
        raise _nonsense("patching", "a header where there must be none, or none where there must be one")
    _same_cells("patching", [c.cell_id for c in piece.cells] if crops else [], [c.cell_id for c in piece.crops])
    _check_positions(piece.cells)
    return piece


def check_slide_cells(cells: patching_pb2.SlideCells, found: int) -> None:
    """Check cells of a slide: numbered on from the cells before, each with its crop and its position.

    Raises:
        InternalError: patching answered something else.
    """
    numbers = [c.cell_id for c in cells.cells]
    _same_cells("patching", numbers, range(found, found + len(numbers)))
    _same_cells("patching", [c.cell_id for c in cells.crops], numbers)
    _check_positions(cells.cells)


def check_total(header: patching_pb2.LocateCellsHeader, cells: int) -> None:
    """Check that all announced cells have come.

    Raises:
        InternalError: some are missing, or there are too many.
    """
    if header.cell_count != cells:
        raise _nonsense("patching", f"{cells} cells where {header.cell_count} were announced")


def check_enhanced(answer: preprocessing_pb2.EnhanceResponse | None, wanted: Sequence[int], side: int) -> preprocessing_pb2.EnhanceResponse:
    """Check that there is one outcome per crop, in order, and that every cell has the side of the release.

    Raises:
        InternalError: preprocessing answered something else.
    """
    answer = readable(answer, "preprocessing")
    _same_cells("preprocessing", [o.cell_id for o in answer.outcomes], wanted)
    for outcome in answer.outcomes:
        kind = outcome.WhichOneof("result")
        if kind is None or (kind == "enhanced" and len(outcome.enhanced.pixels) != 3 * side * side):
            raise _nonsense("preprocessing", "an outcome without a result, or a cell of another size")
    return answer


def check_classified(answer: classification_pb2.ClassifyResponse | None, wanted: Sequence[int], classes: int) -> classification_pb2.ClassifyResponse:
    """Check that there is one judgement per cell, in order: a finite logit per class, a finite embedding, and class activations whole or absent.

    Raises:
        InternalError: classification answered something else.
    """
    answer = readable(answer, "classification")
    _same_cells("classification", [c.cell_id for c in answer.cells], wanted)
    if any(len(c.logits) != classes or not c.embedding or not _finite([*c.logits, *c.embedding]) for c in answer.cells):
        raise _nonsense("classification", "logits or embeddings that are not finite numbers")
    if any(c.HasField("class_activations") and not is_feature_map(c.class_activations, classes) for c in answer.cells):
        raise _nonsense("classification", "class activations of another size")
    return answer


def check_patches(piece: patching_pb2.CutPatchesResponse | None, found: int, side: int) -> patching_pb2.CutPatchesResponse:
    """Check patches of a field: numbered on from the patches before, at the side of the network.

    Raises:
        InternalError: patching answered something else.
    """
    piece = readable(piece, "patching")
    _same_cells("patching", [p.patch_id for p in piece.patches], range(found, found + len(piece.patches)))
    if any(len(p.pixels) != 3 * side * side or p.side < 1 for p in piece.patches):
        raise _nonsense("patching", "a patch of another size")
    return piece


def check_classified_patches(
    answer: classification_pb2.ClassifyPatchesResponse | None, wanted: Sequence[int]
) -> classification_pb2.ClassifyPatchesResponse:
    """Check that there is one judgement per patch, in order: two finite logits and activations.

    Raises:
        InternalError: classification answered something else.
    """
    answer = readable(answer, "classification")
    _same_cells("classification", [p.patch_id for p in answer.patches], wanted)
    if any(len(p.logits) != 2 or not _finite(p.logits) or not is_feature_map(p.activations, 2) for p in answer.patches):
        raise _nonsense("classification", "logits that are not finite numbers, or no activations")
    return answer


def check_explained(answer: retrieval_pb2.ExplainResponse | None, wanted: Sequence[int]) -> retrieval_pb2.ExplainResponse:
    """Check that there is one outcome per cell, in order, explained, with a vote in 0..1 and at least one neighbour.

    Raises:
        InternalError: retrieval answered something else, or refused a cell. Every cell came checked from classification, so a refusal means that
            the services do not fit together. Without the vote the release's rule cannot be applied.
    """
    answer = readable(answer, "retrieval")
    _same_cells("retrieval", [o.cell_id for o in answer.outcomes], wanted)
    for outcome in answer.outcomes:
        if outcome.HasField("error"):
            raise _refused("retrieval", outcome.cell_id, outcome.error)
    if any(not 0.0 <= o.explained.vote <= 1.0 or not o.explained.neighbours for o in answer.outcomes):
        raise _nonsense("retrieval", "a vote outside 0..1 or no neighbour")
    return answer


def check_models(models: Iterable[classification_pb2.ServedModel], release: Release) -> None:
    """Check that classification ran the very files that the release names.

    Raises:
        FailedPreconditionError: RELEASE_DIFFERS: its release of this id is another.
    """
    files = {(m.model, m.version): {f.sha256 for f in m.files.values()} for m in release.models}
    for model in models:
        if model.sha256 not in files.get((model.name, model.version), ()):
            raise _another("classification", release)


def check_locator(locator: patching_pb2.LocatorModel, release: Release) -> None:
    """Check that patching found the cells with the locator that the release names; where it names none, any may have.

    Raises:
        FailedPreconditionError: RELEASE_DIFFERS: its release of this id is another.
    """
    named = release.locator
    if named is not None and (locator.name, locator.version) != (named.model, named.version):
        raise _another("patching", release)
    if named is not None and locator.sha256 not in {f.sha256 for f in named.files.values()}:
        raise _another("patching", release)


def check_library(sha256: str, release: Release) -> None:
    """Check that retrieval searched the very library that the release names.

    Raises:
        FailedPreconditionError: RELEASE_DIFFERS: its release of this id is another.
    """
    if sha256 != release.library.sha256:
        raise _another("retrieval", release)


def _another(service: str, release: Release) -> FailedPreconditionError:
    metrics.DEPENDENCY_ERRORS.labels(service, "RELEASE_DIFFERS").inc()
    message = f"The {service} service holds another release under the id {release.id}; start it again, or give releases ids of their own."
    return FailedPreconditionError("RELEASE_DIFFERS", message, metadata={"dependency": service})


def _check_positions(cells: Iterable[imaging_pb2.Cell]) -> None:
    if any(not (math.isfinite(c.radius) and c.radius > 0 and math.isfinite(c.center_x) and math.isfinite(c.center_y)) for c in cells):
        raise _nonsense("patching", "a cell without a position")


def _same_cells(service: str, found: Iterable[int], wanted: Iterable[int]) -> None:
    if list(found) != list(wanted):
        raise _nonsense(service, "other cells than requested")


def _finite(numbers: Iterable[Any]) -> bool:
    return all(map(math.isfinite, numbers))


def _refused(service: str, cell_id: int, status: status_pb2.Status) -> InternalError:
    refusal = error_of(status)
    metrics.DEPENDENCY_ERRORS.labels(service, "CELL_REFUSED").inc()
    message = f"The {service} service refused cell {cell_id} with {refusal.reason}: {refusal.message}"
    return InternalError("INTERNAL", message, metadata={"dependency": service})


def _nonsense(service: str, what: str) -> InternalError:
    metrics.DEPENDENCY_ERRORS.labels(service, "NONSENSE").inc()
    return InternalError("INTERNAL", f"The {service} service answered {what}.", metadata={"dependency": service})
