"""What is put under load: all services in one process, five processes with a Triton, or a gateway that runs already."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from clients.cli.stack.parts import Launch, free_ports, triton_is_installed
from dl4all_client.channel import Tls
from tests.running import Running, Stack

EMBEDDED: Final = "embedded"
FIVE: Final = "five"
GATEWAY: Final = "address"
TARGETS: Final = (EMBEDDED, FIVE)
TITLES: Final = {EMBEDDED: "one process", FIVE: "five processes and Triton", GATEWAY: "running gateway"}
_IN_EARNEST: Final = {
    "DL4ALL_HEALTH_INTERVAL_SECONDS": "1",
    "DL4ALL_HEALTH_TIMEOUT_SECONDS": "1",
    "DL4ALL_KEEPALIVE_SECONDS": "5",
    "DL4ALL_KEEPALIVE_TIMEOUT_SECONDS": "3",
    "DL4ALL_LOG_LEVEL": "WARNING",
}
"""The defaults of the services, where tests of faults have shorter times; calls are not logged one by one."""


@dataclass(frozen=True)
class Target:
    """A gateway under load.

    Attributes:
        name: ``embedded``, ``five`` or ``address``.
        address: of the gateway.
        leaders: process id by part; empty where the processes are not ours.
        tls: how to trust it.
    """

    name: str
    address: str
    leaders: Mapping[str, int] = field(default_factory=dict)
    tls: Tls | None = None


@contextmanager
def embedded(settings: Mapping[str, str] | None = None) -> Iterator[Target]:
    """``dl4all serve`` in a process of its own."""
    port, metrics_port = free_ports(2)
    ports = {"DL4ALL_PORT": str(port), "DL4ALL_METRICS_PORT": str(metrics_port)}
    command = (sys.executable, "-P", "-m", "services.embedded")
    running = Running(Launch(EMBEDDED, command, {**_IN_EARNEST, **ports, **(settings or {})}, port, metrics_port))
    try:
        running.start().wait_serving()
        assert running.process is not None
        yield Target(EMBEDDED, running.address, {EMBEDDED: running.process.pid})
    finally:
        running.end()


@contextmanager
def five(settings: Mapping[str, str] | None = None) -> Iterator[Target]:
    """Five services in processes of their own, and a Triton."""
    if not triton_is_installed():
        raise SystemExit("There is no Triton here: run make triton first, or give --target embedded.")
    stack = Stack.make({**_IN_EARNEST, **(settings or {})})
    try:
        stack.start()
        leaders = {name: running.process.pid for name, running in stack.parts.items() if running.process is not None}
        yield Target(FIVE, stack["gateway"].address, leaders)
    finally:
        stack.end()


@contextmanager
def opened(name: str, address: str = "", settings: Mapping[str, str] | None = None) -> Iterator[Target]:
    """A target by its name.

    Args:
        name: ``embedded``, ``five``, or ``address``.
        address: of the gateway that runs already; TLS as ``DL4ALL_TLS_*`` says.
        settings: further settings of the services that are started.
    """
    if name == GATEWAY:
        yield Target(GATEWAY, address, tls=Tls.from_environment(os.environ))
        return
    with (embedded if name == EMBEDDED else five)(settings) as target:
        yield target
