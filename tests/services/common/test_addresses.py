"""Hosts and addresses of servers and channels."""

from __future__ import annotations

import socket

import pytest

from dl4all_client import addresses as addresses_of_the_sdk
from services.common.addresses import bare_host, host_and_port, is_of_this_machine, why_not_listening
from services.common.channel import proxy_options

HERE = (
    *("dns:///localhost:50052", "localhost:1", "dns:///[::1]:50052", "127.0.0.5:1", "ipv4:127.0.0.1:1,127.0.0.2:2", "0.0.0.0:1"),
    *("unix:/run/a.sock", "dns:localhost:1", "[::ffff:127.0.0.1]:1"),
)
ELSEWHERE = ("dns:///patching:50052", "triton.example:8001", "ipv4:127.0.0.1:1,10.0.0.1:1", "localhost.example:1", "")


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_host_is_written_with_and_without_brackets(host: str) -> None:
    assert bare_host(host) == "::1"
    assert host_and_port(host, 5) == "[::1]:5"


def test_other_hosts_are_written_as_they_are() -> None:
    assert host_and_port("127.0.0.1", 5) == "127.0.0.1:5"
    assert host_and_port("localhost", 5) == "localhost:5"
    assert host_and_port("unix:/run/a", 5) == "unix:/run/a:5"


@pytest.mark.parametrize("address", HERE)
def test_calls_of_this_machine_go_through_no_proxy(address: str) -> None:
    assert is_of_this_machine(address)
    assert proxy_options(address) == [("grpc.enable_http_proxy", 0)]


@pytest.mark.parametrize("address", ELSEWHERE)
def test_calls_of_others_may(address: str) -> None:
    assert not is_of_this_machine(address)
    assert proxy_options(address) == []


@pytest.mark.parametrize("host", ["no.such.host.invalid", "", "  ", "..", "a b", "203.0.113.5"])
def test_a_host_that_is_not_here_is_told(host: str) -> None:
    reason, words = why_not_listening(host, 0) or ("", "")
    assert reason == "HOST_UNKNOWN"
    assert host in words


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "0.0.0.0", "::"])
def test_a_free_port_of_this_machine_can_be_listened_on(host: str) -> None:
    assert why_not_listening(host, 0) is None


def test_a_taken_port_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = why_not_listening("127.0.0.1", taken.getsockname()[1])
    assert found == ("PORT_TAKEN", "another server runs there; choose another port")


@pytest.mark.parametrize("address", [*HERE, *ELSEWHERE])
def test_the_sdk_which_imports_nothing_of_ours_has_the_same_rule(address: str) -> None:
    assert addresses_of_the_sdk.is_of_this_machine(address) == is_of_this_machine(address)
