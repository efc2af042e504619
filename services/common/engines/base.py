"""What an inference engine is to the rest: a batch of registered cells in, named arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from services.common.releases import Model, Role

LOGITS: Final = "logits"
EMBEDDING: Final = "embedding"
PLACE_EMBEDDINGS: Final = "patch_embeddings"
"""Embeddings by place of the feature map. The output has an older name in the files of the models that are shipped."""
CLASS_ACTIVATIONS: Final = "class_activations"


class InferenceEngine(Protocol):
    """Runs the models of a model repository."""

    @property
    def name(self) -> str:
        """``onnxruntime`` or ``triton``."""

    @property
    def role(self) -> Role:
        """What it runs on; it serves the file that a release names for that role."""

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
            outputs: which of logits (N, classes), embedding (N, D), place embeddings (N, h, w, D) and, where it has them, class_activations
                (N, h, w, classes) are wanted of a cell network, of logits (N, 2), class_activations (N, h, w, 2) of a network of patches.
            timeout: seconds that the caller has left; None for no limit.

        Returns:
            The outputs by name.

        Raises:
            DependencyUnavailableError: the engine or the model is not there.
            DeadlineError: the time is over.
            InternalError: the engine failed, or answered what the model cannot say.
        """

    async def close(self) -> None:
        """Let go of connections."""
