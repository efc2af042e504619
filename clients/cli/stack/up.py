"""``dl4all up``: five services in processes of their own and a real Triton, watched until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from clients.cli.running import console, say
from clients.cli.stack.log_lines import tidy
from clients.cli.stack.parts import Launch, Ports, host_to_call, service_part, triton_is_installed, triton_part
from clients.cli.stack.processes import PartProcess
from dl4all_client.addresses import proxy_note
from dl4all_client.channel import Tls, open_aio_channel
from services.common.home import HOME_VARIABLE, home
from services.common.image_files import shown_text
from services.common.parts import GATEWAY, PARTS, SERVICES, TRITON

_POLL_SECONDS: Final = 0.25
_PATIENCE_SECONDS: Final = 15.0
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 30.0
_SETTLED_SECONDS: Final = 60.0


class StackError(Exception):
    """The stack cannot be started."""


def parts(*, with_triton: bool, free_ports: bool = False) -> list[Launch]:
    """The parts of the stack.

    Args:
        with_triton: whether a Triton runs the models; else the classification service does.
        free_ports: at any free ports instead of the default ones.

    Raises:
        StackError: a port is taken, or Triton is not installed.
    """
    ports = Ports.free() if free_ports else Ports.default()
    taken = [(name, port) for name, port in ports.taken() if with_triton or name != TRITON]
    if taken:
        named = ", ".join(f"{port} ({name})" for name, port in taken)
        raise StackError(f"These ports are in use: {named}. Is another stack running?")
    if with_triton and not triton_is_installed():
        raise StackError(
            f"No Triton is installed in {home().resolve()}; run `make triton` in a checkout and set {HOME_VARIABLE} to it, or give --no-triton."
        )
    quick = {"DL4ALL_DRAIN_DELAY_SECONDS": "0", "DL4ALL_DRAIN_SECONDS": str(_PATIENCE_SECONDS - 5)}
    engine = {} if with_triton else {PARTS[name].setting("engine"): "onnxruntime" for name in SERVICES if TRITON in PARTS[name].calls}
    host = host_to_call(os.environ.get("DL4ALL_HOST", ""))
    services = [service_part(name, ports, {**quick, **engine}, host) for name in SERVICES]
    return [triton_part(ports, further=("--exit-timeout", "10")), *services] if with_triton else services


async def up(stack: Sequence[Launch], start_seconds: float) -> int:
    """Start all parts, wait until all are healthy, restart parts that end, stop all on SIGINT or SIGTERM.

    Args:
        stack: what to start; stopped in the opposite order.
        start_seconds: how long the start may take.

    Returns:
        Exit status: 0 after a signal, 1 where the stack did not start.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stopping.set)
    processes = [PartProcess(part, _show) for part in stack]
    try:
        for process in processes:
            await process.start()
        if not await _started(processes, start_seconds, stopping):
            return 0 if stopping.is_set() else 1
        _say_addresses(stack)
        watchers = [asyncio.create_task(_watch(process)) for process in processes]
        stopped: asyncio.Task[Any] = asyncio.create_task(stopping.wait())
        done, _ = await asyncio.wait([stopped, *watchers], return_when=asyncio.FIRST_COMPLETED)
        for watcher in watchers:
            watcher.cancel()
        stopped.cancel()
        for watcher in done - {stopped}:
            say(f"a part can no longer be watched: {watcher.exception()}", "red")
        return 0 if stopped in done else 1
    finally:
        await _stop(processes, loop)


def _show(name: str, line: str) -> None:
    shown = tidy(name, line)
    if shown is not None:
        console.print(shown_text(shown), soft_wrap=True, highlight=False)


async def _started(processes: Sequence[PartProcess], seconds: float, stopping: asyncio.Event) -> bool:
    """Whether every service became healthy in time and none ended."""
    troubles: dict[str, str] = {}
    healthy = asyncio.create_task(_all_healthy([p.part for p in processes if p.part.name != TRITON], troubles))
    ended = {asyncio.create_task(process.ended()): process.part.name for process in processes}
    stopped = asyncio.create_task(stopping.wait())
    done, waiting = await asyncio.wait({healthy, stopped, *ended}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    for task, name in ended.items():
        if task in done:
            say(f"{name} ended with status {task.result()} while the stack was starting; its last lines above say why", "red")
    if healthy in done and (error := healthy.exception()) is not None:
        say(f"the health of the stack cannot be checked: {error}", "red")
        return False
    if not done:
        say(f"the stack was not healthy within {seconds:.0f} s", "red")
        for name, trouble in troubles.items():
            say(f"  {name}: {trouble}", "red")
    return healthy in done and not done & ended.keys()


async def _all_healthy(services: Sequence[Launch], troubles: dict[str, str]) -> None:
    await asyncio.gather(*(_healthy(part, troubles) for part in services))


async def _healthy(part: Launch, troubles: dict[str, str]) -> None:
    """Wait until a part is healthy; until then ``troubles`` says why it is not."""
    started, address = time.monotonic(), f"{part.host}:{part.port}"
    troubles[part.name] = f"no answer from {address} yet"
    async with open_aio_channel(address, Tls.from_environment(os.environ)) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        while True:
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=3)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    say(f"{part.name} is healthy after {time.monotonic() - started:.1f} s", "green")
                    del troubles[part.name]
                    return
                troubles[part.name] = f"it answers at {address}, but cannot use all that it needs; its lines above say what is missing"
            except grpc.aio.AioRpcError as error:
                troubles[part.name] = f"no answer from {address}: {error.details()} {proxy_note(address, os.environ)}".rstrip()
            await asyncio.sleep(_POLL_SECONDS)


def _say_addresses(stack: Sequence[Launch]) -> None:
    say("")
    for part in stack:
        say(f"  {part.name:15s} {part.host}:{part.port:<6d} metrics http://{part.host}:{part.metrics_port}/metrics")
    gateway = next(part for part in stack if part.name == GATEWAY)
    say(f"\nAll are healthy. Try: dl4all diagnose IMAGE --address {gateway.host}:{gateway.port}    Stop: Ctrl-C", "bold green")


async def _watch(process: PartProcess) -> None:
    """Start a part again whenever it ends, with growing pauses."""
    pause = _FIRST_PAUSE_SECONDS
    while True:
        status = await process.ended()
        if time.monotonic() - process.started > _SETTLED_SECONDS:
            pause = _FIRST_PAUSE_SECONDS
        say(f"{process.part.name} ended with status {status}; it is started again in {pause:.0f} s", "red")
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        await process.start()


async def _stop(processes: Sequence[PartProcess], loop: asyncio.AbstractEventLoop) -> None:
    """Stop in the opposite order, so that each part can finish what it accepted; a second Ctrl-C stops at once."""
    say("stopping; Ctrl-C again stops at once", "yellow")

    def kill_all() -> None:
        for process in processes:
            process.kill()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, kill_all)
    for process in reversed(processes):
        await process.stop(_PATIENCE_SECONDS)
