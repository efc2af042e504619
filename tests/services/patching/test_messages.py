"""Tests of messages: activations within bounds, and patches that fit in a message."""

from __future__ import annotations

import numpy as np
import pytest

from dl4all.patching.v1 import patching_pb2
from services.common.checks import MAX_CELLS_PER_CALL
from services.common.errors import InvalidRequestError
from services.common.maps import feature_map_message
from services.patching import messages
from services.patching.crops import MAX_BATCH_BYTES
from services.patching.messages import patches_of_message, read_activations
from services.patching.patches import MAX_PATCHES


def _activations(patches: int, places: int) -> patching_pb2.PatchActivations:
    one = patching_pb2.PatchActivation(x=0, y=0, side=256, activations=feature_map_message(np.zeros((places, places, 2), np.float32)))
    return patching_pb2.PatchActivations(patches=[one] * patches, min_activation=1.0, suppression_radius=10.0)


@pytest.mark.parametrize(("patches", "places"), [(1, 64), (64, 64), (MAX_PATCHES, 8)])
def test_activations_of_networks_are_read(patches: int, places: int) -> None:
    assert len(read_activations(_activations(patches, places)).patches) == patches


@pytest.mark.parametrize(("patches", "places"), [(1, 65), (65, 64), (MAX_PATCHES + 1, 1)])
def test_more_are_refused_before_they_are_read(patches: int, places: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "read_feature_map", None)
    with pytest.raises(InvalidRequestError) as caught:
        read_activations(_activations(patches, places))
    assert caught.value.reason == "ACTIVATIONS_INVALID"


@pytest.mark.parametrize("side", [32, 128, 256, 300, 1024, 4096])
def test_a_message_of_patches_is_bounded(side: int) -> None:
    count = patches_of_message(side)
    assert 1 <= count <= MAX_CELLS_PER_CALL
    assert count * 3 * side**2 <= max(MAX_BATCH_BYTES, 3 * side**2)
    assert patches_of_message(256) == MAX_CELLS_PER_CALL
