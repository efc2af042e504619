"""``dl4all call``: call any RPC of any server that offers reflection, with JSON, as grpcurl does."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from dl4all_client.channel import Tls, open_channel

LIST: Final = "list"
_DEFAULT_TIMEOUT: Final = 60.0


class CallError(Exception):
    """There is no such RPC, or the given message does not fit it."""


class ReflectedServer:
    """A server as its reflection describes it.

    Args:
        address: its ``host:port``.
        timeout: seconds per call.
    """

    def __init__(self, address: str, timeout: float = _DEFAULT_TIMEOUT) -> None:
        self._channel = open_channel(address, Tls.from_environment(os.environ))
        self._database = ProtoReflectionDescriptorDatabase(self._channel)
        self._pool = DescriptorPool(self._database)
        self._timeout = timeout

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def methods(self) -> list[str]:
        """Full names of all RPCs."""
        services = [self._service(name) for name in sorted(self._database.get_services())]
        return [f"{service.full_name}/{method.name}" for service in services for method in service.methods]

    def call(self, name: str, messages: Sequence[dict[str, Any]], *, ignore_unknown: bool = False) -> Iterator[dict[str, Any]]:
        """Call an RPC.

        Args:
            name: ``package.Service/Method``; the package may be left out where the service's name is unique.
            messages: JSON forms of the requests: one, or any number for an RPC that takes a stream.
            ignore_unknown: whether fields that the request does not have are left out instead of refused.

        Yields:
            JSON forms of the answers, as they come.

        Raises:
            CallError: there is no such RPC, or a message does not fit.
            grpc.RpcError: the call failed.
        """
        method = self._method(name)
        if not method.client_streaming and len(messages) != 1:
            raise CallError(f"{name} takes one message, got {len(messages)}.")
        kind = message_factory.GetMessageClass(method.input_type)
        requests = [self._parsed(kind(), form, ignore_unknown) for form in messages]
        for answer in self._answers(method, requests):
            yield json_format.MessageToDict(answer, descriptor_pool=self._pool)

    def _answers(self, method: MethodDescriptor, requests: Sequence[Message]) -> Iterator[Message]:
        kinds = {
            (False, False): self._channel.unary_unary,
            (False, True): self._channel.unary_stream,
            (True, False): self._channel.stream_unary,
            (True, True): self._channel.stream_stream,
        }
        call: Any = kinds[method.client_streaming, method.server_streaming](
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=_serialized,
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )
        given = iter(requests) if method.client_streaming else requests[0]
        answered = call(given, timeout=self._timeout)
        return iter(answered) if method.server_streaming else iter([answered])

    def _parsed(self, message: Message, form: dict[str, Any], ignore_unknown: bool) -> Message:
        try:
            return json_format.ParseDict(form, message, ignore_unknown_fields=ignore_unknown, descriptor_pool=self._pool)
        except json_format.ParseError as error:
            raise CallError(f"The message does not fit {message.DESCRIPTOR.full_name}: {error}") from error

    def _method(self, name: str) -> MethodDescriptor:
        service, _, method = name.rpartition("/")
        known = [n for n in self._database.get_services() if n == service or n.endswith(f".{service}")]
        if not service or len(known) != 1:
            raise CallError(f"No service here is called {service or name!r}; `dl4all call {LIST}` shows all RPCs.")
        found = self._service(known[0]).methods_by_name.get(method)
        if found is None:
            raise CallError(f"{known[0]} has no RPC called {method!r}; `dl4all call {LIST}` shows all RPCs.")
        return found

    def _service(self, name: str) -> ServiceDescriptor:
        return self._pool.FindServiceByName(name)  # type: ignore[no-any-return]


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def read_messages(text: str) -> list[dict[str, Any]]:
    """JSON objects, one after the other, white space between them.

    Raises:
        CallError: the text is something else.
    """
    decoder, messages, start = json.JSONDecoder(), [], 0
    text = text.strip()
    while start < len(text):
        try:
            message, end = decoder.raw_decode(text, start)
        except ValueError as error:
            raise CallError(f"The data is not JSON: {error}") from error
        if not isinstance(message, dict):
            raise CallError("Each message must be a JSON object.")
        messages.append(message)
        start = end + len(text[end:]) - len(text[end:].lstrip())
    return messages


def put_file(message: dict[str, Any], assignment: str) -> None:
    """Put a file's bytes into a bytes field: ``image=smear.jpg``, ``cells.0.pixels=cell.rgb``.

    Raises:
        CallError: the assignment is malformed, does not fit the message, or the file cannot be read.
    """
    path, equals, file = assignment.partition("=")
    if not equals or not path or not file:
        raise CallError(f"--file takes FIELD=FILE, got {assignment!r}.")
    try:
        content = base64.b64encode(Path(file).read_bytes()).decode()
    except OSError as error:
        raise CallError(f"{file} cannot be read: {error.strerror}.") from error
    names = path.split(".")
    container: Any = message
    for name, following in pairwise(names):
        container = _child(container, name, [] if following.isdigit() else {}, path)
    _set(container, names[-1], content, path)


def _child(container: Any, name: str, empty: Any, path: str) -> Any:
    if isinstance(container, dict):
        return container.setdefault(name, empty)
    if isinstance(container, list) and name.isdigit() and int(name) <= len(container):
        if int(name) == len(container):
            container.append(empty)
        return container[int(name)]
    raise CallError(f"{path} does not fit the message at {name!r}.")


def _set(container: Any, name: str, content: str, path: str) -> None:
    if isinstance(container, dict):
        container[name] = content
    elif isinstance(container, list) and name.isdigit() and int(name) <= len(container):
        container[int(name) : int(name) + 1] = [content]
    else:
        raise CallError(f"{path} does not fit the message at {name!r}.")
