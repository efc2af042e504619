"""Run a command that ends when its parent does: ``python die_with_parent.py PARENT-PID COMMAND...``.

Linux sends SIGTERM to this process, which becomes the command, as soon as the parent is gone, even if it was killed.
Elsewhere the command is run without that.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def bound_to_this_process(command: Sequence[str]) -> list[str]:
    """The command, which ends when this process does."""
    return [sys.executable, "-S", "-E", __file__, str(os.getpid()), *command]


def main() -> None:
    """Entry point."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            raise SystemExit("the parent is gone already")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
