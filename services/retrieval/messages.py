"""Read confirmed cells from messages of the contract; all are checked before any is kept."""

from __future__ import annotations

import math
import re
from typing import Final

import numpy as np

from dl4all.retrieval.v1 import retrieval_pb2
from services.common.checks import MAX_NAME, MAX_REFERENCES, check_source, check_text
from services.common.errors import InvalidRequestError
from services.common.maps import read_feature_map
from services.retrieval.additions import NewReference
from services.retrieval.library import ReferenceLibrary

_MAX_REASON: Final = 1000
_SHA256: Final = re.compile("[0-9a-f]{64}")


def read_references(request: retrieval_pb2.AddReferencesRequest, library: ReferenceLibrary) -> list[NewReference]:
    """The cells of a request.

    Raises:
        InvalidRequestError: a field is missing, too long or makes no sense; none of the cells is kept.
    """
    check_text(request.idempotency_key, "idempotency_key")
    check_text(request.confirmed_by, "confirmed_by")
    check_source(request.source)
    if request.verified_as:
        check_text(request.verified_as, "verified_as", MAX_NAME)
    if not 1 <= len(request.references) <= MAX_REFERENCES:
        raise InvalidRequestError("BATCH_SIZE_OUT_OF_RANGE", f"references takes 1..{MAX_REFERENCES} entries.", field="references")
    return [_read_reference(reference, library) for reference in request.references]


def check_withdrawal(request: retrieval_pb2.WithdrawReferencesRequest) -> None:
    """Refuse a withdrawal without additions, author or reason.

    Raises:
        InvalidRequestError: BATCH_SIZE_OUT_OF_RANGE or TEXT_INVALID.
    """
    if not 1 <= len(request.addition_ids) <= MAX_REFERENCES:
        raise InvalidRequestError("BATCH_SIZE_OUT_OF_RANGE", f"addition_ids takes 1..{MAX_REFERENCES} entries.", field="addition_ids")
    check_text(request.withdrawn_by, "withdrawn_by")
    check_text(request.reason, "reason", _MAX_REASON)


def _read_reference(reference: retrieval_pb2.NewReference, library: ReferenceLibrary) -> NewReference:
    check_text(reference.cell_class, "references.cell_class")
    check_text(reference.patient, "references.patient")
    if _SHA256.fullmatch(reference.image_sha256) is None:
        raise InvalidRequestError("SHA256_INVALID", "image_sha256 takes 64 hexadecimal digits.", field="references.image_sha256")
    position = (reference.center_x, reference.center_y, reference.radius)
    if not all(map(math.isfinite, position)) or reference.radius <= 0:
        raise InvalidRequestError("CELL_NOT_FINITE", "Centre and radius must be finite, and the radius above 0.", field="references.radius")
    embedding = np.array(reference.embedding, np.float32)
    if len(embedding) != library.dimension or not np.isfinite(embedding).all() or not embedding.any():
        raise InvalidRequestError(
            "EMBEDDING_INVALID", f"Embeddings of this release have {library.dimension} finite numbers, not all 0.", field="references.embedding"
        )
    height, width = library.place_embeddings.shape[1:3]
    if (reference.place_embeddings.height, reference.place_embeddings.width) != (height, width):
        message = f"Place embeddings of this release have {height} x {width} places."
        raise InvalidRequestError("MAP_WRONG_SIZE", message, field="references.place_embeddings")
    places = read_feature_map(reference.place_embeddings, library.dimension, "references.place_embeddings")
    return NewReference(reference.is_blast, reference.cell_class, reference.patient, embedding, places, reference.image_sha256, *position)
