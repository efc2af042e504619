"""Settings of property tests: few examples, always the same, in an ordinary run; many, drawn anew, where ``make fuzz`` runs them."""

from __future__ import annotations

import os
from typing import Final

import hypothesis

_FUZZ: Final = int(os.environ.get("DL4ALL_FUZZ_EXAMPLES", "0"))

hypothesis.settings.register_profile("dl4all", max_examples=_FUZZ or 100, deadline=None, derandomize=not _FUZZ)
hypothesis.settings.load_profile("dl4all")


def examples(usual: int) -> int:
    """Examples of a property: ``usual`` in an ordinary run, more where properties are fuzzed."""
    return max(usual, _FUZZ)
