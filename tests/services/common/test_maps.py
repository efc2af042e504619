"""Maps over the wire: a written map is read back, and a malformed one is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dl4all.imaging.v1 import imaging_pb2
from services.common.errors import InvalidRequestError
from services.common.maps import feature_map_message, float_map_message, heatmap_message, read_feature_map

HALVES = arrays.arrays(np.float16, st.tuples(*[st.integers(1, 4)] * 3), elements=st.floats(width=16, allow_nan=False, allow_infinity=False))


@given(HALVES)
def test_a_feature_map_in_half_precision_survives(values: np.ndarray) -> None:  # type: ignore[type-arg]
    message = feature_map_message(values.astype(np.float32))
    assert (message.height, message.width, message.channels) == values.shape
    np.testing.assert_array_equal(read_feature_map(message, values.shape[2], "places"), values.astype(np.float32))


def test_what_half_precision_cannot_hold_is_clipped() -> None:
    message = feature_map_message(np.array([[[1e6, -1e6]]], np.float32))
    assert read_feature_map(message, 2, "places").tolist() == [[[65504.0, -65504.0]]]


@pytest.mark.parametrize(
    "changed",
    [{"height": 0}, {"height": 2}, {"width": -1}, {"channels": 1}, {"values": b"x"}, {"value_type": imaging_pb2.VALUE_TYPE_UINT8}],
)
def test_a_map_that_does_not_fit_is_refused_with_its_field(changed: dict[str, object]) -> None:
    message = feature_map_message(np.zeros((1, 1, 2), np.float32))
    for name, value in changed.items():
        setattr(message, name, value)
    with pytest.raises(InvalidRequestError) as caught:
        read_feature_map(message, 2, "places")
    assert (caught.value.reason, caught.value.field) == ("MAP_WRONG_SIZE", "places")


def test_values_that_are_no_numbers_are_refused() -> None:
    message = imaging_pb2.SpatialMap(
        height=1, width=1, channels=1, value_type=imaging_pb2.VALUE_TYPE_FLOAT16, values=np.array([np.nan], "<f2").tobytes()
    )
    with pytest.raises(InvalidRequestError) as caught:
        read_feature_map(message, 1, "places")
    assert caught.value.reason == "NOT_FINITE"


def test_heatmaps_and_measured_maps_say_their_type_and_their_size() -> None:
    heat = heatmap_message(np.arange(6, dtype=np.uint8).reshape(2, 3))
    assert (heat.height, heat.width, heat.channels, heat.value_type, heat.values) == (2, 3, 1, imaging_pb2.VALUE_TYPE_UINT8, bytes(range(6)))
    blur = float_map_message(np.array([[1.5, np.nan]], np.float32))
    assert (blur.value_type, blur.channels) == (imaging_pb2.VALUE_TYPE_FLOAT32, 1)
    np.testing.assert_array_equal(np.frombuffer(blur.values, "<f4"), np.array([1.5, np.nan], np.float32))
