"""Start the Triton that ``install.py`` installed, serving this project's model repository on the CPU.

    python deploy/triton/serve.py [--grpc-port 8001] [--metrics-port 8002] [-- any further flag of tritonserver]

This process becomes ``tritonserver``: signals to it (SIGTERM, Ctrl-C) reach the server itself. TLS follows the
same variables as the services: ``DL4ALL_TLS_CERTIFICATE``, ``DL4ALL_TLS_KEY``, ``DL4ALL_TLS_CA``, ``DL4ALL_TLS_MUTUAL``.
The HTTP endpoint stays closed: the services speak gRPC, and it has no TLS. Traces go to
``OTEL_EXPORTER_OTLP_ENDPOINT`` where ``DL4ALL_TRACING`` is true.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
SHARED_MEMORY = Path("/dev/shm")
SHARED_MEMORY_PREFIX = "dl4all_triton_"
_YES = {"1", "true", "t", "yes", "y", "on"}


CLOSED_PROTOCOLS = ("shared-memory", "trace", "logging")
"""Protocols of the gRPC endpoint that no part of the project uses. They are open to everybody who reaches the port, unless they are restricted."""
REPOSITORY_PROTOCOL = "model-repository"
SECRET_HEADER = "dl4all-operator"


def server_command(given: argparse.Namespace, environment: Mapping[str, str]) -> list[str]:
    """The command line of ``tritonserver``."""
    packages = _packages(given.installed)
    flags = {
        "id": "dl4all",
        "model-repository": given.model_repository,
        "model-config-name": given.config,
        "backend-directory": given.installed / "backends",
        "model-control-mode": given.model_control,
        "strict-readiness": "true",
        "exit-timeout-secs": given.exit_timeout,
        "allow-http": "false",
        "grpc-address": given.host,
        "grpc-port": given.grpc_port,
        "metrics-address": given.host,
        "metrics-port": given.metrics_port,
        "allow-gpu-metrics": "false",
        "log-format": "ISO8601",
        "grpc-max-connection-age": int(1000 * float(environment.get("DL4ALL_TRITON_MAX_CONNECTION_AGE_SECONDS", "10"))),
        "grpc-keepalive-permit-without-calls": "true",
        "grpc-http2-min-recv-ping-interval-without-data": 1000,
        "grpc-http2-max-ping-strikes": 0,
        "pinned-memory-pool-byte-size": 0,
    }
    if given.model_control == "explicit":
        flags["load-model"] = "*"
    flags.update(_tls(environment))
    server = packages / "pytriton" / "tritonserver" / "bin" / "tritonserver"
    settings = [
        f"--backend-config=python,shm-region-prefix-name={SHARED_MEMORY_PREFIX}{os.getpid()}_",
        _closed(given.model_control),
        *_tracing(environment),
    ]
    return [str(server), *(f"--{name}={value}" for name, value in flags.items()), *settings, *given.further]


def server_environment(installed: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Environment in which the server and its Python processes find their libraries."""
    packages = _packages(installed)
    libraries = [packages / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")]
    return {
        **environment,
        "LD_LIBRARY_PATH": ":".join(str(p) for p in libraries),
        "PATH": f"{installed / 'venv' / 'bin'}:{environment.get('PATH', '')}",
        "PYTHONPATH": str(packages),
    }


def remove_stale_shared_memory(folder: Path = SHARED_MEMORY) -> None:
    """Remove the shared memory that killed servers have left."""
    for path in folder.glob(f"{SHARED_MEMORY_PREFIX}*"):
        owner = path.name.removeprefix(SHARED_MEMORY_PREFIX).partition("_")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            path.unlink(missing_ok=True)


def _closed(model_control: str) -> str:
    """The flag that closes protocols: they ask for a header with a random secret, which is told to nobody.

    Models stay loadable by call where ``model_control`` is ``explicit``.
    """
    protocols = CLOSED_PROTOCOLS if model_control == "explicit" else (*CLOSED_PROTOCOLS, REPOSITORY_PROTOCOL)
    return f"--grpc-restricted-protocol={','.join(protocols)}:{SECRET_HEADER}={secrets.token_hex(32)}"


def _packages(installed: Path) -> Path:
    return installed / "venv" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def _tls(environment: Mapping[str, str]) -> dict[str, object]:
    certificate, mutual = environment.get("DL4ALL_TLS_CERTIFICATE"), environment.get("DL4ALL_TLS_MUTUAL", "").lower() in _YES
    wanted = ["DL4ALL_TLS_KEY"] * bool(certificate) + ["DL4ALL_TLS_CERTIFICATE", "DL4ALL_TLS_KEY", "DL4ALL_TLS_CA"] * mutual
    if missing := [name for name in wanted if not environment.get(name)]:
        raise SystemExit(f"TLS is incomplete: {', '.join(dict.fromkeys(missing))} must be set too.")
    if not certificate:
        return {}
    flags: dict[str, object] = {
        "grpc-use-ssl": "true",
        "grpc-server-cert": certificate,
        "grpc-server-key": environment["DL4ALL_TLS_KEY"],
    }
    if mutual:
        flags |= {"grpc-use-ssl-mutual": "true", "grpc-root-cert": environment["DL4ALL_TLS_CA"]}
    return flags


def _tracing(environment: Mapping[str, str]) -> list[str]:
    if environment.get("DL4ALL_TRACING", "").lower() not in _YES:
        return []
    endpoint = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318").rstrip("/")
    return [
        "--trace-config=mode=opentelemetry",
        "--trace-config=rate=1",
        "--trace-config=level=TIMESTAMPS",
        f"--trace-config=opentelemetry,url={endpoint}/v1/traces",
        "--trace-config=opentelemetry,resource=service.name=dl4all-triton",
    ]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--installed", type=Path, default=PROJECT / ".triton", help="where install.py put it (default: %(default)s)")
    repository = Path(os.environ.get("DL4ALL_MODEL_REPOSITORY") or Path(os.environ.get("DL4ALL_HOME") or PROJECT) / "model_repository")
    parser.add_argument(
        "--model-repository", type=Path, default=repository, help="or DL4ALL_MODEL_REPOSITORY, as for the services (default: %(default)s)"
    )
    parser.add_argument("--config", default="cpu", help="which configs/<name>.pbtxt of each model applies (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--grpc-port", type=int, default=8001)
    parser.add_argument("--metrics-port", type=int, default=8002)
    parser.add_argument("--exit-timeout", type=int, default=75, help="seconds for running inferences after SIGTERM (default: %(default)s)")
    parser.add_argument("--model-control", choices=("none", "explicit"), default="none", help="explicit: models can be loaded and unloaded by call")
    parser.add_argument("further", nargs="*", help="further flags of tritonserver, after --")
    given = parser.parse_args()
    given.installed = given.installed.resolve()
    if not (given.installed / "backends").is_dir():
        raise SystemExit(f"No Triton in {given.installed}; run: python {HERE.relative_to(PROJECT) / 'install.py'}")
    remove_stale_shared_memory()
    os.umask(0o077)
    arguments = server_command(given, os.environ)
    os.execve(arguments[0], arguments, server_environment(given.installed, os.environ))


if __name__ == "__main__":
    main()
