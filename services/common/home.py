"""Where releases and models lie: below ``DL4ALL_HOME``, or below the working folder where it is not set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

HOME_VARIABLE: Final = "DL4ALL_HOME"
RELEASES: Final = "releases"
MODEL_REPOSITORY: Final = "model_repository"


def home() -> Path:
    """The folder that holds ``releases`` and ``model_repository``."""
    return Path(os.environ.get(HOME_VARIABLE) or ".")
