"""How slow an upload may be."""

from __future__ import annotations

import pytest

from services.common.errors import InvalidRequestError
from services.patching.upload_rate import UploadRate


def test_a_byte_now_and_then_ends_within_the_grace() -> None:
    rate = UploadRate(1000, grace=15.0, longest=60.0)
    for _ in range(2):
        rate.note(5.0, 1)
    rate.note(4.9, 1)
    with pytest.raises(InvalidRequestError) as caught:
        rate.note(5.0, 1)
    assert (caught.value.reason, caught.value.field) == ("UPLOAD_TOO_SLOW", "chunk")


def test_the_least_rate_goes_on_for_ever() -> None:
    rate = UploadRate(1000, grace=15.0, longest=60.0)
    for _ in range(10_000):
        rate.note(1.0, 1000)
    assert rate.patience > 0.0


def test_an_upload_that_was_fast_may_pause_as_long_as_the_longest_pause_and_no_longer() -> None:
    rate = UploadRate(1000, grace=15.0, longest=60.0)
    assert rate.patience == 15.0
    rate.note(0.1, 10_000_000)
    assert rate.patience == 60.0
    rate.note(59.0, 1)
    with pytest.raises(InvalidRequestError):
        rate.note(2.0, 1)


def test_without_a_least_rate_only_the_longest_pause_counts() -> None:
    rate = UploadRate(0, grace=15.0, longest=60.0)
    for _ in range(100):
        rate.note(59.0, 1)
    assert rate.patience == 60.0
