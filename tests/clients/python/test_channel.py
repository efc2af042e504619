"""Channels of the SDK: TLS from the environment, limits, and retries of unanswered calls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dl4all_client import Tls
from dl4all_client.channel import MAX_MESSAGE_BYTES, _options


def test_without_an_authority_there_is_no_tls() -> None:
    assert Tls.from_environment({}) is None
    assert Tls.from_environment({"DL4ALL_TLS_CA": "", "DL4ALL_TLS_KEY": "k"}) is None


def test_tls_is_read_from_the_variables_of_the_services() -> None:
    names = {"CA": "ca.pem", "CERTIFICATE": "c.pem", "KEY": "k.pem", "SERVER_NAME": "gateway"}
    tls = Tls.from_environment({f"DL4ALL_TLS_{name}": value for name, value in names.items()})
    assert tls == Tls(Path("ca.pem"), Path("c.pem"), Path("k.pem"), "gateway")
    assert ("grpc.ssl_target_name_override", "gateway") in _options("gateway:50051", tls)


@pytest.mark.parametrize("half", ["CERTIFICATE", "KEY"])
def test_a_certificate_and_its_key_come_together(half: str) -> None:
    with pytest.raises(ValueError, match="incomplete"):
        Tls.from_environment({"DL4ALL_TLS_CA": "ca.pem", f"DL4ALL_TLS_{half}": "x"})


def test_a_file_that_is_not_there_is_said() -> None:
    with pytest.raises(OSError, match=r"nowhere\.pem"):
        Tls(Path("nowhere.pem")).credentials()


def test_messages_have_the_limit_of_the_services_and_retries_a_budget() -> None:
    options = dict(_options("gateway:50051", None))
    assert options["grpc.max_send_message_length"] == options["grpc.max_receive_message_length"] == MAX_MESSAGE_BYTES
    config = json.loads(options["grpc.service_config"])
    assert config["loadBalancingConfig"] == [{"round_robin": {}}]
    (method,) = config["methodConfig"]
    assert set(method["retryPolicy"]["retryableStatusCodes"]) == {"UNAVAILABLE", "CANCELLED"}
    assert config["retryThrottling"]["maxTokens"] > 0
