"""The parts of a stack: name, command, ports and calls of each.

This is the only table of them. Settings take their ports and addresses from it, `dl4all up` the processes that it starts, the certificates their
names, the log its colours, and the linter the packages that must not import each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Part:
    """One process of a stack.

    Attributes:
        name: of the service, of its package below ``services``, and of its host on a cluster.
        port: of its gRPC endpoint.
        metrics_port: of its Prometheus metrics.
        calls: names of the parts that it calls; no other part may call them.
        faces_outside: whether callers outside may reach it.
        is_service: whether it is a service of this project, ``python -m services.<name>``.
    """

    name: str
    port: int
    metrics_port: int
    calls: tuple[str, ...] = ()
    faces_outside: bool = False
    is_service: bool = True

    @property
    def module(self) -> str:
        """Package of the service; empty where it is none."""
        return f"services.{self.name}" if self.is_service else ""

    def setting(self, name: str) -> str:
        """Environment variable of one of its settings."""
        return f"DL4ALL_{self.name.upper()}_{name.upper()}"

    def address_setting(self, called: str) -> str:
        """Environment variable with the address of a part that it calls."""
        return self.setting(f"{called}_address")


TRITON: Final = "triton"
GATEWAY: Final = "gateway"

_PARTS: Final = (
    Part(TRITON, port=8001, metrics_port=8002, is_service=False),
    Part("patching", port=50052, metrics_port=9052, calls=(TRITON,)),
    Part("preprocessing", port=50053, metrics_port=9053),
    Part("classification", port=50054, metrics_port=9054, calls=(TRITON,)),
    Part("retrieval", port=50055, metrics_port=9055),
    Part(GATEWAY, port=50051, metrics_port=9051, calls=("patching", "preprocessing", "classification", "retrieval"), faces_outside=True),
)
"""In the order of their start: a part comes before the parts that call it."""

PARTS: Final = {part.name: part for part in _PARTS}
SERVICES: Final = tuple(part.name for part in _PARTS if part.is_service)
INNER_SERVICES: Final = tuple(part.name for part in _PARTS if part.is_service and not part.faces_outside)


def default_address(name: str) -> str:
    """Address of a part on this machine at its usual port."""
    return f"dns:///localhost:{PARTS[name].port}"
