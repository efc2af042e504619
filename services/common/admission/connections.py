"""End the connection of a peer. gRPC has no call for it, and a call whose answer is not read ends in no other way."""

from __future__ import annotations

import os
import re
import socket
import stat
from contextlib import closing, suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote

_PEER: Final = re.compile(r"ipv[46]:\[?([^\]]*)\]?:(\d+)")
_DESCRIPTORS: Final = Path("/proc/self/fd")


def disconnect(peer: str) -> bool:
    """Shut down the TCP connection of this process to a peer; all calls on it end.

    Args:
        peer: address as ``ServicerContext.peer`` gives it, such as ``ipv4:10.0.0.7:40120``.

    Returns:
        Whether there was one. False where the peer uses a Unix socket, or on systems without ``/proc``.
    """
    found = _PEER.fullmatch(unquote(peer))
    if found is None or not _DESCRIPTORS.is_dir():
        return False
    host, port = found[1].partition("%")[0], int(found[2])
    return any(_shut_down(int(entry.name), host, port) for entry in list(_DESCRIPTORS.iterdir()))


def _shut_down(descriptor: int, host: str, port: int) -> bool:
    with suppress(OSError):
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return False
        with closing(socket.socket(fileno=os.dup(descriptor))) as connection:
            if connection.getpeername()[:2] in ((host, port), (f"::ffff:{host}", port)):
                connection.shutdown(socket.SHUT_RDWR)
                return True
    return False
