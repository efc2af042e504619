"""Class names and the columns of the networks' logits, the same for serving and training."""

from __future__ import annotations

from typing import Final

NORMAL: Final = "normal"
BLAST: Final = "blast"
CLASSES: Final = (NORMAL, BLAST)
"""Columns of the logits of every cell network."""
NOTHING: Final = "nothing"
"""A further column: no nucleated cell."""
NORMAL_COLUMN, BLAST_COLUMN, NOTHING_COLUMN = 0, 1, 2

OTHER: Final = "other"
PATCH_LABELS: Final = (BLAST, OTHER)
"""Columns of the logits of a network of patches, independent of each other: blast present, other nucleated cell present."""
