"""The HTTP server of the metrics page: a few threads, and a time for every request. Its port has no credentials, and anybody may connect."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from services.common.addresses import bare_host

MAX_REQUESTS: Final = 8
"""Requests that are answered at once, each in a thread; a Prometheus sends one. Connections beyond are closed at once."""
REQUEST_SECONDS: Final = 5.0
"""Seconds for a whole request and its answer; then its connection is closed."""
_LOOK_SECONDS: Final = 0.25


class _SilentHandler(WSGIRequestHandler):
    """Answers without a line in the log."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
        """Log nothing."""


class MetricsServer(WSGIServer):
    """Serves the metrics of a registry to everybody who asks for ``/metrics``.

    Args:
        host: address to listen on.
        port: 0 for any free one.
        registry: the metrics.
        seconds: for a whole request and its answer.

    Raises:
        OSError: the port is taken.
    """

    request_queue_size = 32

    def __init__(self, host: str, port: int, registry: CollectorRegistry, seconds: float = REQUEST_SECONDS) -> None:
        found = socket.getaddrinfo(bare_host(host), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, self._seconds = found[0][0], seconds
        self._ends: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__((str(found[0][4][0]), port), _SilentHandler)
        self.set_app(make_wsgi_app(registry))
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": _LOOK_SECONDS}, name="dl4all-metrics", daemon=True)

    @property
    def under_way(self) -> int:
        """Requests that are read or answered now."""
        with self._lock:
            return len(self._ends)

    def start(self) -> None:
        """Serve from a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close the port."""
        self.shutdown()
        self.server_close()
        self._thread.join()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a request in a thread, or close its connection where as many are under way as are answered at once."""
        with self._lock:
            is_room = len(self._ends) < MAX_REQUESTS
            if is_room:
                self._ends[request] = time.monotonic() + self._seconds
        if not is_room:
            self.shutdown_request(request)
            return
        try:
            threading.Thread(target=self._answer, args=(request, client_address), name="dl4all-metrics-request", daemon=True).start()
        except RuntimeError:  # the system gives no further thread
            self._forget(request)

    def service_actions(self) -> None:
        """Close the connections whose time is over: their threads then end."""
        now = time.monotonic()
        with self._lock:
            for request, end in self._ends.items():
                if now > end:
                    _cut(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that goes away is no error of the server."""

    def _answer(self, request: socket.socket, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception:  # whatever a caller sends or stops sending ends its own request only
            self.handle_error(request, client_address)
        finally:
            self._forget(request)

    def _forget(self, request: socket.socket) -> None:
        with self._lock:
            self._ends.pop(request, None)
        self.shutdown_request(request)


def _cut(request: socket.socket) -> None:
    with suppress(OSError):  # it is closed already
        request.shutdown(socket.SHUT_RDWR)
