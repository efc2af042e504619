"""Commands that serve and call servers."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import grpc
import typer

from clients.cli.running import print_json, say
from dl4all_client import ServiceError
from dl4all_client.addresses import proxy_note
from dl4all_client.requests import DEFAULT_TIMEOUT
from services.common.parts import GATEWAY, PARTS


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.", envvar="DL4ALL_HOST")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any free one.", envvar="DL4ALL_PORT", min=0, max=65535)] = PARTS[GATEWAY].port,
) -> None:
    """Serve all five services in this process over gRPC until Ctrl-C; accepted calls are finished."""
    from services.common.errors import DomainError
    from services.common.logs import configure_logs
    from services.common.settings import CommonSettings, TlsSettings
    from services.embedded import NAME, EmbeddedSettings
    from services.embedded import serve as serve_embedded

    common = CommonSettings(host=host)
    configure_logs(common.log_level, NAME)
    try:
        asyncio.run(serve_embedded(common, TlsSettings(), EmbeddedSettings(port=port)))
    except DomainError as error:
        say(f"cannot serve: {error}", "red")
        raise typer.Exit(1) from error


def up(
    triton: Annotated[bool, typer.Option(help="Run the models in a real Triton; without it, in the classification service.")] = True,
    free_ports: Annotated[bool, typer.Option("--free-ports", help="Take any free ports instead of the default ones.")] = False,
    start_seconds: Annotated[float, typer.Option(help="How long the start may take.", min=1.0)] = 120.0,
) -> None:
    """Start the five services in processes of their own and a Triton, as on a cluster; stop them with Ctrl-C.

    A part that ends is started again. Settings are the services' environment variables; see `python -m services.gateway --help`.
    """
    from clients.cli.stack.up import StackError, parts
    from clients.cli.stack.up import up as run_stack

    try:
        status = asyncio.run(run_stack(parts(with_triton=triton, free_ports=free_ports), start_seconds))
    except (StackError, OSError) as error:
        say(f"cannot start: {error}", "red")
        raise typer.Exit(1) from error
    raise typer.Exit(status)


def call(
    method: Annotated[str, typer.Argument(metavar="METHOD|list", help="Service/Method, or `list` for all that the server offers.")],
    data: Annotated[
        str, typer.Option("--data", "-d", help="The request as JSON; @ reads standard input, @FILE a file; several for a stream.")
    ] = "{}",
    file: Annotated[list[str] | None, typer.Option(help="FIELD=FILE puts a file into a bytes field of every message.", show_default=False)] = None,
    merge: Annotated[str, typer.Option(help="JSON object whose fields are set in every message.")] = "{}",
    ignore_unknown: Annotated[bool, typer.Option(help="Leave fields out that the request does not have.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds.", min=0.001)] = DEFAULT_TIMEOUT,
    address: Annotated[str, typer.Option(help="HOST:PORT of any server with reflection.")] = f"localhost:{PARTS[GATEWAY].port}",
) -> None:
    """Call any RPC of a running server with JSON, by reflection, as grpcurl does. Answers are JSON, one a line.

    Example: `dl4all call DiagnosisService/Diagnose --file image=smear.jpg`
    """
    from clients.cli.call import LIST, CallError, ReflectedServer, put_file, read_messages

    try:
        server = ReflectedServer(address, timeout)
    except (OSError, ValueError) as error:
        say(f"failed: {error}", "red")
        raise typer.Exit(1) from error
    try:
        if method == LIST:
            typer.echo("\n".join(server.methods()))
            return
        messages = read_messages(_data(data))
        for message in messages:
            for fields in read_messages(merge):
                message.update(fields)
            for assignment in file or []:
                put_file(message, assignment)
        for answer in server.call(method, messages, ignore_unknown=ignore_unknown):
            print_json(answer)
    except (CallError, OSError) as error:
        say(f"failed: {error}", "red")
        raise typer.Exit(1) from error
    except grpc.RpcError as error:
        failed = ServiceError.from_rpc(error, proxy_note(address, os.environ))
        say(f"failed: {failed.code} {failed.message} ({failed.reason})", "red")
        raise typer.Exit(1) from error
    finally:
        server.close()


def _data(given: str) -> str:
    if given == "@":
        return sys.stdin.read()
    if not given.startswith("@"):
        return given
    from clients.cli.call import CallError

    try:
        return Path(given[1:]).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CallError(f"{given[1:]} is no text, so it is no JSON; a file of bytes goes into a field with --file FIELD=PATH.") from error
