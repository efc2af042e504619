"""The metrics page: answered to whoever asks as a Prometheus does; half requests take neither threads nor time without end."""

from __future__ import annotations

import gzip
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
from prometheus_client import CollectorRegistry, Counter

from services.common.metrics_server import MAX_REQUESTS, MetricsServer


@pytest.fixture
def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    Counter("things", "Things.", registry=made).inc(3)
    return made


@pytest.fixture
def server(registry: CollectorRegistry) -> Iterator[MetricsServer]:
    made = MetricsServer("127.0.0.1", 0, registry, seconds=0.5)
    made.start()
    yield made
    made.stop()


def _page(server: MetricsServer, **headers: str) -> tuple[bytes, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{server.server_port}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read(), answer.headers["Content-Type"]


def _until(condition: object) -> None:
    end = time.monotonic() + 20
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_page_is_what_a_prometheus_reads(server: MetricsServer) -> None:
    page, kind = _page(server)
    assert b"things_total 3.0" in page
    assert kind.startswith("text/plain")
    assert b"things_total 3.0" in gzip.decompress(_page(server, **{"Accept-Encoding": "gzip"})[0])
    page, kind = _page(server, Accept="application/openmetrics-text; version=1.0.0")
    assert page.endswith(b"# EOF\n")
    assert kind.startswith("application/openmetrics-text")


def test_half_requests_take_few_threads_and_the_others_are_closed_at_once(server: MetricsServer) -> None:
    server._seconds = 600.0
    before = threading.active_count()
    with ExitStack() as stack:
        half = [stack.enter_context(closing(socket.create_connection(("127.0.0.1", server.server_port), 20))) for _ in range(60)]
        for one in half[:MAX_REQUESTS]:
            one.sendall(b"GET /metr")
        refused = 0
        for one in half[MAX_REQUESTS:]:
            one.settimeout(20)
            refused += _ends(one)
        assert refused == len(half) - MAX_REQUESTS
        assert server.under_way == MAX_REQUESTS
        assert threading.active_count() - before <= MAX_REQUESTS
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            _page(server)
    _until(lambda: server.under_way == 0)
    assert b"things_total" in _page(server)[0]


def _ends(one: socket.socket) -> bool:
    try:
        return one.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("drip", [False, True], ids=["silent", "a byte now and then"])
def test_a_request_that_does_not_come_to_its_end_is_closed(server: MetricsServer, drip: bool) -> None:
    with closing(socket.create_connection(("127.0.0.1", server.server_port), 20)) as one:
        one.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        _until(lambda: server.under_way == 1)

        def closed() -> bool:
            try:
                if drip:
                    one.sendall(b"x")
            except ConnectionError:
                return True
            return server.under_way == 0

        _until(closed)
    assert b"things_total" in _page(server)[0]


def test_a_taken_port_is_an_error_and_a_stopped_server_frees_it(registry: CollectorRegistry) -> None:
    first = MetricsServer("localhost", 0, registry)
    first.start()
    with pytest.raises(OSError, match="in use"):
        MetricsServer("localhost", first.server_port, registry)
    first.stop()
    MetricsServer("localhost", first.server_port, registry).server_close()


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_it_listens_on_ipv6(registry: CollectorRegistry, host: str) -> None:
    server = MetricsServer(host, 0, registry)
    server.start()
    try:
        with urllib.request.urlopen(f"http://[::1]:{server.server_port}/metrics", timeout=20) as answer:
            assert b"things_total 3.0" in answer.read()
    finally:
        server.stop()
