"""The parts of a stack on one machine: five services in processes of their own and a Triton, with their commands and addresses."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.common.addresses import bare_host
from services.common.home import home
from services.common.parts import PARTS, TRITON

TRITON_FOLDER: Final = ".triton"
"""Below the home folder: where ``deploy/triton/install.py`` installs Triton."""
_TRITON_SCRIPT: Final = Path("deploy", "triton", "serve.py")


@dataclass(frozen=True)
class Ports:
    """Where each part listens: ``grpc`` and ``metrics``, by name of the part."""

    grpc: Mapping[str, int]
    metrics: Mapping[str, int]

    @classmethod
    def default(cls) -> Ports:
        """The ports that the documentation names."""
        return cls({p.name: p.port for p in PARTS.values()}, {p.name: p.metrics_port for p in PARTS.values()})

    @classmethod
    def free(cls) -> Ports:
        """Ports that nobody listens on now."""
        names = tuple(PARTS)
        numbers = free_ports(2 * len(names))
        return cls(dict(zip(names, numbers, strict=False)), dict(zip(names, numbers[len(names) :], strict=True)))

    def taken(self) -> list[tuple[str, int]]:
        """Parts whose port another process listens on."""
        both = [*self.grpc.items(), *self.metrics.items()]
        return [(name, port) for name, port in both if _is_taken(port)]


@dataclass(frozen=True)
class Launch:
    """How a part of the stack is started.

    Attributes:
        name: of the service, or ``triton``.
        command: the command that is run.
        environment: variables that are added to the environment.
        port: of its gRPC endpoint.
        metrics_port: of its Prometheus metrics.
        host: where others on this machine call it.
        shared_memory_prefix: its segments of shared memory are called ``<prefix><pid>_...``; empty where it has none.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    metrics_port: int = 0
    shared_memory_prefix: str = ""
    host: str = "localhost"

    def full_environment(self) -> dict[str, str]:
        """The environment of the process."""
        return {**os.environ, "PYTHONUNBUFFERED": "1", **self.environment}


def service_part(name: str, ports: Ports, environment: Mapping[str, str] | None = None, host: str = "localhost") -> Launch:
    """A service that finds the others at their ports.

    Args:
        name: one of ``SERVICES``.
        ports: where each part listens.
        environment: further settings.
        host: host of the others; a name that servers' certificates carry.
    """
    part = PARTS[name]
    settings = {
        part.setting("port"): str(ports.grpc[name]),
        part.setting("metrics_port"): str(ports.metrics[name]),
        **{part.address_setting(called): f"dns:///{host}:{ports.grpc[called]}" for called in part.calls},
        **({part.setting("engine"): TRITON} if TRITON in part.calls else {}),
        **(environment or {}),
    }
    return Launch(name, (sys.executable, "-P", "-m", part.module), settings, ports.grpc[name], ports.metrics[name], host=host)


def triton_part(ports: Ports, environment: Mapping[str, str] | None = None, further: Sequence[str] = ()) -> Launch:
    """The Triton that ``deploy/triton/install.py`` installed.

    Args:
        ports: where each part listens.
        environment: further settings.
        further: further options of ``deploy/triton/serve.py``.
    """
    script = home().resolve() / _TRITON_SCRIPT
    command = (sys.executable, str(script), "--grpc-port", str(ports.grpc[TRITON]), "--metrics-port", str(ports.metrics[TRITON]), *further)
    return Launch(TRITON, command, environment or {}, ports.grpc[TRITON], ports.metrics[TRITON], "dl4all_triton_")


def host_to_call(listening: str) -> str:
    """Where parts on this machine call a part that listens on this host."""
    bare = bare_host(listening)
    if bare in ("", "localhost", "127.0.0.1", "0.0.0.0", "::"):
        return "localhost"
    return f"[{bare}]" if ":" in bare else bare


def triton_is_installed() -> bool:
    """Whether ``deploy/triton/install.py`` has run in the home folder, a checkout of this project."""
    return (home() / TRITON_FOLDER / "backends").is_dir() and (home() / _TRITON_SCRIPT).is_file()


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
