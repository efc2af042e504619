"""Start one service in a process of its own: settings, logs, traces, server, end."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from services.common.errors import DomainError
from services.common.logs import configure_logs
from services.common.server import Registration, Server
from services.common.settings import CommonSettings, ServiceSettings, TlsSettings
from services.common.tracing import configure_tracing

Opener = Callable[[CommonSettings, TlsSettings], AbstractAsyncContextManager[Sequence[Registration]]]


def run_service(name: str, kind: type[ServiceSettings], opener: Opener) -> None:
    """Entry point of ``python -m services.<name>``: serve until SIGTERM or SIGINT, then finish the accepted calls.

    Args:
        name: of the service.
        kind: its settings.
        opener: opens the servicers for the time that they are served.
    """
    _help(name, (kind, CommonSettings, TlsSettings))
    try:
        settings, common, tls = kind(), CommonSettings(), TlsSettings()
        configure_logs(common.log_level, name)
        asyncio.run(serve_until_signal(name, common, tls, settings, opener))
    except ValidationError as error:
        raise SystemExit(f"{name}: a setting is wrong: {_in_words(error)}") from error
    except DomainError as error:
        raise SystemExit(f"{name}: {error.message} ({error.reason})") from error


async def serve_until_signal(name: str, common: CommonSettings, tls: TlsSettings, ports: ServiceSettings, opener: Opener) -> None:
    """Serve what the opener opens.

    Args:
        name: ``dl4all-<name>`` is the service's name in traces.
        common: how to listen and how much to accept.
        tls: certificates.
        ports: where to listen.
        opener: opens the servicers.

    Raises:
        DomainError: a release, a model or a setting cannot be used.
    """
    end_tracing = configure_tracing(f"dl4all-{name}", common.tracing)
    try:
        async with opener(common, tls) as registrations:
            await Server(registrations, common, ports, tls).run_until_signal()
    finally:
        end_tracing()


def _help(name: str, kinds: Sequence[type[BaseSettings]]) -> None:
    """Answer ``--help`` with every setting, its default and its meaning."""
    lines = [f"Serve {name} over gRPC until Ctrl-C. Settings are environment variables:", ""]
    for kind in kinds:
        prefix = str(kind.model_config.get("env_prefix", ""))
        for field, info in kind.model_fields.items():
            lines += [f"{prefix}{field.upper()} (default: {_shown(info)})", f"    {' '.join((info.description or '').split())}"]
    parser = argparse.ArgumentParser(
        prog=f"python -m services.{name}", description="\n".join(lines), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(sys.argv[1:])


def _shown(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "see below"
    return "none" if field.default is None or field.default == "" else str(field.default)


def _in_words(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or error.title}: {e['msg']}" for e in error.errors())
