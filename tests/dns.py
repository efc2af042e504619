"""A small real DNS server for tests: A records of names under ``test``, changed while it runs."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
from collections.abc import Mapping

_TYPE_A = 1
_HEADER = struct.Struct(">HHHHHH")


class DnsServer:
    """Answers on a UDP port of the loopback.

    Attributes:
        records: addresses by name; may be replaced at any time.
        port: where it listens.
    """

    def __init__(self, records: Mapping[str, list[str]]) -> None:
        self.records = dict(records)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> DnsServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def target(self, name: str, port: int) -> str:
        """gRPC target of a name that this server knows."""
        return f"dns://127.0.0.1:{self.port}/{name}:{port}"

    def _serve(self) -> None:
        while True:
            try:
                query, sender = self._socket.recvfrom(512)
                self._socket.sendto(self._answer(query), sender)
            except OSError:
                return

    def _answer(self, query: bytes) -> bytes:
        identifier = _HEADER.unpack(query[:12])[0]
        labels, position = [], 12
        while query[position]:
            labels.append(query[position + 1 : position + 1 + query[position]].decode())
            position += 1 + query[position]
        question = query[12 : position + 5]
        name, kind = ".".join(labels).lower(), struct.unpack(">H", query[position + 1 : position + 3])[0]
        known = name in self.records
        addresses = self.records.get(name, []) if kind == _TYPE_A else []
        header = _HEADER.pack(identifier, 0x8580 if known else 0x8583, 1, len(addresses), 0, 0)
        records = b"".join(struct.pack(">HHHIH", 0xC00C, _TYPE_A, 1, 0, 4) + ipaddress.IPv4Address(a).packed for a in addresses)
        return header + question + records
