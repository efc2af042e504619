"""Addresses: what is one, which belong to this machine, and which proxy a call goes through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dl4all_client import AsyncDiagnosisClient, DiagnosisClient
from dl4all_client.addresses import check_address, is_of_this_machine, proxy_note
from dl4all_client.channel import _options

GOOD = [
    "localhost:50051",
    "127.0.0.1:50051",
    "gateway.example:443",
    "my_host:1",
    "gateway.:50051",
    "[::1]:50051",
    "[fe80::1%eth0]:50051",
    "dns:///gateway:50051",
    "dns://10.0.0.1/gateway:50051",
    "ipv4:10.0.0.1:5,10.0.0.2:5",
    "ipv6:[::1]:5",
    "unix:/run/dl4all.sock",
]


@pytest.mark.parametrize("address", GOOD)
def test_addresses_of_grpc_are_taken(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize(
    ("address", "instead"),
    [
        ("", "HOST:PORT, such as localhost:50051"),
        ("  ", "HOST:PORT, such as localhost:50051"),
        ("http://localhost:50051", "localhost:50051"),
        ("HTTPS://gateway.example:443/", "gateway.example:443"),
        ("grpc://gateway", "gateway:50051"),
        ("localhost", "localhost:50051"),
        ("localhost:", "localhost:50051"),
        ("localhost:50051/diagnose", "localhost:50051"),
        ("localhost:http", "localhost:50051"),
        ("localhost:0", "localhost:50051"),
        ("localhost:70000", "localhost:50051"),
        (":50051", "localhost:50051"),
        ("50051", "localhost:50051"),
        (" localhost:50052 ", "localhost:50052"),
        ("me@gateway:50051", "gateway:50051"),
        ("::1", "[::1]:50051"),
        ("::1:50052", "[::1]:50052"),
        ("[::1]", "[::1]:50051"),
        ("[::1]50051", "[::1]:50051"),
        ("2001:db8::7", "[2001:db8::7]:50051"),
        ("[127.0.0.1]:50051", "127.0.0.1:50051"),
        ("dns:///gateway", "gateway:50051"),
        ("größe:50051", "HOST:50051"),
    ],
)
def test_what_is_no_address_is_refused_with_what_to_write(address: str, instead: str) -> None:
    with pytest.raises(ValueError, match="address") as caught:
        check_address(address)
    message = str(caught.value)
    assert message.endswith(f"write {instead}.")
    assert len(message.splitlines()) == 1


@given(st.text(max_size=30))
def test_whatever_is_written_the_answer_is_one_line(address: str) -> None:
    said = ""
    try:
        check_address(address)
    except ValueError as error:
        said = str(error)
    assert said.isprintable()


@pytest.mark.parametrize("client", [DiagnosisClient, AsyncDiagnosisClient])
async def test_clients_refuse_what_is_no_address(client: type) -> None:
    with pytest.raises(ValueError, match="write localhost:50051"):
        client("http://localhost:50051")


@pytest.mark.parametrize(
    "address",
    [
        *("localhost:1", "LOCALHOST:1", "localhost.:1", "a.localhost:1", "127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"),
        *("0.0.0.0:1", "dns:///localhost:1", "dns:///[::1]:1", "ipv4:127.0.0.1:1,127.0.0.2:1", "unix:/run/a.sock"),
    ],
)
def test_calls_of_this_machine_go_through_no_proxy(address: str) -> None:
    assert is_of_this_machine(address)
    assert ("grpc.enable_http_proxy", 0) in _options(address, None)
    assert proxy_note(address, {"http_proxy": "http://proxy:3128"}) == ""


@pytest.mark.parametrize("address", ["gateway:1", "10.0.0.7:1", "localhost.example:1", "notlocalhost:1", "ipv4:127.0.0.1:1,10.0.0.1:1", "[::2]:1"])
def test_other_calls_may_go_through_a_proxy(address: str) -> None:
    assert not is_of_this_machine(address)
    assert "grpc.enable_http_proxy" not in dict(_options(address, None))
    assert "http_proxy" in proxy_note(address, {"http_proxy": "http://proxy:3128"})


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"http_proxy": "http://p:1"}, "http_proxy"),
        ({"http_proxy": "http://p:1", "https_proxy": "http://p:2"}, "https_proxy"),
        ({"grpc_proxy": "http://p:1", "https_proxy": "http://p:2"}, "grpc_proxy"),
        ({"http_proxy": "http://p:1", "no_proxy": "other,.lab.example"}, "http_proxy"),
        ({"http_proxy": "http://p:1", "no_proxy": "*"}, "http_proxy"),
        ({"http_proxy": "http://p:1", "no_proxy": "example", "no_grpc_proxy": "x"}, "http_proxy"),
        ({}, ""),
        ({"HTTP_PROXY": "http://p:1"}, ""),
        ({"http_proxy": ""}, ""),
        ({"https_proxy": "https://p:1"}, ""),
        ({"http_proxy": "http://p:1", "no_proxy": " gateway.EXAMPLE "}, ""),
        ({"http_proxy": "http://p:1", "no_proxy": ".example"}, ""),
    ],
)
def test_the_variable_that_grpc_reads_is_named_without_what_it_holds(environment: dict[str, str], named: str) -> None:
    note = proxy_note("gateway.example:50051", environment)
    assert (f"the variable {named} names" in note) if named else note == ""
    assert "p:1" not in note


def test_a_network_can_be_excepted() -> None:
    environment = {"http_proxy": "http://p:1", "no_proxy": "10.0.0.0/8"}
    assert proxy_note("10.1.2.3:50051", environment) == ""
    assert proxy_note("11.1.2.3:50051", environment)
