"""Interface of an inference engine: it takes a batch of registered cells and returns named arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from services.common.releases import Model, Role

LOGITS: Final = "logits"
EMBEDDING: Final = "embedding"
PLACE_EMBEDDINGS: Final = "patch_embeddings"
"""Embeddings by place of the feature map. The output has an older name in the files of the shipped models."""
CLASS_ACTIVATIONS: Final = "class_activations"


class InferenceEngine(Protocol):
    """Runs the models of a model repository."""

    @property
    def name(self) -> str:
        """``onnxruntime`` or ``triton``."""

    @property
    def role(self) -> Role:
        """Hardware that it runs on; it serves the file that a release names for this role."""

    def served_sha256(self, model: Model) -> str:
        """SHA-256 of the file that this engine serves for a model."""

    async def is_ready(self, model: Model) -> bool:
        """Whether this very model can be run now."""

    async def infer(
        self, model: Model, images: NDArray[np.uint8], outputs: Sequence[str], timeout: float | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Run a model on a batch.

        Args:
            model: model of a release.
            images: uint8 (N, side, side, 3).
            outputs: names of the wanted outputs. A cell network has logits (N, classes), embedding (N, D), place embeddings (N, h, w, D) and, in
                some releases, class_activations (N, h, w, classes). A network of patches has logits (N, 2) and class_activations (N, h, w, 2).
            timeout: seconds until the caller's deadline; None for no limit.

        Returns:
            The outputs by name.

        Raises:
            DependencyUnavailableError: the engine or the model is not there.
            DeadlineError: the deadline has passed.
            InternalError: the engine failed, or its answer does not fit the model.
        """

    async def close(self) -> None:
        """Close connections."""
