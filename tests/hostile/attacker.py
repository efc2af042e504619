"""An attacker who speaks HTTP/2 by hand: half messages, answers that nobody reads, many calls on one connection."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType

import h2.config
import h2.connection
import h2.events
import h2.exceptions

DIAGNOSIS = "/dl4all.diagnosis.v1.DiagnosisService"
_PATIENCE = 0.25
_WAITS = 8
"""So often in a row a sender waits for room."""


def framed(message: bytes, announced: int | None = None) -> bytes:
    """A message as gRPC frames it; ``announced`` is the length that its prefix claims."""
    return b"\0" + struct.pack(">I", len(message) if announced is None else announced) + message


class Attacker:
    """One connection.

    Args:
        address: ``host:port`` of the victim.
        reads: whether answers are read; without, the windows of the victim fill up.
    """

    def __init__(self, address: str, *, reads: bool = True) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10.0)
        self._socket.settimeout(_PATIENCE)
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self._http.initiate_connection()
        self._reads = reads
        self.statuses: dict[int, str] = {}
        self.closed = False
        self._flush()

    def __enter__(self) -> Attacker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()

    def call(self, method: str, *headers: tuple[str, str]) -> int:
        """Send the headers of a call; returns its number."""
        number = self._http.get_next_available_stream_id()
        usual = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "victim"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
        self._http.send_headers(number, [*usual, *headers])
        self._flush()
        return number

    def send(self, number: int, data: bytes, *, end: bool = False) -> int:
        """Send data as far as the victim's windows let; returns how many bytes went."""
        sent, waited = 0, 0
        while sent < len(data) and waited < _WAITS and not self.closed and number not in self.statuses:
            room = min(self._http.local_flow_control_window(number), self._http.max_outbound_frame_size, len(data) - sent)
            if room <= 0:
                waited += not self.listen()
                continue
            self._attempt(partial(self._http.send_data, number, data[sent : sent + room]))
            sent += room
            waited = 0
        if end and sent == len(data):
            self._attempt(partial(self._http.end_stream, number))
        return sent

    def listen(self, seconds: float = 0.0) -> bool:
        """Take in what came; returns whether anything did."""
        until, seen = time.monotonic() + seconds, False
        while not self.closed:
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                data = None
            except OSError:
                data = b""
            if data == b"":
                self.closed = True
            elif data:
                seen = True
                self._take(data)
            if time.monotonic() >= until:
                break
        return seen

    def _take(self, data: bytes) -> None:
        for event in self._http.receive_data(data):
            match event:
                case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                    for name, value in event.headers or []:
                        if bytes(name) == b"grpc-status" and event.stream_id is not None:
                            self.statuses[event.stream_id] = bytes(value).decode()
                case h2.events.StreamReset():
                    self.statuses.setdefault(event.stream_id, "reset")
                case h2.events.DataReceived() if self._reads:
                    self._attempt(partial(self._http.acknowledge_received_data, event.flow_controlled_length, event.stream_id))
                case h2.events.ConnectionTerminated():
                    self.closed = True
        self._flush()

    def _attempt(self, step: Callable[[], object]) -> None:
        """The victim may have ended the stream in the meantime."""
        try:
            step()
        except (h2.exceptions.StreamClosedError, h2.exceptions.ProtocolError):
            return
        self._flush()

    def _flush(self) -> None:
        data = self._http.data_to_send()
        try:
            while data:
                data = data[self._socket.send(data) :]
        except TimeoutError:
            self.closed = True
        except OSError:
            self.closed = True
