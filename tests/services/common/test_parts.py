"""The one table of parts, and everything that must agree with it."""

from __future__ import annotations

import importlib
import re

import pytest

from clients.cli.stack.log_lines import tidy
from clients.cli.stack.parts import Ports, service_part
from deploy.ci.import_contracts import service_rooms
from deploy.tls.make_certificates import NAMES
from services.common.parts import GATEWAY, INNER_SERVICES, PARTS, SERVICES, TRITON, default_address
from services.common.settings import ServiceSettings
from services.embedded import EmbeddedSettings
from tests.paths import ROOT


def _settings(name: str) -> ServiceSettings:
    module = importlib.import_module(f"{PARTS[name].module}.settings")
    made: ServiceSettings = getattr(module, f"{name.capitalize()}Settings")()
    return made


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_listens_and_calls_as_the_table_says(name: str) -> None:
    part, settings = PARTS[name], _settings(name)
    assert (settings.port, settings.metrics_port) == (part.port, part.metrics_port)
    addresses = {field.removesuffix("_address"): getattr(settings, field) for field in type(settings).model_fields if field.endswith("_address")}
    assert addresses == {called: default_address(called) for called in part.calls}


def test_every_room_with_a_servicer_is_in_the_table() -> None:
    rooms = {path.parent.name for path in (ROOT / "services").glob("*/servicer.py")}
    assert rooms == set(SERVICES)
    assert service_rooms() == [f"services.{name}" for name in SERVICES]


def test_ports_are_not_shared() -> None:
    ports = [port for part in PARTS.values() for port in (part.port, part.metrics_port)]
    assert len(set(ports)) == len(ports)


def test_a_part_is_started_before_the_parts_that_call_it() -> None:
    order = list(PARTS)
    assert all(order.index(called) < order.index(part.name) for part in PARTS.values() for called in part.calls)
    assert {called for part in PARTS.values() for called in part.calls} >= set(INNER_SERVICES) | {TRITON}


def test_the_gateway_faces_outside_and_all_in_one_stands_for_it() -> None:
    assert PARTS[GATEWAY].faces_outside
    assert (EmbeddedSettings().port, EmbeddedSettings().metrics_port) == (PARTS[GATEWAY].port, PARTS[GATEWAY].metrics_port)


@pytest.mark.parametrize("name", SERVICES)
def test_the_supervisor_tells_a_service_where_it_listens_and_whom_it_calls(name: str) -> None:
    ports = Ports.free()
    environment = service_part(name, ports, host="here").environment
    assert environment[f"DL4ALL_{name.upper()}_PORT"] == str(ports.grpc[name])
    told = {key: value for key, value in environment.items() if key.endswith("_ADDRESS")}
    assert told == {f"DL4ALL_{name.upper()}_{called.upper()}_ADDRESS": f"dns:///here:{ports.grpc[called]}" for called in PARTS[name].calls}


def test_certificates_name_every_part() -> None:
    assert set(PARTS) <= set(NAMES)


def test_the_log_has_a_colour_for_every_part() -> None:
    colours = {re.match(r"\[(\w+)\]", tidy(name, "hello") or "")[1] for name in PARTS}  # type: ignore[index]
    assert len(colours) == len(PARTS)


def test_the_script_of_triton_has_the_same_ports() -> None:
    script = (ROOT / "deploy" / "triton" / "serve.py").read_text(encoding="utf-8")
    assert f'"--grpc-port", type=int, default={PARTS[TRITON].port}' in script
    assert f'"--metrics-port", type=int, default={PARTS[TRITON].metrics_port}' in script


@pytest.mark.parametrize("name", PARTS)
def test_the_page_of_services_names_the_ports(name: str) -> None:
    row = re.search(rf"^\| {name} +\| (\d+) +\| (\d+) +\|", (ROOT / "docs" / "services.md").read_text(encoding="utf-8"), re.M | re.I)
    assert row is not None
    assert (int(row[1]), int(row[2])) == (PARTS[name].port, PARTS[name].metrics_port)
