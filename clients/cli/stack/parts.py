"""The parts of a stack on one machine: five services in processes of their own and a Triton; who they are and how they find each other."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

PROJECT_ROOT: Final = Path(__file__).resolve().parents[2]
SERVICES: Final = ("patching", "preprocessing", "classification", "retrieval", "gateway")
TRITON: Final = "triton"
_DEFAULT_PORTS: Final = {"gateway": 50051, "patching": 50052, "preprocessing": 50053, "classification": 50054, "retrieval": 50055, TRITON: 8001}
_DEFAULT_METRICS_PORTS: Final = {"gateway": 9051, "patching": 9052, "preprocessing": 9053, "classification": 9054, "retrieval": 9055, TRITON: 8002}


@dataclass(frozen=True)
class Ports:
    """Where each part listens: ``grpc`` and ``metrics``, by name of the part."""

    grpc: Mapping[str, int]
    metrics: Mapping[str, int]

    @classmethod
    def default(cls) -> Ports:
        """The ports that the documentation names."""
        return cls(_DEFAULT_PORTS, _DEFAULT_METRICS_PORTS)

    @classmethod
    def free(cls) -> Ports:
        """Ports that nobody listens on now."""
        names = (*SERVICES, TRITON)
        numbers = free_ports(2 * len(names))
        return cls(dict(zip(names, numbers, strict=False)), dict(zip(names, numbers[len(names) :], strict=True)))

    def taken(self) -> list[tuple[str, int]]:
        """Parts whose port somebody else listens on."""
        both = [*self.grpc.items(), *self.metrics.items()]
        return [(name, port) for name, port in both if _is_taken(port)]


@dataclass(frozen=True)
class Part:
    """A process of the stack.

    Attributes:
        name: of the service, or ``triton``.
        command: what is run.
        environment: what is added to the environment.
        port: of its gRPC endpoint.
        metrics_port: of its Prometheus metrics.
        shared_memory_prefix: its segments of shared memory are called ``<prefix><pid>_...``; empty where it has none.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    metrics_port: int = 0
    shared_memory_prefix: str = ""

    def full_environment(self) -> dict[str, str]:
        """The environment of the process."""
        return {**os.environ, "PYTHONUNBUFFERED": "1", **self.environment}


def service_part(name: str, ports: Ports, environment: Mapping[str, str] | None = None, host: str = "localhost") -> Part:
    """A service that finds the others at their ports.

    Args:
        name: one of ``SERVICES``.
        ports: where each part listens.
        environment: further settings.
        host: where the others are found; a name that servers' certificates carry.
    """
    own = f"DL4ALL_{name.upper()}_"
    settings = {
        f"{own}PORT": str(ports.grpc[name]),
        f"{own}METRICS_PORT": str(ports.metrics[name]),
        **{f"DL4ALL_GATEWAY_{other.upper()}_ADDRESS": f"dns:///{host}:{ports.grpc[other]}" for other in SERVICES if other != "gateway"},
        "DL4ALL_CLASSIFICATION_ENGINE": "triton",
        "DL4ALL_CLASSIFICATION_TRITON_ADDRESS": f"dns:///{host}:{ports.grpc[TRITON]}",
        **(environment or {}),
    }
    return Part(name, (sys.executable, "-m", f"services.{name}"), settings, ports.grpc[name], ports.metrics[name])


def triton_part(ports: Ports, environment: Mapping[str, str] | None = None, further: Sequence[str] = ()) -> Part:
    """The Triton that ``deploy/triton/install.py`` installed.

    Args:
        ports: where each part listens.
        environment: further settings.
        further: further options of ``deploy/triton/serve.py``.
    """
    script = PROJECT_ROOT / "deploy" / "triton" / "serve.py"
    command = (sys.executable, str(script), "--grpc-port", str(ports.grpc[TRITON]), "--metrics-port", str(ports.metrics[TRITON]), *further)
    return Part(TRITON, command, environment or {}, ports.grpc[TRITON], ports.metrics[TRITON], "dl4all_triton_")


def triton_is_installed() -> bool:
    """Whether ``deploy/triton/install.py`` has run here."""
    return (PROJECT_ROOT / ".triton" / "backends").is_dir()


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
