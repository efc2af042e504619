"""The connection of a peer is ended, and no other."""

from __future__ import annotations

import socket

import pytest

from services.common.admission.connections import disconnect


@pytest.mark.parametrize(("family", "host", "form"), [(socket.AF_INET, "127.0.0.1", "ipv4:{}:{}"), (socket.AF_INET6, "::1", "ipv6:%5B{}%5D:{}")])
def test_one_connection_of_two_is_ended(family: socket.AddressFamily, host: str, form: str) -> None:
    with socket.create_server((host, 0), family=family) as server:
        clients = [socket.create_connection(server.getsockname()[:2]) for _ in range(2)]
        served = [server.accept()[0] for _ in clients]
        assert disconnect(form.format(host, clients[0].getsockname()[1]))
        clients[0].settimeout(10)
        assert clients[0].recv(1) == b""
        served[1].sendall(b"x")
        assert clients[1].recv(1) == b"x"
        for each in (*clients, *served):
            each.close()


@pytest.mark.parametrize("peer", ["", "unix:/tmp/socket", "ipv4:127.0.0.1:1", "ipv4:127.0.0.1", "nonsense"])
def test_there_is_no_such_connection(peer: str) -> None:
    assert not disconnect(peer)
