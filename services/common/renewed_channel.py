"""A channel whose certificates may be replaced while a process runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

import grpc

from services.common.settings import TlsSettings
from services.common.tls import Renewed

Make = Callable[[grpc.ChannelCredentials | None], grpc.aio.Channel]


class RenewedChannel(grpc.aio.Channel):  # type: ignore[misc]
    """A channel over another one, which is replaced when the TLS files are. Calls under way go on over the old one.

    Args:
        tls: names the files.
        make: opens a channel.
        grace: seconds that calls under way may still take.

    Raises:
        ConfigurationError: a file cannot be read, or they do not fit together.
    """

    def __init__(self, tls: TlsSettings, make: Make, grace: float) -> None:
        self._grace = grace
        self._ending: set[asyncio.Task[None]] = set()
        self._channel = Renewed(tls, make, self._end)

    def unary_unary(self, *given: Any, **named: Any) -> Any:
        """See ``grpc.aio.Channel``."""
        return self._method("unary_unary", *given, **named)

    def unary_stream(self, *given: Any, **named: Any) -> Any:
        """See ``grpc.aio.Channel``."""
        return self._method("unary_stream", *given, **named)

    def stream_unary(self, *given: Any, **named: Any) -> Any:
        """See ``grpc.aio.Channel``."""
        return self._method("stream_unary", *given, **named)

    def stream_stream(self, *given: Any, **named: Any) -> Any:
        """See ``grpc.aio.Channel``."""
        return self._method("stream_stream", *given, **named)

    async def close(self, grace: float | None = None) -> None:
        """See ``grpc.aio.Channel``."""
        for task in self._ending:
            task.cancel()
        await self._channel.held.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """See ``grpc.aio.Channel``."""
        return self._channel.now().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """See ``grpc.aio.Channel``."""
        await self._channel.now().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """See ``grpc.aio.Channel``."""
        await self._channel.now().channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _method(self, kind: str, *given: Any, **named: Any) -> Callable[..., Any]:
        """A method of a stub: it is made anew for each channel."""
        made: tuple[grpc.aio.Channel, Any] | None = None

        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal made
            channel = self._channel.now()
            if made is None or made[0] is not channel:
                made = channel, getattr(channel, kind)(*given, **named)
            return made[1](*arguments, **options)

        return call

    def _end(self, replaced: grpc.aio.Channel) -> None:
        task = asyncio.get_running_loop().create_task(replaced.close(self._grace))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
