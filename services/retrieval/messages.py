"""Confirmed cells out of messages of the contract, checked before any is kept."""

from __future__ import annotations

import math
import re
from typing import Final

import numpy as np

from dl4all.retrieval.v1 import retrieval_pb2
from services.common.arrays import patches_from_bytes
from services.common.errors import InvalidRequestError
from services.retrieval.additions import NewReference
from services.retrieval.library import ReferenceLibrary

MAX_REFERENCES: Final = 256
_MAX_TEXT: Final = 128
_MAX_REASON: Final = 1000
_SHA256: Final = re.compile("[0-9a-f]{64}")
_SOURCE: Final = re.compile("[!-.0-~][ -.0-~]*")
"""Printable ASCII without a slash, which parts the source from the rest of a reference's identifier."""


def read_references(request: retrieval_pb2.AddReferencesRequest, library: ReferenceLibrary) -> list[NewReference]:
    """The cells of a request.

    Raises:
        InvalidRequestError: a field is missing, too long or makes no sense; none of the cells is kept.
    """
    _check_text(request.idempotency_key, "idempotency_key")
    _check_text(request.confirmed_by, "confirmed_by")
    _check_text(request.source, "source")
    if _SOURCE.fullmatch(request.source) is None:
        raise InvalidRequestError("TEXT_INVALID", "source takes printable ASCII characters without a slash.", field="source")
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
    _check_text(request.withdrawn_by, "withdrawn_by")
    _check_text(request.reason, "reason", _MAX_REASON)


def _read_reference(reference: retrieval_pb2.NewReference, library: ReferenceLibrary) -> NewReference:
    _check_text(reference.cell_class, "references.cell_class")
    _check_text(reference.patient, "references.patient")
    if _SHA256.fullmatch(reference.image_sha256) is None:
        raise InvalidRequestError("SHA256_INVALID", "image_sha256 takes 64 hexadecimal digits.", field="references.image_sha256")
    place = (reference.center_x, reference.center_y, reference.radius)
    if not all(map(math.isfinite, place)) or reference.radius <= 0:
        raise InvalidRequestError("CELL_NOT_FINITE", "Centre and radius must be finite, and the radius above 0.", field="references.radius")
    embedding = np.array(reference.embedding, np.float32)
    if len(embedding) != library.dimension or not np.isfinite(embedding).all() or not embedding.any():
        raise InvalidRequestError(
            "EMBEDDING_INVALID", f"Embeddings of this release have {library.dimension} finite numbers, not all 0.", field="references.embedding"
        )
    places = library.patches.shape[1:3]
    if (reference.rows, reference.columns) != places:
        raise InvalidRequestError(
            "PATCHES_WRONG_SIZE", f"Patch embeddings of this release have {places[0]} x {places[1]} places.", field="references.rows"
        )
    patches = patches_from_bytes(reference.patch_embeddings, reference.rows, reference.columns, library.dimension, "references.patch_embeddings")
    return NewReference(reference.is_blast, reference.cell_class, reference.patient, embedding, patches, reference.image_sha256, *place)


def _check_text(text: str, field: str, longest: int = _MAX_TEXT) -> None:
    if not 1 <= len(text) <= longest or not text.isprintable() or not text.strip():
        raise InvalidRequestError("TEXT_INVALID", f"{field} takes 1..{longest} printable characters.", field=field)
