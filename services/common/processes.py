"""Whether another process of this machine still runs."""

from __future__ import annotations

import os


def is_alive(process: int) -> bool:
    """Whether a process with this number runs, under any user."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
