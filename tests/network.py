"""Run a command in a network of its own, in which there is nothing but the loopback: ``python network.py COMMAND...`` inside ``unshare --net``."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from collections.abc import Sequence

_SET_FLAGS = 0x8914
_UP = 0x1


def in_own_network(command: Sequence[str]) -> list[str]:
    """The command, in a network of its own; it needs no rights."""
    return ["unshare", "--map-root-user", "--net", sys.executable, __file__, *command]


if __name__ == "__main__":
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as loopback:
        fcntl.ioctl(loopback, _SET_FLAGS, struct.pack("16sh", b"lo", _UP))
    os.execvp(sys.argv[1], sys.argv[1:])
