"""What the programs of training share: one name on the command line, and one line for what a user can put right."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from services.common.errors import DomainError
from training.errors import TrainingError

Given = ParamSpec("Given")
Status = TypeVar("Status")


def program_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of the program that users call as `dl4all study NAME`; the description is shown as it is written."""
    return argparse.ArgumentParser(prog=f"dl4all study {name}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def explained(main: Callable[Given, Status]) -> Callable[Given, Status]:
    """Tell wrong data, releases and files in words instead of a traceback; an interruption ends with status 130."""

    @wraps(main)
    def told(*args: Given.args, **kwargs: Given.kwargs) -> Status:
        try:
            return main(*args, **kwargs)
        except (TrainingError, DomainError, OSError) as error:
            raise SystemExit(f"failed: {error}") from error
        except KeyboardInterrupt as error:
            raise SystemExit(130) from error

    return told
