"""What every command line of this folder does with what a user can put right: one line, exit status 1."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from services.common.errors import DomainError
from training.errors import TrainingError


def explained(main: Callable[[], None]) -> Callable[[], None]:
    """Tell wrong data, releases and files in words instead of a traceback; an interruption ends with status 130."""

    @wraps(main)
    def told() -> None:
        try:
            main()
        except (TrainingError, DomainError, OSError) as error:
            raise SystemExit(f"failed: {error}") from error
        except KeyboardInterrupt as error:
            raise SystemExit(130) from error

    return told
