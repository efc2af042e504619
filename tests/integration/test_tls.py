"""TLS and mutual TLS between all parts: right certificates pass, all others are refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from typer.testing import CliRunner

from clients.cli.main import app
from clients.cli.stack.parts import Ports, service_part
from dl4all_client import DiagnosisClient, Reference, Tls
from dl4all_client.channel import open_channel
from services.common.health import release_name
from services.common.parts import SERVICES, TRITON
from services.retrieval.additions import AdditionStore
from tests.paths import ROOT
from tests.running import TEST_SETTINGS, Running, Stack, eventually

PARTS = (*SERVICES, TRITON)
CLIENT_NAME = "dl4all-client"

DEFAULT_RELEASE = "plain-resnet-1"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates that the script made, as for a user."""
    folder = tmp_path_factory.mktemp("certificates")
    script = ROOT / "deploy" / "tls" / "make_certificates.py"
    subprocess.run([sys.executable, str(script), str(folder), "--wrong"], check=True)
    return folder


def settings(certificates: Path, pair: str = "server", ca: str = "ca", *, mutual: bool = True) -> dict[str, str]:
    return {
        "DL4ALL_TLS_CA": str(certificates / f"{ca}.pem"),
        "DL4ALL_TLS_CERTIFICATE": str(certificates / f"{pair}.pem"),
        "DL4ALL_TLS_KEY": str(certificates / f"{pair}.key"),
        "DL4ALL_TLS_MUTUAL": str(mutual).lower(),
    }


def client(certificates: Path, pair: str | None = "client", ca: str = "ca") -> Tls:
    certificate, key = (None, None) if pair is None else (certificates / f"{pair}.pem", certificates / f"{pair}.key")
    return Tls(certificates / f"{ca}.pem", certificate, key)


@pytest.fixture(scope="module")
def secured(triton_installed: None, certificates: Path) -> Iterator[Stack]:
    """Five services and a Triton, mutual TLS on every hop."""
    own = {"retrieval": {"DL4ALL_RETRIEVAL_ADDITIONS": str(certificates / "additions.sqlite")}}
    made = Stack.make(settings(certificates), own, tls=client(certificates))
    try:
        yield made.start()
    finally:
        made.end()


def test_a_diagnosis_over_mutual_tls_on_every_hop(secured: Stack, certificates: Path, phantom_field: bytes) -> None:
    with DiagnosisClient(secured["gateway"].address, tls=client(certificates)) as right:
        diagnosis = right.diagnose(phantom_field)
    assert diagnosis.cells
    assert diagnosis.provenance.engine == "triton"


def test_confirmed_cells_are_kept_with_the_name_in_the_certificate(secured: Stack, certificates: Path, phantom_cell: bytes) -> None:
    with DiagnosisClient(secured["gateway"].address, tls=client(certificates)) as right:
        right.add_references([Reference(phantom_cell, False, "lymphocyte", "P1")], source="lab", confirmed_by="Dr A", idempotency_key="k")
    (kept,) = AdditionStore(certificates / "additions.sqlite").read()
    assert (kept.confirmed_by, kept.verified_as) == ("Dr A", CLIENT_NAME)


def test_the_command_line_takes_the_same_variables(secured: Stack, certificates: Path, phantom_cell: bytes, tmp_path: Path) -> None:
    image = tmp_path / "cell.png"
    image.write_bytes(phantom_cell)
    arguments = ["diagnose", str(image), "--address", secured["gateway"].address, "--json"]
    assert CliRunner().invoke(app, arguments, env=settings(certificates, "client")).exit_code == 0
    refused = CliRunner().invoke(app, arguments, env={"DL4ALL_TLS_CA": str(certificates / "other-ca.pem")})
    assert refused.exit_code == 1
    assert "UNAVAILABLE" in refused.stdout


def _refused(call: object) -> bool:
    try:
        call()  # type: ignore[operator]
    except grpc.RpcError as error:
        return error.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
    return False


def _ping(channel: grpc.Channel, part: str) -> None:
    """The simplest RPC that a part has."""
    if part == TRITON:
        cast(Any, channel.unary_unary("/inference.GRPCInferenceService/ServerLive"))(b"", timeout=10)
    else:
        cast(Any, health_pb2_grpc.HealthStub(channel)).Check(health_pb2.HealthCheckRequest(service="live"), timeout=10)


@pytest.mark.parametrize("part", PARTS)
def test_the_right_client_is_let_in(secured: Stack, certificates: Path, part: str) -> None:
    with open_channel(secured[part].address, client(certificates)) as channel:
        _ping(channel, part)


@pytest.mark.parametrize("part", PARTS)
def test_plaintext_is_refused(secured: Stack, part: str) -> None:
    with grpc.insecure_channel(secured[part].address) as channel:
        assert _refused(lambda: _ping(channel, part))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("pair", [None, "stranger", "expired"])
def test_a_client_without_a_good_certificate_is_refused(secured: Stack, certificates: Path, part: str, pair: str | None) -> None:
    with open_channel(secured[part].address, client(certificates, pair)) as channel:
        assert _refused(lambda: _ping(channel, part))


@pytest.mark.parametrize("part", PARTS)
def test_a_client_refuses_a_server_of_another_authority(secured: Stack, certificates: Path, part: str) -> None:
    with open_channel(secured[part].address, client(certificates, ca="other-ca")) as channel:
        assert _refused(lambda: _ping(channel, part))


@pytest.mark.parametrize("pair", ["expired", "other-name", "stranger"])
def test_a_server_with_a_bad_certificate_is_refused_by_clients_and_by_the_gateway(certificates: Path, pair: str) -> None:
    ports = Ports.free()
    patching = Running(service_part("patching", ports, {**TEST_SETTINGS, **settings(certificates, pair, mutual=False)})).start()
    gateway = Running(service_part("gateway", ports, {**TEST_SETTINGS, **settings(certificates)}), client(certificates)).start()
    try:
        eventually(lambda: b'"serving"' in patching.log.read_bytes(), 30)
        with open_channel(patching.address, client(certificates)) as channel:
            assert _refused(lambda: _ping(channel, "patching"))
        gateway.wait_serving("live")
        assert gateway.health() != 1
        assert gateway.metrics()("dl4all_dependency_ready", dependency=f"patching {release_name(DEFAULT_RELEASE)}") == 0
    finally:
        patching.end()
        gateway.end()


@pytest.mark.parametrize("pair", ["expired", "other-name", "stranger"])
def test_triton_with_a_bad_certificate_is_refused_by_classification(secured: Stack, certificates: Path, pair: str) -> None:
    """The other way round: the settings of the engine do not fit Triton's certificate."""
    ports = Ports.free()
    other = {**TEST_SETTINGS, **settings(certificates)}
    if pair == "stranger":
        other["DL4ALL_TLS_CA"] = str(certificates / "other-ca.pem")
    elif pair == "other-name":
        other["DL4ALL_TLS_SERVER_NAME"] = "elsewhere.example"
    else:
        other |= {"DL4ALL_TLS_CERTIFICATE": str(certificates / "expired.pem"), "DL4ALL_TLS_KEY": str(certificates / "expired.key")}
    address = {"DL4ALL_CLASSIFICATION_TRITON_ADDRESS": f"dns:///localhost:{secured.ports.grpc[TRITON]}"}
    classification = Running(service_part("classification", ports, {**other, **address})).start()
    try:
        eventually(lambda: b'"serving"' in classification.log.read_bytes(), 30)
        eventually(lambda: classification.metrics()("dl4all_ready") == 0, 10)
        assert classification.metrics()("dl4all_dependency_ready") == 0
    finally:
        classification.end()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"DL4ALL_TLS_KEY": ""}, "go together"),
        ({"DL4ALL_TLS_CA": ""}, "needs DL4ALL_TLS_CA"),
        ({"DL4ALL_TLS_CERTIFICATE": "/no/such/file.pem"}, "cannot be read"),
    ],
)
def test_incomplete_settings_are_told_in_words(certificates: Path, change: dict[str, str], said: str) -> None:
    given = {k: v for k, v in {**settings(certificates), **change}.items() if v}
    part = service_part("patching", Ports.free(), {**TEST_SETTINGS, **given})
    done = subprocess.run(part.command, env=part.full_environment(), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
