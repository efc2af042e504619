"""Requests of the SDK: one that makes no sense is refused before it is sent."""

from __future__ import annotations

import io
from typing import Any, cast

import pytest

from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all_client import diagnose_request, finding_name
from dl4all_client.requests import slide_requests, slide_start


def test_what_makes_no_sense_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ValueError, match="auto, cell, field"):
        diagnose_request(b"", kind=cast(Any, "smear"))
    for given in ({}, {"path": "a", "upload_bytes": 3}):
        with pytest.raises(ValueError, match="either path or upload_bytes"):
            slide_start(**cast(Any, given))


def test_a_slide_on_the_service_has_no_chunks() -> None:
    assert len(list(slide_requests(slide_start(path="a")))) == 1
    assert len(list(slide_requests(slide_start(upload_bytes=3), io.BytesIO(b"abc")))) == 2


def test_findings_are_named_without_prefix() -> None:
    assert finding_name(diagnosis_pb2.FINDING_NO_BLASTS_SEEN) == "NO_BLASTS_SEEN"
